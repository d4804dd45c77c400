"""Raw interaction logs in; encoded, schema-tagged splits, tables and vocabularies out."""

from __future__ import annotations

import hashlib
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import nvtabular as nvt
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from merlin.io import Dataset
from merlin.schema import Schema

from workflows.device import Device
from workflows.errors import DataError
from workflows.etl import graph, sources, split, tables
from workflows.etl.graph import Fitted
from workflows.etl.sources import Raw
from workflows.etl.tables import Table
from workflows.recipe import GivenFiles, Join, Recipe
from workflows.store import Store
from workflows.vocabulary import FIRST_OOV, NULL

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


def etl(recipe: Recipe, store: Store, device: Device, *, data: Path) -> EtlResult:
    """Read raw files and write the etl stage.

    Args:
        recipe: what the data is.
        store: the run to write into.
        device: chosen for this process.
        data: folder of the raw files.

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
        fitted = _fit(recipe, parts["train"], items, users, device)
        fitted.write(draft.folder)
        encoded = _write(recipe, fitted, parts, users, items, device, draft.folder)
        report = _report(recipe, raw, counts, encoded, fitted, users, items)
        text = msgspec.json.format(msgspec.json.encode(report), indent=2)
        (draft.folder / "report.json").write_bytes(text)
        draft.rows = {**report.rows, "users": report.users["rows"], "items": report.items["rows"]}
    return EtlResult(store.folder("etl"), report, time.perf_counter() - start)


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
            sources.require(table, column, raw.where(source))
            table = _drop(table, pc.is_valid(table[column]), f"no {column}", counts)
    for join in recipe.join:
        table = _joined(recipe, raw, table, join, counts)
    columns = list(recipe.features)
    for column in columns:
        sources.require(table, column, raw.where(source))
    _refuse_gaps(recipe, table, raw.where(source))
    for join in recipe.join:
        _refuse_gaps(recipe, raw.tables[join.table], raw.where(join.table))
    frame = table.to_pandas()
    if recipe.positive:
        sources.require(table, recipe.positive.column, raw.where(source))
        names = dict.fromkeys([*columns, recipe.positive.column])
        workflow = graph.positives(recipe, list(names))
        kept = workflow.fit_transform(_dataset(frame, device)).to_ddf().compute()
        _count(counts.dropped, "not positive", len(frame) - len(kept))
        frame = kept if isinstance(kept, pd.DataFrame) else kept.to_pandas()
    if recipe.time:
        frame = frame.sort_values(recipe.time, kind="stable")
    return frame[columns].reset_index(drop=True)


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
            table = table.append_column(column, side[column].take(found))
    return table


def _refuse_gaps(recipe: Recipe, table: pa.Table, where: str) -> None:
    for column in graph.numeric(recipe, [c for c in table.column_names if c in recipe.features]):
        values = table[column]
        gap = pc.or_kleene(pc.is_null(values), pc.is_nan(values)).combine_chunks()
        n = pc.sum(pc.fill_null(gap, True)).as_py() or 0
        if n and recipe.features[column].null == "error":
            first = pc.index(pc.fill_null(gap, True), True).as_py() + 1
            raise DataError(
                f"{where}, column {column!r}: {n} of {len(values)} numbers are missing (the first "
                f"in row {first}), and the recipe has no policy for them. Set features.{column}."
                "null to median, mean or a number (and indicator: true to keep the fact)."
            )


def _dataset(frame: pd.DataFrame, device: Device) -> Dataset:
    return nvt.Dataset(frame, cpu=device.kind == "cpu")


def _fit(recipe: Recipe, train: pd.DataFrame, items: Table, users: Table, device: Device) -> Fitted:
    """Learn from the training rows only."""
    columns = [c for c in train.columns if recipe.features[c].role != "time"]
    used = [c for c in columns if recipe.features[c].kind != "label"]
    return graph.fit(recipe, _dataset(train[used], device), used)


def _write(
    recipe: Recipe,
    fitted: Fitted,
    parts: dict[str, pd.DataFrame],
    users: Table,
    items: Table,
    device: Device,
    folder: Path,
) -> dict[str, pa.Table]:
    """Encode and write the splits and the tables; return the encoded splits."""
    rows = {
        recipe.user_id: users.ids(recipe.user_id),
        recipe.item_id: items.ids(recipe.item_id),
    }
    encoded = {}
    for part, frame in parts.items():
        table, schema = _encode(recipe, fitted, frame, device, rows=rows)
        table = _tell_strangers_apart(table, frame[recipe.user_id])
        encoded[part] = table
        _write_table(table, schema, folder / part)
    for name, table, key in (
        ("users", users, recipe.user_id),
        ("items", items, recipe.item_id),
    ):
        columns = [c for c in table.frame.column_names if c in recipe.features]
        codes, schema = _encode(recipe, fitted, table.frame.select(columns).to_pandas(), device)
        if name == "users":
            codes = _unseen_last(codes, key)
        _write_table(codes, schema, folder / name)
        pq.write_table(table.frame, folder / name / "raw.parquet")
        log.info("%s: %s rows, key %s", name, f"{len(codes):,}", key)
    return encoded


def _encode(
    recipe: Recipe,
    fitted: Fitted,
    frame: pd.DataFrame,
    device: Device,
    rows: dict[str, pa.StringArray] | None = None,
) -> tuple[pa.Table, Schema]:
    columns = [c for c in frame.columns if recipe.features[c].kind != "label"]
    dataset = _dataset(frame[columns], device)
    workflow = graph.encoding(recipe, fitted, columns, schema=dataset.schema, rows=rows)
    out: Any = workflow.transform(dataset).to_ddf().compute()
    table = (
        out.to_arrow()
        if hasattr(out, "to_arrow")
        else pa.Table.from_pandas(out, preserve_index=False)
    )
    return table.replace_schema_metadata(None), workflow.output_schema


def _tell_strangers_apart(table: pa.Table, ids: pd.Series) -> pa.Table:
    """Number the users that are in no table -1, -2, …, so that each stays one person."""
    rows = table[graph.USER_ROW].to_numpy().copy()
    strange = rows < 0
    rows[strange] = -1 - pd.factorize(ids[strange])[0]
    place = table.column_names.index(graph.USER_ROW)
    return table.set_column(place, graph.USER_ROW, pa.array(rows))


def _unseen_last(codes: pa.Table, key: str) -> pa.Table:
    """Give the unknown user, the last row, the code of an id that was never seen."""
    ids = codes[key].to_numpy().copy()
    ids[-1] = FIRST_OOV
    return codes.set_column(codes.column_names.index(key), key, pa.array(ids))


def _write_table(table: pa.Table, schema: Schema, folder: Path) -> None:
    folder.mkdir()
    pq.write_table(table, folder / "part-0.parquet")
    graph.write_schema(schema, folder)


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
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
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
