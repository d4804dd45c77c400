"""Raw values of a question → a table as a raw tower takes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
import pyarrow as pa

from workflows.serve.wire import MAX_FAULTS_COUNTED, Fault, Features, Refusal, Value, fault, place
from workflows.stages.embedding import RawTower

#: The largest number that a tower takes: they are float32.
_LARGEST = float(np.finfo(np.float32).max)


def table_of(rows: Sequence[Features], tower: RawTower, side: str, *inside: str) -> pa.Table:
    """Return raw values as a table; of inputs that nobody tells there is no column.

    Args:
        rows: input → value, one a row; null is not told.
        tower: the tower that takes them.
        side: the side of the body: `users` or `items`.
        inside: where a row's values stand in it.

    Raises:
        Refusal: for a name or a value that the tower does not take.
    """
    faults = list(islice(_faults(rows, tower, side, inside), MAX_FAULTS_COUNTED))
    if faults:
        raise Refusal(422, *faults)
    told = [name for name in tower.inputs if any(name in row for row in rows)]
    columns = {name: pa.array([row.get(name) for row in rows], tower.inputs[name]) for name in told}
    # without a column a table has no length
    return pa.table(columns or {"": pa.nulls(len(rows))})


def _faults(
    rows: Sequence[Features], tower: RawTower, side: str, inside: Sequence[str]
) -> Iterator[Fault]:
    """Yield what is wrong, one after the other: nobody reads more than a few."""
    for n, row in enumerate(rows):
        for name, value in row.items():
            if expected := _fault(tower, name, value):
                yield fault(place("body", side, n, *inside, name), value, expected)


def _fault(tower: RawTower, name: str, value: Value) -> str:
    """Return what was expected in place of a value, "" if it is right."""
    kind = tower.inputs.get(name)
    if kind is None:
        return f"one of the inputs {', '.join(tower.inputs)}"
    is_list = pa.types.is_list(kind)
    is_text = pa.types.is_string(kind.value_type if is_list else kind)
    right, one, many = (
        (str, "text", "a list of texts")
        if is_text
        else ((int, float), "a number", "a list of numbers")
    )
    expected = many if is_list else one
    cells = value if isinstance(value, list) else [value]
    fits = isinstance(value, list) == is_list and all(isinstance(cell, right) for cell in cells)
    if fits and any(isinstance(cell, (int, float)) and abs(cell) > _LARGEST for cell in cells):
        fits, expected = False, f"a number of at most {_LARGEST:g}"
    return "" if value is None or fits else f"{expected}, or null"
