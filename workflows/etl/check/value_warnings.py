"""Check raw ids, categories and weights that look wrong: log a warning, or refuse them.

The checks look at the distinct texts of a column. Cells are counted only in columns that have a
text that looks wrong.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from workflows.etl.check import variants
from workflows.etl.check.column_texts import Columns, ColumnTexts
from workflows.etl.read.sources import Raw
from workflows.ground.errors import DataError, quantity
from workflows.raw import spelling
from workflows.recipe import Recipe

log = logging.getLogger(__name__)

#: A warning is logged if at least this share of a category's cells has words for a missing value.
_FREQUENT = 0.01
#: An id seems to mean unknown users if it has the share `_CROWD` of all rows and `_ABOVE` times the
#: rows of the next user, and if there are at least `_USERS` users.
_CROWD, _ABOVE, _USERS = 0.1, 5, 10
#: A warning is logged if the highest training weight divided by the median weight is greater than
#: this.
_HEAVY = 100

#: Source → mask of the column's distinct texts that look wrong.
Masks = Mapping[str, pa.BooleanArray]


def check_texts(
    recipe: Recipe,
    raw: Raw,
    found: Mapping[str, Columns],
    empty: Mapping[str, Sequence[str]],
) -> None:
    """Warn of ids and categories that look wrong, such as 'None' or texts with blanks around them.

    Args:
        recipe: recipe that describes the raw columns and the features.
        raw: the sources of the recipe, which name rows in messages.
        found: column of codes → source → its texts.
        empty: source → the columns in which every cell is missing.

    Raises:
        DataError: ids are written in scientific notation, or as formulas of a spreadsheet.
    """
    for name, feature in recipe.features.items():
        if feature.meaning.has_codes:
            columns = found.get(name, {})
            nulls = {source: recipe.sources[source].nulls for source in columns}
            _warn_of_words(name, columns, nulls, is_id=feature.id)
            _check_exponents(name, columns, raw, is_id=feature.id)
            _check_formulas(name, columns, raw, is_id=feature.id)
            _warn_of_two_spellings(name, columns)
            if not feature.meaning.is_list:
                _warn_of_blanks(name, columns, raw)
            if columns:
                variants.warn_of_spellings(name, columns)
            if feature.id:
                variants.warn_of_lists(name, columns)
            if feature.separator is not None:
                variants.warn_of_parts(name, feature.separator, columns)
            if feature.id and feature.role == "user" and recipe.interactions in columns:
                _warn_of_dominant_user(name, columns[recipe.interactions])
    _warn_of_empty_columns(recipe, empty)


@dataclass(frozen=True)
class _Found:
    """The texts of a column that look wrong, each with its number of cells, most frequent first.

    Attributes:
        table: distinct values of `text`, and the number of their `cells` in all sources.
        n_cells: number of cells of the column that are not null.
    """

    table: pa.Table
    n_cells: int

    @classmethod
    def of(cls, columns: Columns, wrong: Masks) -> _Found:
        """Count, over all sources, the cells of a column whose texts look wrong."""
        texts, cells = [pa.array([], pa.string())], [np.array([], np.int64)]
        for source, column in columns.items():
            if pc.any(wrong[source]).as_py():
                texts.append(column.dictionary.filter(wrong[source]))
                mask = wrong[source].to_numpy(zero_copy_only=False)
                cells.append(column.count()[mask])
        table = pa.table({"text": pa.chunked_array(texts), "cells": np.concatenate(cells)})
        table = table.group_by("text").aggregate([("cells", "sum")])
        table = pa.table({"text": table["text"], "cells": table["cells_sum"]})
        order = [("cells", "descending"), ("text", "ascending")]
        n_cells = sum(column.n_cells for column in columns.values())
        return cls(table.filter(pc.greater(table["cells"], 0)).sort_by(order), n_cells)

    def at_least(self, cells: int) -> _Found:
        """Keep only the wrong-looking texts that occur in at least `cells` cells of the column."""
        return _Found(self.table.filter(pc.greater_equal(self.table["cells"], cells)), self.n_cells)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def cells(self) -> int:
        """Number of cells of the column with one of the texts that look wrong."""
        return int(pc.sum(self.table["cells"]).as_py() or 0)

    def describe(self, most: int = 3) -> str:
        """Return the most frequent texts that look wrong, with their counts, for a message."""
        first = self.table.slice(0, most).to_pylist()
        return ", ".join(f"'{row['text']}' ({quantity(row['cells'], 'cell')})" for row in first)


def _sources(wrong: Masks) -> str:
    """Return the names of the sources in which the column has a text that looks wrong."""
    return " and ".join(sorted(source for source, mask in wrong.items() if pc.any(mask).as_py()))


def _warn_of_words(
    name: str, columns: Columns, nulls: Mapping[str, tuple[str, ...]], *, is_id: bool
) -> None:
    """Warn of ids or categories that are words for a missing value, such as 'None'."""
    wrong = {source: spelling.is_nullish(column.dictionary) for source, column in columns.items()}
    found = _Found.of(columns, wrong)
    found = found.at_least(1 if is_id else max(2, round(_FREQUENT * found.n_cells)))
    if not len(found):
        return
    sources = _sources(wrong)
    first = sources.partition(" ")[0]
    texts = dict.fromkeys((*nulls[first], *found.table["text"].to_pylist()))
    log.warning(
        "column %r of %s has %s, %s. If that means a missing value, list it in the source's "
        "`nulls`, such as sources.%s.nulls=[%s].",
        name,
        sources,
        found.describe(),
        "so that these rows share one id" if is_id else "which count as ordinary values",
        first,
        ", ".join("'" + text.replace("'", "''") + "'" for text in texts),
    )


def _check_exponents(name: str, columns: Columns, raw: Raw, *, is_id: bool) -> None:
    """Refuse ids in scientific notation, and warn of categories in this notation."""
    wrong = {s: spelling.is_scientific(column.dictionary) for s, column in columns.items()}
    found = _Found.of(columns, wrong)
    if not len(found):
        return
    if is_id:
        raise _refusal(
            *(name, columns, raw, wrong, "in scientific notation"),
            "A spreadsheet or a float has cut off digits, so that several ids may have become one. "
            "Export the column again, as text or as integers.",
        )
    log.warning(
        "column %r of %s has numbers in scientific notation, such as %s, which are read as text, "
        "unchanged. If digits were cut off, export the column again as text.",
        name,
        _sources(wrong),
        found.describe(1),
    )


def _check_formulas(name: str, columns: Columns, raw: Raw, *, is_id: bool) -> None:
    """Refuse ids that are text formulas of a spreadsheet, and warn of such categories."""
    wrong = {s: spelling.is_formula(column.dictionary) for s, column in columns.items()}
    found = _Found.of(columns, wrong)
    if not len(found):
        return
    if is_id:
        raise _refusal(
            *(name, columns, raw, wrong, "as a formula of a spreadsheet"),
            "The equals sign and the quotes would be part of the id. Export the column again, as "
            "text without formulas.",
        )
    log.warning(
        "column %r of %s has text formulas of a spreadsheet, such as %s, which are read "
        "unchanged, with the equals sign and the quotes. Export the column again as text.",
        name,
        _sources(wrong),
        found.describe(1),
    )


def _refusal(
    name: str, columns: Columns, raw: Raw, wrong: Masks, written: str, why: str
) -> DataError:
    """Return the error about an id column that names its first cell with a wrong text."""
    source = next(s for s, marks in wrong.items() if pc.any(marks).as_py())
    n = _Found.of(columns, wrong).cells
    row, text = columns[source].first(wrong[source])
    return DataError(
        f"{raw.place(source, row)}, column {name!r}: {text!r} is an id "
        f"{written}; {quantity(n, 'cell')} of the column {'has' if n == 1 else 'have'} such ids. "
        f"{why}"
    )


def _warn_of_two_spellings(name: str, columns: Columns) -> None:
    """Warn of ids or categories that occur both as integer and as float, such as '1' and '1.0'."""
    texts = {source: column.dictionary for source, column in columns.items()}
    others = {source: spelling.canonical(values) for source, values in texts.items()}
    if all(values.null_count == len(values) for values in others.values()):
        return
    every = pa.chunked_array(list(texts.values())).combine_chunks()
    wrong = {s: pc.and_(pc.is_valid(t), pc.is_in(t, value_set=every)) for s, t in others.items()}
    found = _Found.of(columns, wrong)
    if not len(found):
        return
    text = found.table["text"][0].as_py()
    log.warning(
        "column %r of %s has %s in two spellings, such as %r and %r, which stay different values "
        "(%s the first). Use one spelling if they are the same.",
        name,
        " and ".join(columns),
        quantity(len(found), "value"),
        text,
        spelling.canonical(pa.array([text]))[0].as_py(),
        f"{quantity(found.cells, 'cell')} {'has' if found.cells == 1 else 'have'}",
    )


def _warn_of_blanks(name: str, columns: Columns, raw: Raw) -> None:
    """Warn of ids or categories with blanks around them, which etl keeps unchanged."""
    for source, column in columns.items():
        texts = column.dictionary
        trimmed = pc.utf8_trim_whitespace(texts)
        padded = pc.not_equal(trimmed, texts)
        n = pc.sum(padded).as_py()
        if n:
            both = pc.sum(pc.is_in(trimmed.filter(padded), value_set=texts)).as_py()
            log.warning(
                "%s, column %r: %s of %s different values have blanks around them, such as %r, and "
                "%s of them occur without blanks, too. Blanks are a part of a value: remove them "
                "from the file if they are not intended.",
                raw.where(source),
                name,
                f"{n:,}",
                f"{len(texts):,}",
                texts.filter(padded)[0].as_py(),
                f"{both:,}",
            )


def _warn_of_empty_columns(recipe: Recipe, empty: Mapping[str, Sequence[str]]) -> None:
    """Warn of feature columns in which every cell is missing."""
    for source, names in empty.items():
        wrong = [name for name in names if name in recipe.features and not _is_key(recipe, name)]
        if wrong:
            log.warning(
                "source %r has no value at all in %s, so nothing can be learnt from it. Correct "
                "the file or the name, or leave the feature out.",
                source,
                " and ".join(map(repr, wrong)),
            )


def _is_key(recipe: Recipe, name: str) -> bool:
    """Return whether a column is an id or a time: etl drops rows in which it is empty."""
    return name in (recipe.user_id, recipe.item_id, recipe.time)


def _warn_of_dominant_user(name: str, column: ColumnTexts) -> None:
    """Warn of a user id with so many interactions that it may be that of all anonymous users."""
    counts = column.count()
    if np.count_nonzero(counts) < _USERS:
        return
    second, most = np.partition(counts, -2)[-2:]
    if most < _CROWD * counts.sum() or most < _ABOVE * second:
        return
    text = column.dictionary[int(counts.argmax())].as_py()
    if text in spelling.NULLISH:
        return  # `_warn_of_words` has reported it
    log.warning(
        "column %r: %r has %s of %s rows, and no other user has more than %s. If that means "
        "unknown users, list it in the source's `nulls`, so that their rows are left out.",
        *(name, text, f"{most:,}", f"{counts.sum():,}", f"{second:,}"),
    )


@dataclass(frozen=True)
class Weights:
    """The highest and the median weight of training rows, of those above 0.

    Attributes:
        rows: number of training rows.
        highest: highest weight; 0 if all are 0.
        median: median of the weights above 0.
    """

    rows: int
    highest: float
    median: float


def check_weights(recipe: Recipe, weights: Weights) -> None:
    """Refuse training weights that are all 0, and warn if a few interactions have most weight.

    Raises:
        DataError: all weights are 0.
    """
    if not weights.highest:
        raise DataError(
            f"All {weights.rows:,} weights of train, column {recipe.weight!r}, are 0, so that "
            f"nothing can be learnt. Correct the column, or remove features.{recipe.weight}."
        )
    if weights.highest > _HEAVY * weights.median:
        log.warning(
            "column %r, the weight of rows: its highest value is %g, and the median of those above "
            "0 is %g, so that a few rows decide what is learnt. Use a milder weight: `derive: "
            "[{kind: log1p, of: %s, to: mild_weight}]` with features.mild_weight in place of "
            "features.%s, a step of kind clip, or no weight.",
            recipe.weight,
            weights.highest,
            weights.median,
            recipe.weight,
            recipe.weight,
        )
