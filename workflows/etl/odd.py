"""What is odd about the raw data, but may be meant: told once, with its column and a count."""

from __future__ import annotations

import logging

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from workflows.errors import DataError
from workflows.etl import codes
from workflows.etl.sources import Raw
from workflows.recipe import Recipe

log = logging.getLogger(__name__)

#: A highest weight of so many times the median is warned of.
HEAVY = 100


def warn_of_blanks(recipe: Recipe, raw: Raw) -> None:
    """Warn of ids and categories with blanks around them, which are kept as they stand."""
    wanted = [n for n, f in recipe.features.items() if f.encoded and f.kind == "category"]
    for source, table in raw.tables.items():
        for name in wanted:
            if name in table.column_names and codes.is_text(table[name].type):
                _warn_of_blanks(table[name], name, raw.where(source))


def _warn_of_blanks(column: pa.ChunkedArray, name: str, where: str) -> None:
    texts = codes.one(column).dictionary
    trimmed = pc.utf8_trim_whitespace(texts)
    blank = pc.not_equal(trimmed, texts)
    n = pc.sum(blank).as_py()
    if not n:
        return
    twins = pc.sum(pc.is_in(trimmed.filter(blank), value_set=texts)).as_py()
    log.warning(
        "%s, column %r: %s of %s different values have blanks around them, such as %r, and %s of "
        "them stand there without blanks, too. Blanks are a part of a value: remove them from the "
        "file if they are not meant.",
        where,
        name,
        f"{n:,}",
        f"{len(texts):,}",
        texts.filter(blank)[0].as_py(),
        f"{twins:,}",
    )


def check_weights(recipe: Recipe, train: pa.Table) -> None:
    """Refuse weights of which nothing can be learnt, and warn of those that few rows decide.

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
    if highest > HEAVY * median:
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
