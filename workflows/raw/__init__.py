"""Convert raw values to text, numbers and lists, by the same rules in training and in serving."""
