"""Places that a folder can come from or go to; ``places`` chooses among them."""
