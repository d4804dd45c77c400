"""Read times, and derive columns from raw ones, by the same rules in etl and at serving."""
