"""Check values that can be read but look wrong: log a warning with a count, or refuse them."""
