"""Raw values and files at serving time, read by the same rules as in etl."""
