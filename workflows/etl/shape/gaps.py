"""Refuse missing numbers for which the recipe has no `null` policy."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import pyarrow.compute as pc

from workflows.etl.read.sources import Raw
from workflows.ground.errors import DataError
from workflows.recipe import Keep, Recipe


def refuse(recipe: Recipe, raw: Raw, source: str) -> None:
    """Raise an error if a number is missing and the recipe has no `null` policy for its column.

    Rows without an id or a time, which etl drops, are not checked.

    Args:
        recipe: recipe with the `null` policies of number columns.
        raw: the raw tables of all sources of the recipe.
        source: name of the source to check.

    Raises:
        DataError: a number is missing in a column without a `null` policy.
    """
    table = raw.tables[source]
    keys = [k for k in (recipe.user_id, recipe.item_id, recipe.time) if k in table.column_names]
    kept = functools.reduce(pc.and_, (pc.is_valid(table[key]) for key in keys))
    for column in numbers_without_policy(recipe, table.column_names):
        gap = pc.and_(pc.is_null(table[column]), kept)
        n = pc.sum(gap).as_py()
        if n:
            more = f", as in {n - 1} more row{'s' * (n > 2)}" if n > 1 else ""
            raise DataError(
                f"{raw.place(source, pc.index(gap, True).as_py())}, column {column!r}: the number "
                f"is missing{more}, and the recipe has no policy for it. "
                f"Set features.{column}.fill to median, mean or a number (and indicator: true to "
                "keep the fact)."
            )


def numbers_without_policy(recipe: Recipe, columns: Sequence[str]) -> list[str]:
    """Return the number columns without a `null` policy and without a filter on missing values."""
    named = {c: recipe.features[c] for c in columns if c in recipe.features}
    filtered = [r.column for r in recipe.filter if isinstance(r, Keep) and r.stage == "before"]
    return [c for c, f in named.items() if f.meaning.refuses_gaps(f) and c not in filtered]
