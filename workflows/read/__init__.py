"""Read raw files (csv, tsv, JSON lines, parquet), compressed or not, in blocks of rows.

A cell of text is not converted here, but by the kinds of features (workflows/recipe/kinds/). Etl
and serving read files with this package, which therefore imports Arrow, but neither Merlin nor
TensorFlow.
"""
