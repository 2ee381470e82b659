"""What ``beear_core.report`` is made of: markup, plots, and one module for each group of sections."""
