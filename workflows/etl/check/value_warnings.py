"""Checks of values that can be read, but look wrong: one warning with a count, or a refusal.

Each distinct text is looked at once. Cells are only counted where a text looks wrong.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from workflows.etl.check import variants
from workflows.etl.read.sources import Raw
from workflows.ground.errors import DataError, quantity
from workflows.raw import dictionaries, spelling
from workflows.recipe import Recipe

log = logging.getLogger(__name__)

#: Words for a missing value are warned of from this share of a category's cells on.
_FREQUENT = 0.01
#: A user may stand for nobody who has such a share of all rows, and so many times as many as the
#: next one, among so many users.
_CROWD, _ABOVE, _USERS = 0.1, 5, 10
#: A highest weight of so many times the median is warned of.
_HEAVY = 100

#: Source → column of that source.
Columns = Mapping[str, pa.DictionaryArray]
#: Source → which of the column's distinct texts look wrong.
Marks = Mapping[str, pa.BooleanArray]


def check_texts(recipe: Recipe, raw: Raw) -> None:
    """Warn of ids and categories that look wrong.

    Args:
        recipe: what each column is.
        raw: the tables of all sources.

    Raises:
        DataError: ids are written in scientific notation.
    """
    for name, feature in recipe.features.items():
        if feature.meaning.has_codes:
            columns = dict(_columns(name, raw))
            nulls = {source: recipe.sources[source].nulls for source in columns}
            _warn_of_words(name, columns, nulls, is_id=feature.id)
            _check_exponents(name, columns, raw, is_id=feature.id)
            _warn_of_twins(name, columns)
            if not feature.meaning.is_list:
                _warn_of_blanks(name, columns, raw)
            if columns:
                variants.warn_of_twins(name, columns)
            if feature.id:
                variants.warn_of_lists(name, columns)
            if feature.separator is not None:
                lists = {source: raw.tables[source][name] for source in columns}
                variants.warn_of_parts(name, feature.separator, lists)
            if feature.id and feature.role == "user" and recipe.interactions in columns:
                _warn_of_crowd(name, columns[recipe.interactions])
    _warn_of_nothing(recipe, raw)


def _columns(name: str, raw: Raw) -> Iterator[tuple[str, pa.DictionaryArray]]:
    for source, table in raw.tables.items():
        if name in table.column_names and dictionaries.holds_text(table[name].type):
            yield source, dictionaries.flatten(table[name])


@dataclass(frozen=True)
class _Found:
    """Texts of a column that look wrong, the most frequent first.

    Attributes:
        table: each `text` once, and its `cells` in all sources.
        n_cells: cells of the column with any text.
    """

    table: pa.Table
    n_cells: int

    @classmethod
    def of(cls, columns: Columns, wrong: Marks) -> _Found:
        """Count the cells of the texts that are marked."""
        texts, cells = [pa.array([], pa.string())], [np.array([], np.int64)]
        for source, column in columns.items():
            if pc.any(wrong[source]).as_py():
                texts.append(column.dictionary.filter(wrong[source]))
                marks = wrong[source].to_numpy(zero_copy_only=False)
                cells.append(dictionaries.count_texts(column)[:-1][marks])
        table = pa.table({"text": pa.chunked_array(texts), "cells": np.concatenate(cells)})
        table = table.group_by("text").aggregate([("cells", "sum")])
        table = pa.table({"text": table["text"], "cells": table["cells_sum"]})
        order = [("cells", "descending"), ("text", "ascending")]
        n_cells = sum(len(column) - column.null_count for column in columns.values())
        return cls(table.filter(pc.greater(table["cells"], 0)).sort_by(order), n_cells)

    def at_least(self, cells: int) -> _Found:
        """Return the texts that have so many cells."""
        return _Found(self.table.filter(pc.greater_equal(self.table["cells"], cells)), self.n_cells)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def cells(self) -> int:
        """Cells that hold one of the texts."""
        return int(pc.sum(self.table["cells"]).as_py() or 0)

    def shown(self, most: int = 3) -> str:
        """Name the most frequent texts."""
        first = self.table.slice(0, most).to_pylist()
        return ", ".join(f"'{row['text']}' ({quantity(row['cells'], 'cell')})" for row in first)


def _sources(wrong: Marks) -> str:
    """Name the sources that have a text that looks wrong."""
    return " and ".join(sorted(source for source, marks in wrong.items() if pc.any(marks).as_py()))


def _warn_of_words(
    name: str, columns: Columns, nulls: Mapping[str, tuple[str, ...]], *, is_id: bool
) -> None:
    """Warn of words that usually stand for a missing value, such as 'None'."""
    wrong = {source: spelling.is_nullish(column.dictionary) for source, column in columns.items()}
    found = _Found.of(columns, wrong)
    found = found.at_least(1 if is_id else max(2, round(_FREQUENT * found.n_cells)))
    if not len(found):
        return
    sources = _sources(wrong)
    first = sources.partition(" ")[0]
    texts = dict.fromkeys((*nulls[first], *found.table["text"].to_pylist()))
    log.warning(
        "column %r of %s has %s, %s. If that stands for a missing value, list it in the source's "
        "`nulls`, such as sources.%s.nulls=[%s].",
        name,
        sources,
        found.shown(),
        "so that these rows share one id" if is_id else "which count as values of their own",
        first,
        ", ".join("'" + text.replace("'", "''") + "'" for text in texts),
    )


def _check_exponents(name: str, columns: Columns, raw: Raw, *, is_id: bool) -> None:
    """Refuse ids in scientific notation, and warn of categories that are written so."""
    wrong = {s: spelling.is_scientific(column.dictionary) for s, column in columns.items()}
    found = _Found.of(columns, wrong)
    if not len(found):
        return
    if is_id:
        source = next(s for s, marks in wrong.items() if pc.any(marks).as_py())
        cells = columns[source].indices
        row = pc.index(pc.is_in(cells, value_set=pc.indices_nonzero(wrong[source])), True).as_py()
        raise DataError(
            f"{raw.place(source, row)}, column {name!r}: {columns[source][row].as_py()!r} is an id "
            f"in scientific notation; {quantity(found.cells, 'cell')} of the column "
            f"{'has' if found.cells == 1 else 'have'} such ids. A spreadsheet or a float has cut "
            "off digits, so that several ids may have become one. Export the column again, as text "
            "or as integers."
        )
    log.warning(
        "column %r of %s has numbers in scientific notation, such as %s, which are read as text as "
        "they stand. If digits were cut off, export the column again as text.",
        name,
        _sources(wrong),
        found.shown(1),
    )


def _warn_of_twins(name: str, columns: Columns) -> None:
    """Warn of values that stand there in both spellings, such as '1' and '1.0'."""
    texts = {source: column.dictionary for source, column in columns.items()}
    twins = {source: spelling.other(values) for source, values in texts.items()}
    if all(values.null_count == len(values) for values in twins.values()):
        return
    every = pa.chunked_array(list(texts.values())).combine_chunks()
    wrong = {s: pc.and_(pc.is_valid(t), pc.is_in(t, value_set=every)) for s, t in twins.items()}
    found = _Found.of(columns, wrong)
    if not len(found):
        return
    text = found.table["text"][0].as_py()
    log.warning(
        "column %r of %s has %s in two spellings, such as %r and %r, which stay values of their "
        "own (%s the first). Write them alike if they are the same.",
        name,
        " and ".join(columns),
        quantity(len(found), "value"),
        text,
        spelling.other(pa.array([text]))[0].as_py(),
        f"{quantity(found.cells, 'cell')} {'has' if found.cells == 1 else 'have'}",
    )


def _warn_of_blanks(name: str, columns: Columns, raw: Raw) -> None:
    """Warn of values with blanks around them, which are kept as they stand."""
    for source, column in columns.items():
        texts = column.dictionary
        trimmed = pc.utf8_trim_whitespace(texts)
        padded = pc.not_equal(trimmed, texts)
        n = pc.sum(padded).as_py()
        if n:
            twins = pc.sum(pc.is_in(trimmed.filter(padded), value_set=texts)).as_py()
            log.warning(
                "%s, column %r: %s of %s different values have blanks around them, such as %r, and "
                "%s of them stand there without blanks, too. Blanks are a part of a value: remove "
                "them from the file if they are not meant.",
                raw.where(source),
                name,
                f"{n:,}",
                f"{len(texts):,}",
                texts.filter(padded)[0].as_py(),
                f"{twins:,}",
            )


def _warn_of_nothing(recipe: Recipe, raw: Raw) -> None:
    """Warn of columns without any value."""
    for source, table in raw.tables.items():
        empty = [c for c in table.column_names if table[c].null_count == len(table) > 0]
        told = [name for name in empty if name in recipe.features and not _is_key(recipe, name)]
        if told:
            log.warning(
                "source %r has no value at all in %s, so nothing can be learnt of it. Correct the "
                "file or the name, or leave the feature out.",
                source,
                " and ".join(map(repr, told)),
            )


def _is_key(recipe: Recipe, name: str) -> bool:
    """Say whether rows without a value of a column are dropped, which is told then."""
    return name in (recipe.user_id, recipe.item_id, recipe.time)


def _warn_of_crowd(name: str, column: pa.DictionaryArray) -> None:
    """Warn of one user who has so many rows that the id may stand for nobody."""
    counts = dictionaries.count_texts(column)[:-1]
    if np.count_nonzero(counts) < _USERS:
        return
    second, most = np.partition(counts, -2)[-2:]
    if most < _CROWD * counts.sum() or most < _ABOVE * second:
        return
    text = column.dictionary[int(counts.argmax())].as_py()
    if text in spelling.NULLISH:
        return  # told already
    log.warning(
        "column %r: %r has %s of %s rows, and nobody else has more than %s. If that stands for "
        "people who are not known, list it in the source's `nulls`, so that their rows are left "
        "out.",
        *(name, text, f"{most:,}", f"{counts.sum():,}", f"{second:,}"),
    )


def check_weights(recipe: Recipe, train: pa.Table) -> None:
    """Refuse weights from which nothing can be learnt, and warn where few rows outweigh the rest.

    Raises:
        DataError: all weights are 0.
    """
    if recipe.weight is None:
        return
    weights = train[recipe.weight].to_numpy()
    weights = weights[weights > 0]
    if not len(weights):
        raise DataError(
            f"All {len(train):,} weights of train, column {recipe.weight!r}, are 0, so that "
            f"nothing can be learnt. Correct the column, or remove features.{recipe.weight}."
        )
    highest, median = float(weights.max()), float(np.median(weights))
    if highest > _HEAVY * median:
        log.warning(
            "column %r, the weight of rows: its highest value is %g, and the median of those above "
            "0 is %g, so that few rows decide what is learnt. Take a milder weight: `derive: "
            "[{kind: log1p, of: %s, to: mild_weight}]` with features.mild_weight in place of "
            "features.%s, a step of kind clip, or no weight.",
            recipe.weight,
            highest,
            median,
            recipe.weight,
            recipe.weight,
        )
