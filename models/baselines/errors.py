"""The error of a baseline that does not run on a data set."""

from __future__ import annotations


class CannotFit(ValueError):
    """The data lacks what the model needs, or has too much of it."""
