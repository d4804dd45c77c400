"""Read and write statistics.json: mean, standard deviation and fill value of number columns.

The statistics are computed from the training rows, and are used to standardise the number columns.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

#: Name of the statistics file in the folder of an etl stage.
FILE = "statistics.json"


class NumberFact(msgspec.Struct, frozen=True):
    """Statistics of a number column; a tower's input is (x - mean) / std, or x - mean if std is 0.

    Attributes:
        mean: mean of the column's training values.
        std: standard deviation of the column's training values.
        fill: value that replaces a missing value before the column is standardised.
    """

    mean: float
    std: float
    fill: float


def write(facts: dict[str, NumberFact], folder: Path) -> None:
    """Write the statistics of all number columns into the file statistics.json of a folder."""
    (folder / FILE).write_bytes(msgspec.json.format(msgspec.json.encode(facts), indent=2))


def read(folder: Path) -> dict[str, NumberFact]:
    """Read statistics.json from a folder: number column → its mean, standard deviation and fill."""
    return msgspec.json.decode((folder / FILE).read_bytes(), type=dict[str, NumberFact])
