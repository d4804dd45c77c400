"""One reader for each stage folder of a run, and the store that writes the folders."""
