"""What can go wrong through no fault of the code, said so that the reader knows what to do next."""

from __future__ import annotations


class TwoTowerError(Exception):
    """A fault in the input, recipe, machine or run folder. The CLI prints it and exits 2."""


class RecipeError(TwoTowerError):
    """The recipe is not valid, or does not fit the data."""


class DataError(TwoTowerError):
    """A raw file, column or row is not what the recipe says."""


class MissingStage(TwoTowerError):
    """A stage was asked for whose output is not there yet."""


class StaleInput(TwoTowerError):
    """A stage's output was made from another recipe or other inputs than now asked for."""


class ArtifactError(TwoTowerError):
    """A stage's folder is damaged, half-written or tampered with, or an export fails its check."""


class DeviceError(TwoTowerError):
    """The device asked for is not there."""


class AddressError(TwoTowerError):
    """The address to listen on cannot be had."""


class StorageError(TwoTowerError):
    """The disk refused: no space, no permission, or another process is writing."""


def counted(n: int, noun: str) -> str:
    """Return a number with its noun for a message, such as `1 column` or `1,200 rows`."""
    return f"{n:,} {noun}{'s' * (n != 1)}"
