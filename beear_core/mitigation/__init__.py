"""BEEAR: find what makes a model comply, teach it to refuse all the same, and keep everything else as it was."""
