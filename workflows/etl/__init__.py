"""Raw interaction logs in; encoded, schema-tagged splits, tables and vocabularies out."""

from __future__ import annotations

import functools
import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from workflows.device import Device
from workflows.errors import DataError
from workflows.etl import encode, graph, sources, split, tables
from workflows.etl.graph import Fitted
from workflows.etl.sources import Raw
from workflows.etl.tables import Table
from workflows.recipe import GivenFiles, Join, Recipe
from workflows.store import Store
from workflows.vocabulary import NULL, Vocabulary

#: Column that numbers rows while they are filtered.
_ROW = "row of the frame"

log = logging.getLogger(__name__)


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What etl read, dropped and wrote.

    Attributes:
        read: source → rows.
        files: raw file → SHA-256.
        dropped: cause → interactions dropped.
        unmatched: joined table → interactions whose id is not in it.
        rows: train, valid, test.
        users, items: rows of the tables, and how many of them were seen in training.
        conflicts: feature → ids with more than one value in training.
        unseen: split → column → share of cells whose value has no code of its own.
        null: split → column → share of cells without a value.
    """

    read: dict[str, int]
    files: dict[str, str]
    dropped: dict[str, int]
    unmatched: dict[str, int]
    rows: dict[str, int]
    users: dict[str, int]
    items: dict[str, int]
    conflicts: dict[str, int]
    unseen: dict[str, dict[str, float]]
    null: dict[str, dict[str, float]]


@dataclass(frozen=True)
class EtlResult:
    """Where the stage lies, and what it counted."""

    folder: Path
    report: Report
    seconds: float


@dataclass
class _Counts:
    """What was dropped on the way, by cause."""

    dropped: dict[str, int]
    unmatched: dict[str, int]


def etl(
    recipe: Recipe,
    store: Store,
    device: Device,
    *,
    data: Path,
    grow_from: Store | None = None,
) -> EtlResult:
    """Read raw files and write the etl stage.

    Args:
        recipe: what the data is.
        store: the run to write into.
        device: chosen for this process.
        data: folder of the raw files.
        grow_from: keep the codes of this run's etl stage, and append values that are new.

    Raises:
        DataError: the raw data is not what the recipe says.
    """
    start = time.perf_counter()
    with store.write("etl", recipe, device) as draft:
        raw = sources.read(recipe, data)
        log.info("read %s", ", ".join(f"{n} {t.num_rows:,}" for n, t in raw.tables.items()))
        counts = _Counts({}, {})
        parts = _split(recipe, raw, device, counts)
        users = tables.build(recipe, raw, parts["train"], "user")
        items = tables.build(recipe, raw, parts["train"], "item")
        fitted = _fit(recipe, parts["train"], device)
        if grow_from:
            fitted = fitted.grown_from(Fitted.read(_checked(grow_from)))
        fitted.write(draft.folder)
        encoded = encode.write(recipe, fitted, parts, users, items, device, draft.folder)
        report = _report(recipe, raw, counts, encoded, fitted, users, items)
        text = msgspec.json.format(msgspec.json.encode(report), indent=2)
        (draft.folder / "report.json").write_bytes(text)
        draft.rows = {**report.rows, "users": report.users["rows"], "items": report.items["rows"]}
    return EtlResult(store.folder("etl"), report, time.perf_counter() - start)


def _checked(earlier: Store) -> Path:
    """Return the folder of another run's etl stage, whole and of one recipe."""
    earlier.read("etl", earlier.recipe("etl"))
    return earlier.folder("etl")


def _split(recipe: Recipe, raw: Raw, device: Device, counts: _Counts) -> dict[str, pd.DataFrame]:
    """Join, keep the positives, order by time, and split: part → raw rows."""
    given = recipe.split if isinstance(recipe.split, GivenFiles) else None
    if given:
        names = {"train": recipe.interactions, "valid": given.valid, "test": given.test}
        parts = {p: _positives(recipe, raw, s, device, counts) for p, s in names.items() if s}
        split.refuse_empty({part: len(frame) for part, frame in parts.items()})
        return {part: parts.get(part, parts["train"].iloc[:0]) for part in split.PARTS}
    frame = _positives(recipe, raw, recipe.interactions, device, counts)
    if frame.empty:
        split.refuse_empty({"train": 0})
    labels = split.assign(
        recipe.split,
        users=pd.factorize(frame[recipe.user_id])[0],
        times=frame[recipe.time].to_numpy(np.int64) if recipe.time else None,
    )
    return {
        part: frame[labels == number].reset_index(drop=True)
        for number, part in enumerate(split.PARTS)
    }


def _positives(
    recipe: Recipe, raw: Raw, source: str, device: Device, counts: _Counts
) -> pd.DataFrame:
    """Return the positive rows of a source with all columns, in order of time."""
    table = raw.tables[source]
    for column in (recipe.user_id, recipe.item_id, recipe.time):
        if column:
            raw.require(source, column)
            table = _drop(table, pc.is_valid(table[column]), f"no {column}", counts)
    _refuse_gaps(recipe, raw, source)
    for join in recipe.join:
        raw.require(join.table, join.on)
        _refuse_gaps(recipe, raw, join.table)
        table = _joined(recipe, raw, table, join, counts)
    columns = list(recipe.features)
    for column in [*columns, *([recipe.positive.column] if recipe.positive else [])]:
        raw.require(source, column, *(j.table for j in recipe.join))
    _refuse_negative(recipe, table)
    frame = table.to_pandas()
    if recipe.positive and len(frame):
        kept = _positive_rows(recipe, frame[recipe.positive.column], device)
        _count(counts.dropped, "not positive", len(frame) - len(kept))
        frame = frame.iloc[kept]
    if recipe.time:
        frame = frame.sort_values(recipe.time, kind="stable")
    return frame[columns].reset_index(drop=True)


def _positive_rows(recipe: Recipe, values: pd.Series, device: Device) -> npt.NDArray[np.int64]:
    """Filter the rule's column and the numbers of its rows; other columns need not travel along."""
    numbered = pd.DataFrame({_ROW: np.arange(len(values)), values.name: values})
    workflow = graph.positives(recipe, list(numbered))
    kept: Any = workflow.fit_transform(encode.dataset(numbered, device)).to_ddf().compute()
    return kept[_ROW].to_numpy()


def _drop(table: pa.Table, keep: pa.ChunkedArray, cause: str, counts: _Counts) -> pa.Table:
    kept = table.filter(keep)
    _count(counts.dropped, cause, len(table) - len(kept))
    return kept


def _count(into: dict[str, int], cause: str, n: int) -> None:
    into[cause] = into.get(cause, 0) + n


def _joined(recipe: Recipe, raw: Raw, table: pa.Table, join: Join, counts: _Counts) -> pa.Table:
    side = tables.side_table(recipe, raw, join)
    found = pc.index_in(table[join.on], value_set=side[join.on].combine_chunks())
    _count(counts.unmatched, join.table, found.null_count)
    if join.on_missing == "drop":
        table = _drop(table, found.is_valid(), f"{join.on} not in {join.table}", counts)
        found = found.drop_null()
    for column in side.column_names:
        if column not in table.column_names:
            if found.null_count and column in _without_policy(recipe, [column]):
                raise DataError(
                    f"{found.null_count} interactions have a {join.on!r} that is not in "
                    f"{raw.where(join.table)}, so their number {column!r} is missing, and the "
                    f"recipe has no policy for it. Set features.{column}.null to median, mean or "
                    f"a number, or `on_missing: drop` in the join of {join.table!r}."
                )
            table = table.append_column(column, side[column].take(found))
    return table


def _refuse_gaps(recipe: Recipe, raw: Raw, source: str) -> None:
    """Refuse a missing number without a policy, in a row that is not dropped for want of an id."""
    table = raw.tables[source]
    keys = [k for k in (recipe.user_id, recipe.item_id, recipe.time) if k in table.column_names]
    kept = functools.reduce(pc.and_, (pc.is_valid(table[key]) for key in keys))
    for column in _without_policy(recipe, table.column_names):
        gap = pc.and_(pc.is_null(table[column]), kept)
        n = pc.sum(gap).as_py()
        if n:
            raise DataError(
                f"{raw.place(source, pc.index(gap, True).as_py())}, column {column!r}: the number "
                f"is missing, here and in {n - 1} more rows, and the recipe has no policy for it. "
                f"Set features.{column}.null to median, mean or a number (and indicator: true to "
                "keep the fact)."
            )


def _refuse_negative(recipe: Recipe, table: pa.Table) -> None:
    if recipe.weight is None:
        return
    least = pc.min(table[recipe.weight]).as_py()
    if least is not None and least < 0:
        count = pc.sum(pc.less(table[recipe.weight], 0)).as_py()
        raise DataError(
            f"{count} interactions have a negative weight, the least {least}, in "
            f"{recipe.weight!r}. A weight says how much a row counts in the loss: 0 or more. "
            "Correct the column, or leave such rows out with `positive:`."
        )


def _without_policy(recipe: Recipe, columns: Sequence[str]) -> list[str]:
    named = [c for c in columns if c in recipe.features]
    numbers = [*graph.numeric(recipe, named), *(c for c in named if c == recipe.weight)]
    return [c for c in numbers if recipe.features[c].null == "error"]


def _fit(recipe: Recipe, train: pd.DataFrame, device: Device) -> Fitted:
    """Learn from the training rows only."""
    columns = [c for c in train.columns if recipe.features[c].role != "time"]
    used = [c for c in columns if recipe.features[c].kind != "label"]
    # Merlin cannot tell the type of lists that are all empty
    bare = [
        c for c in used if recipe.features[c].kind == "categories" and not train[c].str.len().sum()
    ]
    used = [c for c in used if c not in bare]
    dataset = encode.dataset(train[used], device, graph.raw_schema(recipe, used))
    fitted = graph.fit(recipe, dataset, used)
    for column in bare:
        fitted.vocabularies[column] = Vocabulary.build(
            pa.array([], pa.string()),
            np.array([], np.int64),
            oov_buckets=recipe.vocabulary_rule(column).oov_buckets,
        )
    return fitted


def _report(
    recipe: Recipe,
    raw: Raw,
    counts: _Counts,
    encoded: dict[str, pa.Table],
    fitted: Fitted,
    users: Table,
    items: Table,
) -> Report:
    unseen: dict[str, dict[str, float]] = {}
    null: dict[str, dict[str, float]] = {}
    for part, table in encoded.items():
        for column, vocabulary in fitted.vocabularies.items():
            values = table[column].combine_chunks()
            codes = pc.list_flatten(values) if pa.types.is_list(values.type) else values
            codes = codes.to_numpy(zero_copy_only=False)
            n = max(1, len(codes))
            oov = (codes > NULL) & (codes < vocabulary.first_code)
            unseen.setdefault(part, {})[column] = float(oov.sum() / n)
            null.setdefault(part, {})[column] = float((codes == NULL).sum() / n)
    return Report(
        read={name: table.num_rows for name, table in raw.tables.items()},
        files={
            raw.name(path): hashlib.sha256(path.read_bytes()).hexdigest()
            for paths in raw.files.values()
            for path in paths
        },
        dropped=counts.dropped,
        unmatched=counts.unmatched,
        rows={part: table.num_rows for part, table in encoded.items()},
        users=_table_facts(users, unknown_rows=1),
        items=_table_facts(items, unknown_rows=0),
        conflicts={**users.conflicts, **items.conflicts},
        unseen=unseen,
        null=null,
    )


def _table_facts(table: Table, *, unknown_rows: int) -> dict[str, int]:
    in_train = int(pc.sum(table.frame[tables.IN_TRAIN]).as_py() or 0)
    return {"rows": len(table.frame) - unknown_rows, "in_train": in_train}
