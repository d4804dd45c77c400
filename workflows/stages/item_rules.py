"""Rules `column=value`, such as `genre=Comedy`, that restrict the items of recommendation lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.core.retriever import Bools
from workflows.ground.errors import DataError
from workflows.raw import spelling
from workflows.recipe.text import nearest

#: Largest number of column values among which an error message looks for the most similar one.
_COMPARED = 10_000


@dataclass(frozen=True)
class ItemRules:
    """Selects items by rules `column=value` on their readable (not encoded) columns.

    Numbers are compared by value, and text as the column spells it: `price=4.0` equals `price=4`,
    and `new=True` equals `new=true`. A cell with a list matches a rule if one of the list's values
    does.

    Attributes:
        items: the columns that a rule may name, one row per item.
    """

    items: pa.Table

    def matches(self, rule: str) -> Bools:
        """Return, for each item, whether it matches a rule `column=value`, bool [n_items].

        Raises:
            DataError: the rule's column does not exist, or it has numbers and the rule's value is
                not a number.
        """
        name, value = self._parsed(rule)
        column = self.items[name].combine_chunks()
        if not pa.types.is_list(column.type):
            equal = pc.equal(column, _as_value(value, column, rule)).fill_null(False)
            return equal.to_numpy(zero_copy_only=False)
        hits = pc.equal(column.flatten(), _as_value(value, column.flatten(), rule))
        mask = np.zeros(len(column), bool)
        mask[pc.list_parent_indices(column).filter(hits.fill_null(False)).to_numpy()] = True
        return mask

    def refuse_unmatched(self, rules: Sequence[str]) -> None:
        """Raise an error if a rule `column=value` of a request matches no item of the catalogue.

        Raises:
            DataError: a rule matches no item; the message suggests the most similar value.
        """
        for rule in rules:
            if not self.matches(rule).any():
                name, value = self._parsed(rule)
                raise DataError(
                    f"--only {rule!r}: no item has {value!r} in {name!r}. "
                    f"{self._nearest(name, value)}Correct the rule, or leave it out."
                )

    def _parsed(self, rule: str) -> tuple[str, str]:
        """Split a rule `column=value` into the column and the value."""
        parsed = split_rule(rule, self.items.column_names)
        if parsed is None:
            raise DataError(
                f"--only {rule!r}: expected column=value, with one of the columns "
                f"{', '.join(self.items.column_names)}."
            )
        return parsed

    def _nearest(self, name: str, value: str) -> str:
        column = self.items[name].combine_chunks()
        values = (column.flatten() if pa.types.is_list(column.type) else column).unique()
        values = values.drop_null()
        if pa.types.is_string(values.type):  # each comparison takes some 10 microseconds
            return nearest(value, values.slice(0, _COMPARED).to_pylist())
        if not len(values):
            return ""
        numbers = values.to_numpy().astype(np.float64)
        close = numbers[np.abs(numbers - float(value)).argmin()]
        return f"The nearest number is {close:g}. "


def split_rule(rule: str, columns: Sequence[str]) -> tuple[str, str] | None:
    """Split a rule `column=value` into a column and a value; None if it begins with no column.

    Names of columns may contain `=`; the longest name that fits is taken.
    """
    fits = [name for name in columns if rule.startswith(f"{name}=")]
    if not fits:
        return None
    name = max(fits, key=len)
    return name, rule[len(name) + 1 :]


def _as_value(value: str, column: pa.Array, rule: str) -> pa.Scalar:
    """Return the value of a rule `column=value`, in the type and the spelling of the column.

    Raises:
        DataError: the column has numbers, and the value is not a number.
    """
    if pa.types.is_string(column.type):
        text = pa.array([value], pa.string())
        if spelling.canonical(text).null_count == 0:  # it has another spelling
            text = spelling.respell(text, column.unique().drop_null())
        return text[0]
    try:
        return pa.array([float(value)], pa.float64()).cast(column.type, safe=False)[0]
    except ValueError:
        raise DataError(
            f"--only {rule!r}: {value!r} is not a number. Give one, such as 4.5."
        ) from None
