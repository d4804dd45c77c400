"""The error of a baseline that does not run on a data set."""

from __future__ import annotations


class CannotFit(ValueError):
    """A baseline cannot be fitted, because the data lacks something, or is too large."""
