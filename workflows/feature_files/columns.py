"""Choose the columns to read from a file of users or items; warn of columns that are ignored.

The file is for a trained model (recommend, index --add). Such a file is often a raw training file:
it has raw column names, and more columns than the towers take.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Sequence

from workflows.ground.errors import DataError, quantity
from workflows.recipe import Recipe
from workflows.recipe.text import nearest, nearest_name

log = logging.getLogger(__name__)

#: The greatest number of columns of a file that a message names.
_NAMED = 10


def choose_columns(
    raw: Sequence[str], recipe: Recipe, key: str, columns: Sequence[str], place: str
) -> dict[str, str]:
    """Return the columns to read (name in the recipe → name in the file); warn of other columns.

    Args:
        raw: the raw names of the file's columns.
        recipe: recipe whose sources may `rename` raw columns.
        key: the id column, which the file must have.
        columns: feature columns that the file may have.
        place: text that names the file, for messages.

    Raises:
        DataError: the id column is missing, or two columns have the same name, before or after
            `rename`.
    """
    again = [name for name, n in Counter(raw).items() if n > 1]
    if again:
        raise DataError(f"{place}: {again[0]!r} is the name of several columns. Keep one of them.")
    wanted = [key, *columns]
    names = _names(raw, recipe, wanted, place)
    others = [name for name in names if name not in wanted]
    if key not in names:
        alone = others[0] if len(others) == 1 else ""
        marks = [mark for mark in (";", "\t", "|", ",") if mark in alone]
        hint = nearest(key, others)
        if marks:
            hint = f"The delimiter seems to be {marks[0]!r}. "
        raise DataError(
            f"{place}: there is no column {key!r}. {hint}Expected {key!r} and, if "
            f"you like, {', '.join(columns)}."
        )
    if others:
        absent = [name for name in columns if name not in names]
        named = [f"{name!r}{nearest_name(name, absent)}" for name in others[:_NAMED]]
        log.warning(
            "%s: %s passed over, which no feature needs: %s%s",
            place,
            quantity(len(others), "column"),
            ", ".join(named),
            ", …" if len(others) > _NAMED else "",
        )
    return {name: old for name, old in zip(names, raw, strict=True) if name in wanted}


def raw_names(recipe: Recipe, wanted: Collection[str]) -> dict[str, list[str]]:
    """Map each column of the recipe to the raw names that sources `rename` to it."""
    found: dict[str, list[str]] = {}
    for source in recipe.sources.values():
        for raw, name in source.rename.items():
            if name in wanted and raw not in wanted and raw not in found.setdefault(name, []):
                found[name].append(raw)
    return found


def warn_of_missing(missing: Sequence[str], place: str, *, among: str) -> None:
    """Warn of inputs of the query or item tower that a file of users or items lacks.

    Args:
        missing: the names of the inputs; there may be none.
        place: text that names the file, for messages.
        among: a noun for the users or items whose inputs are missing, for the message.
    """
    if missing:
        named = ", ".join(map(repr, missing[:_NAMED]))
        more = ", …" if len(missing) > _NAMED else ""
        log.warning(
            "%s lacks %s of the tower, so that values are missing for %s: %s%s",
            *(place, quantity(len(missing), "input"), among, named, more),
        )


def _names(names: Sequence[str], recipe: Recipe, wanted: Sequence[str], place: str) -> list[str]:
    """Return the names that the recipe gives to a file's columns, after `rename`."""
    renamed: dict[str, str] = {}
    for name, raws in raw_names(recipe, wanted).items():
        there = [raw for raw in raws if raw in names]
        if name in names or not there:
            continue
        if len(there) > 1:
            raise DataError(
                f"{place}: the recipe renames both {there[0]!r} and {there[1]!r} to {name!r}. Keep "
                "one of these columns."
            )
        renamed[there[0]] = name
    return [renamed.get(name, name) for name in names]
