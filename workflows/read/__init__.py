"""Read raw files (csv, tsv, JSON lines, parquet), compressed or not, in blocks of rows.

A cell of text stays text; the kinds of features (workflows/recipe/kinds/) convert it later. This
package reads the sources of a recipe in etl and the files that are given at serving. So it needs
Arrow alone.
"""
