"""Join, pivot, filter and split the rows, and build histories and tables."""
