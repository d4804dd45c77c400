"""Errors in the input, the recipe, a run or the machine. Each message says what to do next."""

from __future__ import annotations


class TwoTowerError(Exception):
    """A fault in the input, recipe, machine or run folder.

    The command line prints the message of the error and exits with code 2.
    """


class RecipeError(TwoTowerError):
    """The recipe is not valid, or does not fit the raw data."""


class DataError(TwoTowerError):
    """A raw file, or one of its columns or rows, is not as the recipe describes it."""


class MissingStage(TwoTowerError):
    """A verb needs the output of a pipeline stage that does not exist yet."""


class StaleInput(TwoTowerError):
    """A stage was made from a recipe or from inputs that differ from the present ones."""


class ArtifactError(TwoTowerError):
    """A stage's folder is damaged, unfinished or tampered with, or an export fails its check."""


class DeviceError(TwoTowerError):
    """The requested device (CPU or GPU) cannot be used."""


class RankError(TwoTowerError):
    """The processes that train a model together cannot start, or one of them ended."""


class AddressError(TwoTowerError):
    """The recommendation server cannot listen on the requested network address."""


class StorageError(TwoTowerError):
    """The disk cannot be written: no space, no permission, or another process is writing."""


def quantity(n: int, noun: str) -> str:
    """Return a number with its noun for a message, such as `1 column` or `1,200 rows`."""
    return f"{n:,} {noun}{'s' * (n != 1)}"
