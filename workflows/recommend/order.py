"""For whom lists are asked, what is told of them, and which items may be on them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from workflows.feature_files import columns as raw_columns
from workflows.feature_files import rows as raw_rows
from workflows.ground.errors import DataError
from workflows.raw import spelling
from workflows.recommend.shards import Format
from workflows.stages.export import Export, Wish
from workflows.stages.index import split_rule

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Order:
    """For whom lists are made, and what is told of them.

    Attributes:
        users: raw ids, whose lists are returned; somebody of no table gets the fallback. None for
            everybody of the user table, or of `file`.
        file: csv or parquet with the user id and, if you like, raw values of the query tower's
            inputs.
        context: `column=value`, told of everybody: an occasion other than the last one.
        deny_file: ids of items that nobody is shown.
        allow_file: ids of the only items that are shown; in both, those of no table do not matter.
        show_history: tell what users did, too.
        format: the format of the files.
    """

    users: tuple[str, ...] | None = None
    file: Path | None = None
    context: tuple[str, ...] = ()
    deny_file: Path | None = None
    allow_file: Path | None = None
    show_history: bool = False
    format: Format = "parquet"


def asked(order: Order, export: Export) -> tuple[np.ndarray[Any, Any], pa.Table | None]:
    """Return raw ids, text [n_users], and what is told of them.

    Raises:
        DataError: a file or a rule that fits nothing.
    """
    recipe = export.recipe
    history = recipe.history.inputs if recipe.history else {}
    columns = [c for c in recipe.columns("user", "context") if c != recipe.user_id]
    tellable = [*columns, *history]
    told = pa.table({})
    if order.users is not None and order.file:
        raise DataError("--user and --users both say for whom: choose one.")
    if order.users is not None:
        users = np.array(order.users, object)
    elif order.file:
        told = raw_rows.read(order.file, recipe, recipe.user_id, tellable, export.known)
        users = told[recipe.user_id].to_numpy()
        told = told.drop([recipe.user_id])
    else:
        users = export.user_ids.to_numpy(zero_copy_only=False)
    if order.context:
        occasion = _context(order.context, export, tellable)
        everywhere = occasion.take(pa.array(np.zeros(len(users), np.int64)))
        others = {n: told[n] for n in told.column_names if n not in occasion.column_names}
        told = pa.table({**others, **{n: everywhere[n] for n in everywhere.column_names}})
    if order.file and told.num_columns:
        _warn_of_missing(order.file, users, told.column_names, export)
    return users, told if told.num_columns else None


def _warn_of_missing(
    file: Path, users: np.ndarray[Any, Any], given: Sequence[str], export: Export
) -> None:
    """Warn of inputs that a file does not give for unknown users, or gives only in part."""
    recipe = export.recipe
    inputs = [name for name in export.query_tower.inputs if name != recipe.user_id]
    strangers = int((export.rows_of_users(users) < 0).sum())
    if strangers:
        among = f"{strangers:,} of {len(users):,} users, who are in no table"
        raw_columns.warn_of_missing(given, inputs, recipe, str(file), among=among)
        return
    for step in recipe.derive:
        if step.of in given and step.to in inputs and step.to not in given:
            log.warning(
                "%s gives %r, but not %r%s: that stays as it is in the table of users",
                *(file, step.of, step.to, raw_columns.derived(step.to, recipe)),
            )


def _context(rules: Sequence[str], export: Export, tellable: Sequence[str]) -> pa.Table:
    """Return `column=value` rules as a table of one row."""
    values = {}
    for rule in rules:
        parsed = split_rule(rule, tellable)
        if parsed is None:
            raise DataError(
                f"--context {rule!r}: expected column=value, with one of the columns "
                f"{', '.join(tellable)}."
            )
        values[parsed[0]] = pa.array([parsed[1]])
    return raw_rows.with_types(pa.table(values), export.recipe, "--context", export.known)


def with_files(wish: Wish, order: Order, export: Export) -> Wish:
    """Add the ids of an order's files to a wish.

    Raises:
        DataError: a file that cannot be read, or that allows nothing.
    """
    export.catalogue.refuse_vain(wish.only)
    _warn_of_unknown(wish.deny, export)
    if order.deny_file:
        wish = replace(wish, deny=(*wish.deny, *_known(order.deny_file, export)))
    if order.allow_file:
        allow = _known(order.allow_file, export)
        if not allow:
            raise DataError(
                f"{order.allow_file}: none of its ids is in {export.recipe.item_id!r}, so that "
                "nothing could be shown."
            )
        wish = replace(wish, allow=allow)
    return wish


def _warn_of_unknown(deny: Sequence[str], export: Export) -> None:
    """Warn of ids of --deny that no item of the catalogue has."""
    rows = export.catalogue.find(pa.array(deny, pa.string()))
    unknown = np.flatnonzero(rows < 0)
    if len(unknown):
        log.warning(
            "--deny: %s of %s ids are of no item in the catalogue and hide nothing, such as %r",
            *(len(unknown), len(deny), deny[unknown[0]]),
        )


def _known(path: Path, export: Export) -> tuple[str, ...]:
    key = export.recipe.item_id
    raw = raw_columns.raw_names(export.recipe, [key]).get(key, [])
    ids = pa.array(raw_rows.read_ids(path, key, raw=raw), pa.string())
    ids = spelling.like(ids, export.item_ids)
    known = export.catalogue.find(ids) >= 0
    log.info("%s: %s ids, of which %s are in the catalogue", path, len(ids), known.sum())
    return tuple(ids.filter(pa.array(known)).to_pylist())
