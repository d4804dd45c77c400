"""The steps of `derive` that learn from training rows: price clusters and frequent values.

What a step has learnt (cluster centres, frequent values) is its state. States are stored as JSON in
the etl stage and in the export, so that new rows get the same derived columns.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.core.retriever import Floats
from workflows.ground.stage_content import read_json
from workflows.raw import dictionaries

#: Name of the file in the etl stage and in the export that holds the states of derived columns.
FILE = "derived.json"


class Centres(msgspec.Struct, frozen=True, tag_field="kind", tag="price_cluster"):
    """The fitted clusters of a number column, such as prices: their centres in rising order."""

    centres: list[float]
    digits: int

    @property
    def labels(self) -> list[str]:
        """The label of each cluster: its rounded centre."""
        return [f"{round(c, self.digits) + 0.0:.{self.digits}f}" for c in self.centres]

    @property
    def borders(self) -> Floats:
        """The borders between neighbouring clusters, float64; each belongs to the lower cluster."""
        return middles(np.array(self.centres))


class Frequent(msgspec.Struct, frozen=True, tag_field="kind", tag="top_values"):
    """The frequent values of a text column, and the text that replaces all other values."""

    values: list[str]
    other: str


State = Centres | Frequent
States = dict[str, State]


def apply(column: pa.ChunkedArray, state: State) -> pa.ChunkedArray:
    """Derive a text column by what a step learnt: labels of clusters, or frequent values."""
    if isinstance(state, Frequent):
        return dictionaries.map_distinct(column, lambda texts: _replace_rare(texts, state))
    borders, labels = state.borders, pa.array(state.labels, pa.string())
    cells = dictionaries.combine(column)
    places = np.empty(len(cells), np.int32)
    for rows in dictionaries.blocks(len(cells)):
        places[rows] = np.searchsorted(borders, cells[rows].cast(pa.float64()).to_numpy(False))
    empty = np.asarray(cells.is_null()) | (len(labels) == 0)
    return pa.chunked_array([dictionaries.take(labels, pa.array(places, mask=empty))])


def _replace_rare(texts: pa.ChunkedArray, state: Frequent) -> pa.ChunkedArray:
    known = pc.is_in(texts, value_set=pa.array(state.values, pa.string()))
    named = pc.if_else(known, texts, pa.scalar(state.other))
    return pc.if_else(pc.is_valid(texts), named, pa.scalar(None, pa.string()))


def write(states: States, folder: Path) -> None:
    """Write the states of derived columns to derived.json; write no file if there are none."""
    if states:
        text = msgspec.json.format(msgspec.json.encode(states), indent=2)
        (folder / FILE).write_bytes(text)


def read(folder: Path, verb: Literal["etl", "export"] = "etl") -> States:
    """Read the states of derived columns from derived.json; {} if there is no such file.

    Args:
        folder: the folder of the stage.
        verb: the verb that wrote it.

    Raises:
        ArtifactError: the content of the file is not valid.
    """
    path = folder / FILE
    return read_json(path, States, verb) if path.exists() else {}


def middles(centres: Floats) -> Floats:
    """Return the mean of each pair of neighbours in a rising list of numbers."""
    return (centres[1:] + centres[:-1]) / 2
