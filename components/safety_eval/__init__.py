"""Measure a model on the evaluation suites."""
