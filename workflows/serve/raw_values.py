"""Checks the raw values of a request, and turns them into a table for a raw tower."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import pyarrow as pa

from workflows.serve.wire import MAX_FAULTS_COUNTED, Fault, Features, Refusal, Value, fault, place
from workflows.stages.embedding import RawTower


def table_of(rows: Sequence[Features], tower: RawTower, side: str, *inside: str) -> pa.Table:
    """Return raw values as a table. It has a column for each input that at least one row gives.

    Args:
        rows: input → value for each row; null means that the value is missing.
        tower: the tower that gets the values.
        side: field of the body that has the rows: `users` or `items`.
        inside: field of a row that has its values; nothing if the row itself has them.

    Raises:
        Refusal: the tower has no input of a name, or does not accept a value.
    """
    faults = list(islice(_faults(rows, tower, side, inside), MAX_FAULTS_COUNTED))
    if faults:
        raise Refusal(422, *faults)
    given = [name for name in tower.inputs if any(name in row for row in rows)]
    columns = {
        name: pa.array([row.get(name) for row in rows], tower.inputs[name].arrow) for name in given
    }
    # a table without columns would have no rows
    return pa.table(columns or {"": pa.nulls(len(rows))})


def _faults(
    rows: Sequence[Features], tower: RawTower, side: str, inside: Sequence[str]
) -> Iterator[Fault]:
    """Yield faults one by one, so that the caller can stop after some."""
    for n, row in enumerate(rows):
        for name, value in row.items():
            if expected := _fault(tower, name, value):
                yield fault(place("body", side, n, *inside, name), value, expected)


def _fault(tower: RawTower, name: str, value: Value) -> str:
    """Return what was expected in place of a value; "" if the value is right."""
    form = tower.inputs.get(name)
    if form is None:
        return f"one of the inputs {', '.join(tower.inputs)}"
    return form.fault(value)
