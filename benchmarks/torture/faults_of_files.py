"""Planted faults: manifests of other runs, and damaged tables and texts, signed again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tampering import mutate, resign

Change = Callable[[dict[str, Any]], object]


def _text(name: str, text: str) -> Callable[[Path, Path], None]:
    """Return a function that writes a file of a stage, and signs the stage.

    If the file is the manifest, it is not changed again by signing.
    """

    def plant(run: Path, victim: Path) -> None:
        (run / name).write_text(text)
        if not name.endswith("manifest.json"):
            resign(run / name.split("/")[0])

    return plant


def _manifest(stage: str, change: Change) -> Callable[[Path, Path], None]:
    def plant(run: Path, victim: Path) -> None:
        path = run / stage / "manifest.json"
        manifest = json.loads(path.read_bytes())
        change(manifest)
        path.write_text(json.dumps(manifest))

    return plant


def _table(name: str, change: Callable[[pa.Table], pa.Table]) -> Callable[[Path, Path], None]:
    def plant(run: Path, victim: Path) -> None:
        path = run / name
        pq.write_table(change(pq.ParquetFile(path).read(use_threads=False)), path)
        resign(run / name.split("/")[0])

    return plant


def _bytes(name: str, way: str, n: int) -> Callable[[Path, Path], None]:
    def plant(run: Path, victim: Path) -> None:
        path = run / name
        path.write_bytes(mutate(path.read_bytes(), n, way))
        resign(run / name.split("/")[0])

    return plant


def _replaced(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, column)


def _not_numbers(table: pa.Table) -> pa.Table:
    width = table["embedding"].type.list_size
    values = pa.array(np.full(len(table) * width, np.nan, np.float32))
    return _replaced(table, "embedding", pa.FixedSizeListArray.from_arrays(values, width))


def _wider(table: pa.Table) -> pa.Table:
    values = pa.array(np.ones(len(table) * 3, np.float32))
    return _replaced(table, "embedding", pa.FixedSizeListArray.from_arrays(values, 3))


def _texts(table: pa.Table) -> pa.Table:
    return _replaced(table, "embedding", pa.array(["x"] * len(table)))


def _no_embedding(table: pa.Table) -> pa.Table:
    return table.drop(["embedding"])


def _first_column_gone(table: pa.Table) -> pa.Table:
    return table.drop(table.column_names[:1])


def _far_codes(table: pa.Table) -> pa.Table:
    return _replaced(table, "code", pa.array(range(2**40, 2**40 + len(table)), pa.int64()))


def _negative_codes(table: pa.Table) -> pa.Table:
    return _replaced(table, "code", pa.array(range(-len(table), 0), pa.int64()))


def _far_rows(table: pa.Table) -> pa.Table:
    return _replaced(table, "item_row", pa.array([2**40] * len(table), pa.int64()))


def _far_items(table: pa.Table) -> pa.Table:
    lists = pa.array([[2**30]] * len(table), pa.list_(pa.int32()))
    return _replaced(table, "item_rows", lists)


def _empty(table: pa.Table) -> pa.Table:
    return table.slice(0, 0)


def _half(table: pa.Table) -> pa.Table:
    return table.slice(0, len(table) // 2)


def _twice(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table, table])


_FACT = {"bytes": 24, "sha256": ""}
_ITEMS, _USERS = "export/item_embeddings.parquet", "export/user_embeddings.parquet"
_HISTORIES = "export/histories.parquet"
_WORDS = "export/vocabulary/item_id.parquet"
_READ = ("recommend", "similar-items", "load", "index")
_TRAINED = ("export", "evaluate")
_LISTS = ("recommend", "similar-items")

#: Description, function that plants the fault, verbs, right exit codes.
FILES = (
    ("a manifest {}", _text("export/manifest.json", "{}"), ("recommend", "load"), (2,)),
    ("a manifest null", _text("etl/manifest.json", "null"), ("recommend", "export"), (2,)),
    ("a manifest of depth", _text("export/manifest.json", "[" * 100_000), ("recommend",), (2,)),
    ("a manifest with a BOM", _text("export/manifest.json", "\ufeff{}"), ("recommend",), (2,)),
    (
        "a manifest that names files outside",
        _manifest("export", lambda m: m["files"].update({"../../victim/precious": _FACT})),
        ("recommend", "load", "index"),
        (2,),
    ),
    (
        "a manifest of another stage",
        _manifest("export", lambda m: m.update(stage="etl")),
        ("recommend",),
        (0, 2),
    ),
    (
        "a manifest with a recipe of its own",
        _manifest("export", lambda m: m.update(recipe={"name": "x", "deep": [[[]]]})),
        ("recommend", "load"),
        (0, 2),
    ),
    (
        "a manifest whose input is no stage",
        _manifest("export", lambda m: m["inputs"].update({"../../victim": "0" * 64})),
        ("recommend",),
        (2,),
    ),
    (
        "a manifest with sizes below zero",
        _manifest("export", lambda m: [f.update(bytes=-1) for f in m["files"].values()]),
        ("recommend",),
        (2,),
    ),
    ("embeddings that are no numbers", _table(_ITEMS, _not_numbers), _READ, (2,)),
    ("embeddings of another width", _table(_ITEMS, _wider), _LISTS, (0, 2)),
    ("embeddings of text", _table(_ITEMS, _texts), _READ, (2,)),
    ("items without embeddings", _table(_ITEMS, _no_embedding), _READ, (2,)),
    ("embeddings without ids", _table(_ITEMS, _first_column_gone), _READ, (0, 2)),
    ("no items", _table(_ITEMS, _empty), _READ, (0, 2)),
    ("items twice", _table(_ITEMS, _twice), _READ, (0, 2)),
    ("half of the items", _table(_ITEMS, _half), _READ, (0, 2)),
    ("users without embeddings", _table(_USERS, _no_embedding), ("recommend", "index"), (2,)),
    ("users of another width", _table(_USERS, _wider), ("recommend", "index"), (2,)),
    ("users that are no numbers", _table(_USERS, _not_numbers), ("recommend", "index"), (2,)),
    ("half of the users", _table(_USERS, _half), ("recommend",), (0, 2)),
    ("codes far away", _table(_WORDS, _far_codes), _LISTS, (0, 2)),
    ("codes below zero", _table(_WORDS, _negative_codes), _LISTS, (0, 2)),
    ("a vocabulary without a column", _table(_WORDS, _first_column_gone), _LISTS, (0, 2)),
    ("an empty vocabulary", _table(_WORDS, _empty), _LISTS, (0, 2)),
    ("a parquet file that is cut", _bytes(_ITEMS, "cut", 3), _READ, (2,)),
    ("a parquet file with noise", _bytes(_ITEMS, "random", 17), _READ, (0, 2)),
    ("a parquet file with huge numbers", _bytes(_ITEMS, "huge", 12), _READ, (0, 2)),
    ("a parquet file that is text", _text(_ITEMS, "hello"), _READ, (2,)),
    ("features of text", _text("export/item_features.parquet", "x"), ("recommend", "load"), (2,)),
    ("users of text", _text("export/user_features.parquet", "x"), ("recommend --users",), (2,)),
    ("histories of text", _text("export/histories.parquet", "x"), ("recommend",), (2,)),
    ("histories beyond the items", _table(_HISTORIES, _far_items), ("recommend",), (2,)),
    ("half of the histories", _table(_HISTORIES, _half), ("recommend",), (2,)),
    ("counts of text", _text("export/item_counts.npy", "x"), ("recommend",), (2,)),
    ("an index without its facts", _text("index/search.json", "{}"), ("recommend",), (2,)),
    ("an index of null", _text("index/search.json", "null"), ("recommend",), (2,)),
    ("statistics of null", _text("etl/statistics.json", "null"), _TRAINED, (0, 2)),
    ("interactions of text", _text("etl/train/part-0.parquet", "x"), _TRAINED, (2,)),
    ("users' rows of text", _text("etl/users/raw.parquet", "x"), _TRAINED, (2,)),
    ("rows beyond the tables", _table("etl/train/part-0.parquet", _far_rows), _TRAINED, (2,)),
    ("a schema of noise", _bytes("etl/train/schema.pbtxt", "random", 5), _TRAINED, (0, 2)),
)  # fmt: skip
