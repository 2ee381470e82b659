"""One module for each place a folder can come from or go to; ``components.storage`` chooses among them."""
