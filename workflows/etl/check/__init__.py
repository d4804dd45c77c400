"""Check raw values that are readable but look wrong: log a warning with a count, or refuse them."""
