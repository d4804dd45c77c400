"""What standardising a number needs, learnt from the training rows: the file statistics.json."""

from __future__ import annotations

from pathlib import Path

import msgspec

#: Beside the vocabularies of an etl stage.
FILE = "statistics.json"


class NumberFact(msgspec.Struct, frozen=True):
    """A number's input is (fill(x) - mean) / std, without the division where std is 0."""

    mean: float
    std: float
    fill: float


def write(facts: dict[str, NumberFact], folder: Path) -> None:
    """Write the facts of each number column into a folder."""
    (folder / FILE).write_bytes(msgspec.json.format(msgspec.json.encode(facts), indent=2))


def read(folder: Path) -> dict[str, NumberFact]:
    """Read what `write` wrote."""
    return msgspec.json.decode((folder / FILE).read_bytes(), type=dict[str, NumberFact])
