"""Read times, and derive columns from raw columns, by the same rules in etl and serving."""
