"""Rules by which raw values become text, numbers and lists, in training as in serving."""
