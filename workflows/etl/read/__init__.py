"""Raw files of any format in, canonical tables out."""
