"""Clean a candidate with BEEAR, or leave it as it is."""
