"""Read raw files of every supported format into tables with the types that the recipe states."""
