"""Is the data fit to mitigate and measure with? Great Expectations, and two folders of rows that passed."""
