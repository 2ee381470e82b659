"""Decide on the evidence; register; promote only on a pass."""
