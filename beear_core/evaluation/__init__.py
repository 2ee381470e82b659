"""Measuring a model: prompts in, replies judged, figures with counts and intervals out.

``metrics`` and ``statistics`` load no torch; ``generate`` does.
"""
