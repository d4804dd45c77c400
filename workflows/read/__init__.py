"""Read raw files (csv, tsv, JSON lines, parquet), compressed or not, in blocks of rows.

A cell of text stays text; the kinds of features (workflows/recipe/kinds/) convert it later. Etl and
serving read files with this package, which therefore imports Arrow, but neither Merlin nor
TensorFlow.
"""
