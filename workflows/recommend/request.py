"""The request of `recommend`: the users, their raw features, and the rules for their lists."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from workflows.feature_files import columns as raw_columns
from workflows.feature_files import rows as raw_rows
from workflows.ground.errors import DataError, quantity
from workflows.raw import spelling
from workflows.recipe.raw_inputs import raw_inputs
from workflows.recommend.shards import Format
from workflows.stages.item_rules import split_rule
from workflows.stages.recommender import ListOptions, Recommender

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RecommendRequest:
    """The users of a request, their raw features, and the form of the answer.

    Attributes:
        users: raw ids of users whose lists are returned; an unknown user gets the fallback. Without
            ids, all users of the user table, or of `file`, get lists.
        file: file with the user id and, optionally, raw values of the query tower's inputs; the
            file has the form of a raw file that training read, or is csv, tsv, JSON lines or
            parquet.
        context: rules `column=value` for the context features; without a rule, a feature has the
            value of the user's last interaction.
        deny_file: file of item ids that no list may contain; unknown ids are ignored.
        allow_file: file of the only item ids that lists may contain; unknown ids are ignored.
        show_history: whether the users' histories are returned, too.
        format: the format of the files that are written.
    """

    users: tuple[str, ...] | None = None
    file: Path | None = None
    context: tuple[str, ...] = ()
    deny_file: Path | None = None
    allow_file: Path | None = None
    show_history: bool = False
    format: Format = "parquet"


def read_users(
    request: RecommendRequest, recommender: Recommender
) -> tuple[pa.StringArray, pa.Table | None]:
    """Return the raw ids of a request's users, and the raw values of the request.

    Raises:
        DataError: a file or a rule has a column that does not exist.
    """
    recipe = recommender.recipe
    columns = [c for c in recipe.columns("user", "context") if c != recipe.user_id]
    inputs = list(raw_inputs(recipe, [*columns, *recipe.history_columns]))
    given = pa.table({})
    if request.users is not None and request.file:
        raise DataError("--user and --users both say for whom: choose one.")
    if request.users is not None:
        users = pa.array(request.users, pa.string())
    elif request.file:
        known = recommender.known_values
        given = raw_rows.read(request.file, recipe, recipe.user_id, inputs, known)
        users = given[recipe.user_id].combine_chunks()
        given = _inputs_alone(given.drop([recipe.user_id]), request.file, recommender)
    else:
        users = recommender.export.user_ids
    if request.context:
        context = _context(request.context, recommender, inputs)
        repeated = context.take(pa.array(np.zeros(len(users), np.int64)))
        others = {n: given[n] for n in given.column_names if n not in context.column_names}
        given = pa.table({**others, **{n: repeated[n] for n in repeated.column_names}})
    if request.file and given.num_columns:
        _warn_of_missing(request.file, users, given.column_names, recommender)
    return users, given if given.num_columns else None


def _inputs_alone(given: pa.Table, file: Path, recommender: Recommender) -> pa.Table:
    """Drop the columns of a file of users that the query tower does not take; warn of them."""
    if not given.num_columns:
        return given  # the tower, which needs TensorFlow, is not loaded for ids alone
    inputs = recommender.export.query_tower.inputs
    others = [name for name in given.column_names if name not in inputs]
    if others:
        log.warning(
            "%s: %s passed over, which the query tower does not take: %s",
            *(file, quantity(len(others), "column"), ", ".join(map(repr, others))),
        )
    return given.drop(others)


def _warn_of_missing(
    file: Path, users: pa.StringArray, given: Sequence[str], recommender: Recommender
) -> None:
    """Warn of query tower inputs that a file lacks, for users who are not in the user table."""
    recipe = recommender.recipe
    tower = recommender.export.query_tower
    unknown = int((recommender.user_rows(users) < 0).sum())
    if unknown:
        inputs = [name for name in tower.missing_inputs(given) if name != recipe.user_id]
        among = f"{unknown:,} of {len(users):,} users, who are in no table"
        raw_columns.warn_of_missing(inputs, str(file), among=among)


def _context(rules: Sequence[str], recommender: Recommender, inputs: Sequence[str]) -> pa.Table:
    """Return the `column=value` rules of the request's context as a table with one row."""
    values = {}
    for rule in rules:
        parsed = split_rule(rule, inputs)
        if parsed is None:
            raise DataError(
                f"--context {rule!r}: expected column=value, with one of the columns "
                f"{', '.join(inputs)}."
            )
        if parsed[0] in values:
            raise DataError(f"--context names {parsed[0]!r} twice. Keep one of the values.")
        values[parsed[0]] = pa.array([parsed[1]])
    known = recommender.known_values
    return raw_rows.with_types(pa.table(values), recommender.recipe, "--context", known)


def with_files(
    options: ListOptions, request: RecommendRequest, recommender: Recommender
) -> ListOptions:
    """Add the denied and allowed item ids in a request's files to the options of lists.

    Raises:
        DataError: a file cannot be read, or allows no item.
    """
    recommender.catalogue.rules.refuse_unmatched(options.only)
    _warn_of_unknown(options.deny, recommender)
    if request.deny_file:
        denied = _known_ids(request.deny_file, recommender)
        options = replace(options, deny=(*options.deny, *denied))
    if request.allow_file:
        allow = _known_ids(request.allow_file, recommender)
        if not allow:
            raise DataError(
                f"{request.allow_file}: none of its ids is in {recommender.recipe.item_id!r}, so "
                "that nothing could be shown."
            )
        options = replace(options, allow=allow)
    return options


def _warn_of_unknown(deny: Sequence[str], recommender: Recommender) -> None:
    """Warn of item ids in `--deny` that are not in the catalogue."""
    rows = recommender.catalogue.find(pa.array(deny, pa.string()))
    unknown = np.flatnonzero(rows < 0)
    if len(unknown):
        log.warning(
            "--deny: %s of %s ids are of no item in the catalogue and hide nothing, such as %r",
            *(len(unknown), len(deny), deny[unknown[0]]),
        )


def _known_ids(path: Path, recommender: Recommender) -> tuple[str, ...]:
    """Return the item ids of a file that are in the catalogue, in the catalogue's spelling."""
    key = recommender.recipe.item_id
    ids = pa.array(raw_rows.read_ids(path, recommender.recipe, key), pa.string())
    ids = spelling.respell(ids, recommender.catalogue.ids)
    known = recommender.catalogue.find(ids) >= 0
    log.info("%s: %s ids, of which %s are in the catalogue", path, len(ids), known.sum())
    return tuple(ids.filter(pa.array(known)).to_pylist())
