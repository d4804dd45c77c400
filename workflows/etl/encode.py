"""Raw splits and tables → codes and numbers, with the schema beside them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import nvtabular as nvt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from merlin.io import Dataset
from merlin.schema import ColumnSchema, Schema, Tags

from workflows.device import Device
from workflows.etl import graph, history, split
from workflows.etl.graph import Fitted
from workflows.etl.tables import Table
from workflows.recipe import Recipe
from workflows.vocabulary import FIRST_OOV

log = logging.getLogger(__name__)

#: Rows whose history lists are made at a time.
_BLOCK = 1_000_000


def dataset(frame: pd.DataFrame, device: Device, schema: Schema | None = None) -> Dataset:
    """Hand a frame to NVTabular, on the device of this process."""
    return nvt.Dataset(frame, cpu=device.kind == "cpu", schema=schema)


def write(
    recipe: Recipe,
    fitted: Fitted,
    parts: dict[str, pd.DataFrame],
    users: Table,
    items: Table,
    device: Device,
    folder: Path,
) -> dict[str, pa.Table]:
    """Encode and write the splits and the tables.

    Args:
        recipe: what the columns are.
        fitted: vocabularies and statistics.
        parts: train, valid, test → raw rows in order of time.
        users: the user table.
        items: the item table.
        device: chosen for this process.
        folder: of the stage.

    Returns:
        The encoded splits.
    """
    rows = {
        recipe.user_id: users.ids(recipe.user_id),
        recipe.item_id: items.ids(recipe.item_id),
    }
    strangers = _strangers(parts, recipe.user_id, rows[recipe.user_id])
    encoded: dict[str, pa.Table] = {}
    for part in split.PARTS:
        # NVTabular cannot transform a frame without rows: lend an empty part one
        frame = parts[part] if len(parts[part]) else parts["train"].head(1)
        table, schema = _encode(recipe, fitted, frame, device, rows=rows)
        table = table.slice(0, len(parts[part]))
        encoded[part] = _tell_strangers_apart(table, parts[part][recipe.user_id], strangers)
        whole = _with_history(recipe, encoded, part)
        _write_table(whole, schema + _history_schema(recipe, schema), folder / part)
    for name, of, key in (("users", users, recipe.user_id), ("items", items, recipe.item_id)):
        columns = [c for c in of.frame.column_names if c in recipe.features]
        codes, schema = _encode(recipe, fitted, of.frame.select(columns).to_pandas(), device)
        if name == "users":
            codes = _unseen_last(codes, key)
        _write_table(codes, schema, folder / name)
        pq.write_table(of.frame, folder / name / "raw.parquet")
        log.info("%s: %s rows", name, f"{len(codes):,}")
    return encoded


def _encode(
    recipe: Recipe,
    fitted: Fitted,
    frame: pd.DataFrame,
    device: Device,
    rows: dict[str, pa.StringArray] | None = None,
) -> tuple[pa.Table, Schema]:
    columns = [c for c in frame.columns if recipe.features[c].kind != "label"]
    raw = dataset(frame[columns], device, graph.raw_schema(recipe, columns))
    workflow = graph.encoding(recipe, fitted, columns, schema=raw.schema, rows=rows)
    out: Any = workflow.transform(raw).to_ddf().compute()
    if hasattr(out, "to_arrow"):  # cudf; not exercised on a GPU in CI
        table = out.to_arrow()
    else:
        table = pa.Table.from_pandas(out, preserve_index=False)
    return table.replace_schema_metadata(None), workflow.output_schema


def _strangers(parts: dict[str, pd.DataFrame], key: str, known: pa.StringArray) -> pa.StringArray:
    """Return the users of valid and test that are in no table, in order of appearance."""
    ids = pa.array(pd.concat([parts["valid"][key], parts["test"][key]]), pa.string())
    return pc.unique(ids.filter(pc.invert(pc.is_in(ids, value_set=known))))


def _tell_strangers_apart(table: pa.Table, ids: pd.Series, strangers: pa.StringArray) -> pa.Table:
    """Number the users that are in no table -1, -2, …, so that each stays one person."""
    rows = table[graph.USER_ROW].to_numpy().copy()
    unknown = rows < 0
    found = pc.index_in(pa.array(ids[unknown], pa.string()), value_set=strangers)
    rows[unknown] = -1 - found.to_numpy()
    place = table.column_names.index(graph.USER_ROW)
    return table.set_column(place, graph.USER_ROW, pa.array(rows))


def _unseen_last(codes: pa.Table, key: str) -> pa.Table:
    """Give the unknown user, the last row, the code of an id that was never seen."""
    ids = codes[key].to_numpy().copy()
    ids[-1] = FIRST_OOV
    return codes.set_column(codes.column_names.index(key), key, pa.array(ids))


def _with_history(recipe: Recipe, encoded: dict[str, pa.Table], part: str) -> pa.Table:
    """Add the history columns to a part; only it and the parts before it are looked at."""
    table = encoded[part]
    if recipe.history is None:
        return table
    assert recipe.time is not None
    before = list(split.PARTS[: split.PARTS.index(part) + 1])
    names = [graph.USER_ROW, graph.ITEM_ROW, recipe.time, *recipe.history.columns]
    pool = pa.concat_tables([encoded[name].select(names) for name in before]).combine_chunks()
    order = np.argsort(pool[recipe.time].to_numpy(), kind="stable")
    pool = pool.take(pa.array(order))
    found = history.windows(
        pool[graph.USER_ROW].to_numpy(), pool[recipe.time].to_numpy(), recipe.history
    )
    place = np.argsort(order)[
        len(pool) - len(table) :
    ]  # where the part's own rows, the last, stand in time
    for name, column in recipe.history.inputs.items():
        codes = pool[column].combine_chunks()
        blocks = [
            found.gather(codes, place[start : start + _BLOCK])
            for start in range(0, max(1, len(place)), _BLOCK)
        ]
        table = table.append_column(name, pa.chunked_array(blocks))
    return table


def _history_schema(recipe: Recipe, schema: Schema) -> Schema:
    """Describe the history columns: lists that share the domain, and so the table, of a column."""
    if recipe.history is None:
        return Schema()
    return Schema(
        [
            ColumnSchema(
                name,
                tags=[Tags.CATEGORICAL, Tags.USER, Tags.SEQUENCE],
                properties=schema[column].properties,
                dtype=np.int32,
                dims=(None, (0, recipe.history.max_len)),
            )
            for name, column in recipe.history.inputs.items()
        ]
    )


def _write_table(table: pa.Table, schema: Schema, folder: Path) -> None:
    folder.mkdir()
    pq.write_table(table, folder / "part-0.parquet")
    graph.write_schema(schema, folder)
