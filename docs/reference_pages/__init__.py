"""Writes the pages of docs/reference from the code; `make docs` calls it.

Each module of this folder makes one page: its `page()` reads declarations and docstrings, and
needs no TensorFlow. tests/test_reference.py fails where something has no meaning written.
"""
