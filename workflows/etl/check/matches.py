"""How many ids of one table are in another, and the likely cause if they are few."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from workflows.etl.check import variants

#: Below this share of ids that are found, a join is reported.
FEW = 0.1
#: Ids of each side that are shown.
_SHOWN = 3

#: What tells two spellings of one id apart → an id without it.
_CAUSES: dict[str, Callable[[pa.Array], pa.Array]] = {
    "a '.0' at the end of numbers": lambda ids: pc.replace_substring_regex(
        ids, r"^(-?\d+)\.0+$", r"\1"
    ),
    "blanks around ids": pc.utf8_trim_whitespace,
    "characters that nobody sees, or composed accents": variants.visible,
    "zeros before numbers": lambda ids: pc.replace_substring_regex(ids, r"^0+(\d)", r"\1"),
    "capital letters": pc.utf8_lower,
    "quotes around ids": lambda ids: pc.utf8_trim(ids, characters="\"'="),
}


@dataclass(frozen=True)
class Match:
    """How many ids of one table another has.

    Attributes:
        ids: how many different ids the one has.
        found: how many of them the other has, too.
        examples: some that it has not, and some of the other's that the one has not.
        cause: what tells the spellings apart; "" where nothing explains at least half.
    """

    ids: int
    found: int
    examples: tuple[list[str], list[str]]
    cause: str

    @property
    def is_poor(self) -> bool:
        """Whether so few ids are found, or so many by another spelling, that the user must know."""
        return self.ids > 0 and (self.found < FEW * self.ids or bool(self.cause))

    def sentences(self, column: str, here: str, there: str) -> str:
        """Return what was found, as sentences.

        Args:
            column: the id's.
            here, there: name the two tables.
        """
        some = "None" if self.found == 0 else f"Only {self.found:,}"
        mine, theirs = (", ".join(map(repr, ids)) for ids in self.examples)
        said = f"{some} of {self.ids:,} ids of {column!r} in {here} are in {there}"
        said += f". The former has {mine}" + (f", the latter {theirs}." if theirs else ".")
        if self.cause:
            said += f" The likely cause is {self.cause}, in one of them and not in the other."
        return said


def match(ids: pa.Array, others: pa.Array) -> Match:
    """Look the different ids of one table up in another.

    Args:
        ids: text, each once, no null.
        others: text, each once, no null.
    """
    lost = ids.filter(pc.invert(pc.is_in(ids, value_set=others)))
    found = len(ids) - len(lost)
    if not len(lost):
        return Match(len(ids), found, ([], []), "")
    spare = others.filter(pc.invert(pc.is_in(others, value_set=ids)))
    examples = (_first(lost), _first(spare))
    return Match(len(ids), found, examples, _cause(lost, spare))


def _cause(lost: pa.Array, spare: pa.Array) -> str:
    """Return what the spellings of at least half of the lost ids differ in."""
    for cause, without in _CAUSES.items():
        same = pc.is_in(without(lost), value_set=without(spare))
        if len(spare) and 2 * (pc.sum(same).as_py() or 0) >= len(lost):
            return cause
    return ""


def _first(ids: pa.Array) -> list[str]:
    return ids.take(pc.array_sort_indices(ids)[:_SHOWN]).to_pylist()
