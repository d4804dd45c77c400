"""Checks the raw values (text and numbers) of a request, and makes a table of them for a tower."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice

import numpy as np
import pyarrow as pa

from models.core.column_names import HISTORY_AGES
from workflows.ground.errors import DataError
from workflows.serve.wire import MAX_FAULTS_COUNTED, Fault, Features, Refusal, Value, fault, place
from workflows.stages.embedding import RawTower


def table_of(
    rows: Sequence[Features],
    tower: RawTower,
    side: str,
    *inside: str,
    weights: Mapping[str, str] | None = None,
) -> pa.Table:
    """Return the raw values of a request as a table, the input of a tower.

    The table has a column for each input of the tower that at least one row gives.

    Args:
        rows: input → value for each row; null means that the value is missing.
        tower: the tower that gets the values.
        side: field of the body that has the rows: `users` or `items`.
        inside: the field of a row that holds the values; none if the row itself holds the values.
        weights: name of the input with the weights of a list, or with the ages of a history → name
            of the input with the list or history.

    Raises:
        Refusal: the tower has no input with a given name, or does not accept a value.
    """
    faults = list(islice(_faults(rows, tower, side, inside, weights or {}), MAX_FAULTS_COUNTED))
    if faults:
        raise Refusal(422, *faults)
    given = [name for name in tower.inputs if any(name in row for row in rows)]
    columns = {
        name: pa.array([row.get(name) for row in rows], tower.inputs[name].arrow) for name in given
    }
    # a table without columns would have no rows
    return pa.table(columns or {"": pa.nulls(len(rows))})


def faults_of_row(
    given: pa.Table, convert: Callable[[pa.Table], pa.Table], side: str, *inside: str
) -> list[Fault]:
    """Return the faults of the first row of a request whose raw values cannot be converted.

    Args:
        given: raw values, of which at least one cannot be converted.
        convert: converts raw values, and raises DataError where it cannot.
        side: field of the body that has the rows: `users` or `items`.
        inside: the field of a row that holds its values; none if the row itself holds them.
    """

    def error_in(rows: pa.Table) -> str:
        try:
            convert(rows)
        except DataError as error:
            return str(error)
        return ""

    low, high = 0, len(given)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if error_in(given.slice(low, middle - low)) else (middle, high)
    row = given.slice(low, 1)
    found = {name: error_in(row.select([name])) for name in row.column_names}
    faults = [
        fault(place("body", side, low, *inside, name), row[name][0].as_py(), error)
        for name, error in found.items()
        if error
    ]
    # each row may be right where all of them are not: times of different forms
    return faults or [fault(place("body", side), "raw values", error_in(given))]


def _faults(
    rows: Sequence[Features],
    tower: RawTower,
    side: str,
    inside: Sequence[str],
    weights: Mapping[str, str],
) -> Iterator[Fault]:
    """Yield the faults of a request's raw values one by one."""
    for n, row in enumerate(rows):
        for name, value in row.items():
            expected = _fault(tower, name, value)
            if not expected and name == HISTORY_AGES:
                expected = _fault_of_ages(value, row.get(weights[name]))
            elif not expected and name in weights:
                expected = _fault_of_weights(value, weights[name], row.get(weights[name]))
            if expected:
                yield fault(place("body", side, n, *inside, name), value, expected)


def _fault_of_weights(value: Value, name: str, values: Value) -> str:
    """Return the expected form of the weights of a list feature; "" if the weights are valid.

    Args:
        value: a list of numbers, or null.
        name: the input with the list.
        values: the list itself, or null where the row has none.
    """
    if not isinstance(value, list):
        return ""
    if any(isinstance(weight, float) and weight < 0 for weight in value):
        return "numbers of 0 or more"
    if isinstance(values, list) and len(values) != len(value):
        return f"{len(values)} numbers, one for each value of {name!r}"
    return ""


def _fault_of_ages(value: Value, items: Value) -> str:
    """Return the expected form of the ages of a history; "" if the ages are valid.

    Args:
        value: a list of numbers, or null.
        items: the history, or null where the row has none.
    """
    if not isinstance(value, list):
        return ""
    if not isinstance(items, list):
        return "ages together with their history, which this row lacks"
    if len(items) != len(value):
        return f"{len(items)} numbers of seconds, one for each item of the history"
    if (np.diff(np.array(value, np.float64)) > 0).any():
        return "seconds since each item, oldest item first, so that no age is above the one before"
    return ""


def _fault(tower: RawTower, name: str, value: Value) -> str:
    """Return the form that a tower's input expects of a raw value; "" if the value is valid."""
    form = tower.inputs.get(name)
    if form is None:
        return f"one of the inputs {', '.join(tower.inputs)}"
    return form.fault(value)
