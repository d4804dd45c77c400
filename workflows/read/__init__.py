"""Read delimited text, JSON lines and parquet, packed or not, in blocks of rows.

Every cell of text stays text: the kinds of features give cells their types. Etl reads the sources
of a recipe by it, and serving the files that are given there, so it needs Arrow alone.
"""
