"""Derive columns; join, pivot, filter and split the rows; build histories and tables."""
