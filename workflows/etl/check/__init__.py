"""Checks of values that can be read, but look wrong."""
