"""Take a candidate model over: from wherever it is, checked, complete, and known by its digest."""
