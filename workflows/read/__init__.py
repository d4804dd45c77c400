"""Read raw files (csv, tsv, JSON lines, parquet), compressed or not, in blocks of rows.

A cell of text stays text; the kinds of features (workflows/recipe/kinds/) convert it later. This
package reads raw training files in etl and files that are given at serving. So it needs Arrow, but
neither Merlin nor TensorFlow.
"""
