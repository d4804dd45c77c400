"""Raw values of a question → a table as a raw tower takes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import pyarrow as pa

from workflows.serve.wire import MAX_FAULTS_COUNTED, Fault, Features, Refusal, Value, fault, place
from workflows.stages.embedding import RawTower


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
    columns = {
        name: pa.array([row.get(name) for row in rows], tower.inputs[name].arrow) for name in told
    }
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
    form = tower.inputs.get(name)
    if form is None:
        return f"one of the inputs {', '.join(tower.inputs)}"
    return form.fault(value)
