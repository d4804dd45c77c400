"""Raw user ids → lists of raw item ids: everybody's become a stage, a few users' are returned."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from workflows.device import Device
from workflows.exported import Export, Wish
from workflows.recipe import Recipe
from workflows.store import Store

FILE = "recommendations.parquet"


@dataclass(frozen=True)
class RecommendResult:
    """What was recommended.

    Attributes:
        folder: of the stage; None where only some users were asked for.
        users: how many lists.
        answered_by: `two-tower`, or the fallback → how many lists.
        lists: the rows of the asked users' lists; empty where all were written.
        seconds: in all.
    """

    folder: Path | None
    users: int
    answered_by: dict[str, int]
    lists: list[dict[str, Any]]
    seconds: float


def recommend(
    recipe: Recipe,
    store: Store,
    device: Device,
    *,
    wish: Wish | None = None,
    users: Sequence[str] | None = None,
) -> RecommendResult:
    """Rank items for users by the exported embeddings.

    Args:
        recipe: names of columns, and the fallback.
        store: the run.
        device: chosen for this process.
        wish: what lists may hold.
        users: raw ids; somebody of no table gets the fallback. None for everybody of the user
            table: then runs/<name>/recommend/ is written.

    Raises:
        DataError: a rule or an id that fits no item.
    """
    start = time.perf_counter()
    export = Export.open(store, recipe)
    wish = wish or Wish()
    if users is not None:
        table = export.lists(np.array(users, dtype=object), wish)
        sources = _sources(table)
        return RecommendResult(
            None, len(users), sources, table.to_pylist(), time.perf_counter() - start
        )
    with store.write("recommend", recipe, device) as draft:
        counted: Counter[str] = Counter()
        for table in _written(export.shards(wish), draft.folder / FILE):
            counted.update(_sources(table))
            draft.rows["recommendations"] = draft.rows.get("recommendations", 0) + len(table)
        draft.rows["users"] = len(export.user_ids)
        draft.options = {
            "as_of": export.as_of,
            "k": str(wish.k),
            "keep_seen": str(wish.keep_seen),
            "only": ", ".join(wish.only),
            "deny": ", ".join(wish.deny),
        }
    return RecommendResult(
        store.folder("recommend"),
        len(export.user_ids),
        dict(counted),
        [],
        time.perf_counter() - start,
    )


def _written(tables: Iterator[pa.Table], path: Path) -> Iterator[pa.Table]:
    """Write tables into one file, each as it passes by."""
    writer: pq.ParquetWriter | None = None
    try:
        for table in tables:
            writer = writer or pq.ParquetWriter(path, table.schema)
            writer.write_table(table)
            yield table
    finally:
        if writer:
            writer.close()


def _sources(lists: pa.Table) -> dict[str, int]:
    """Return who answered how many users."""
    counts = pc.value_counts(lists.filter(pc.equal(lists["rank"], 1))["answered_by"])
    return {str(entry["values"]): int(entry["counts"].as_py()) for entry in counts}
