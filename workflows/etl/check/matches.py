"""Count how many ids of one table another table has; find the likely cause if it has few."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from workflows.etl.check import variants

#: A warning is logged if a join finds less than this share of the ids.
FEW = 0.1
#: Number of example ids of each table in a message.
_SHOWN = 3

#: Difference between two spellings of an id → function that removes the difference.
_CAUSES: dict[str, Callable[[pa.Array], pa.Array]] = {
    "a '.0' at the end of numbers": lambda ids: pc.replace_substring_regex(
        ids, r"^(-?\d+)\.0+$", r"\1"
    ),
    "blanks around ids": pc.utf8_trim_whitespace,
    "invisible characters, or composed accents": variants.remove_invisible,
    "zeros before numbers": lambda ids: pc.replace_substring_regex(ids, r"^0+(\d)", r"\1"),
    "capital letters": pc.utf8_lower,
    "quotes around ids": lambda ids: pc.utf8_trim(ids, characters="\"'="),
}


@dataclass(frozen=True)
class Match:
    """How many user or item ids of a table are in another table, with examples and a likely cause.

    Attributes:
        ids: number of distinct user or item ids of the first table.
        found: number of distinct ids of the first table that are also in the other table.
        examples: some ids that only the first table has, and some that only the other has.
        cause: difference in spelling that explains at least half of the missing ids; "" if there is
            none.
    """

    ids: int
    found: int
    examples: tuple[list[str], list[str]]
    cause: str

    @property
    def is_poor(self) -> bool:
        """Whether a join by the ids needs a warning: few ids match, or their spellings differ."""
        return self.ids > 0 and (self.found < FEW * self.ids or bool(self.cause))

    def sentences(self, column: str, here: str, there: str) -> str:
        """Describe in sentences how many ids of one table are in the other, for a message.

        Args:
            column: name of the id column.
            here, there: names of the two tables.
        """
        some = "None" if self.found == 0 else f"Only {self.found:,}"
        mine, theirs = (", ".join(map(repr, ids)) for ids in self.examples)
        text = f"{some} of {self.ids:,} ids of {column!r} in {here} are in {there}"
        text += f". The former has {mine}" + (f", the latter {theirs}." if theirs else ".")
        if self.cause:
            text += f" The likely cause is {self.cause}, in one of them and not in the other."
        return text


def match(ids: pa.Array, others: pa.Array) -> Match:
    """Count the user or item ids that two tables share; find the likely cause if they are few.

    Args:
        ids: distinct ids of the first table, text without null.
        others: distinct ids of the other table, text without null.
    """
    lost = ids.filter(pc.invert(pc.is_in(ids, value_set=others)))
    found = len(ids) - len(lost)
    if not len(lost):
        return Match(len(ids), found, ([], []), "")
    spare = others.filter(pc.invert(pc.is_in(others, value_set=ids)))
    examples = (_first(lost), _first(spare))
    return Match(len(ids), found, examples, _cause(lost, spare))


def _cause(lost: pa.Array, spare: pa.Array) -> str:
    """Return the difference in spelling that explains at least half of the ids without a match."""
    for cause, without in _CAUSES.items():
        same = pc.is_in(without(lost), value_set=without(spare))
        if len(spare) and 2 * (pc.sum(same).as_py() or 0) >= len(lost):
            return cause
    return ""


def _first(ids: pa.Array) -> list[str]:
    return ids.take(pc.array_sort_indices(ids)[:_SHOWN]).to_pylist()
