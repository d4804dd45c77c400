"""Write what others need: towers, feature tables, embeddings, vocabularies; check from outside."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import merlin.models.tf as mm
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from models.columns import Columns, take_rows
from models.retriever import Ragged
from models.two_tower import embed
from workflows.artifacts import Prepared, load_model
from workflows.device import Device
from workflows.errors import ArtifactError
from workflows.export import selfcheck, towers
from workflows.recipe import Recipe
from workflows.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportResult:
    """Where the export lies, and how much there is.

    Attributes:
        folder: of the stage.
        users: rows of the user tables.
        items: rows of the item tables.
        dim: width of the embeddings.
        metrics: of the epoch that was exported.
        seconds: in all.
    """

    folder: Path
    users: int
    items: int
    dim: int
    metrics: dict[str, float]
    seconds: float


def export(recipe: Recipe, store: Store, device: Device) -> ExportResult:
    """Write runs/<name>/export/ from the trained model, and sign it after a check from outside.

    Args:
        recipe: names of columns.
        store: the run.
        device: chosen for this process.

    Raises:
        ArtifactError: a fresh process could not reproduce the embeddings.
    """
    start = time.perf_counter()
    prepared = Prepared.open(store, recipe)
    with store.write("export", recipe, device) as draft:
        model = load_model(store, recipe, prepared)
        folder = draft.folder
        # the last row of the user table is nobody: without an id, it has no place in an export
        known = np.arange(len(prepared.raw_users) - 1)
        n_users, dim = _side(
            folder,
            "user",
            model.query_encoder,
            {name: take_rows(column, known) for name, column in prepared.users.items()},
            prepared.raw_users.slice(0, len(known)),
            recipe.user_id,
        )
        n_items, _ = _side(
            folder,
            "item",
            model.candidate_encoder,
            prepared.items,
            prepared.raw_items,
            recipe.item_id,
        )
        shutil.copytree(prepared.folder / "vocabulary", folder / "vocabulary")
        shutil.copy(prepared.folder / "train" / "schema.pbtxt", folder / "schema.pbtxt")
        _check_from_outside(folder)
        draft.rows = {"users": n_users, "items": n_items, "dim": dim}
        draft.metrics = store.read("train", recipe, deep=False).metrics
        metrics = draft.metrics
    return ExportResult(
        store.folder("export"), n_users, n_items, dim, metrics, time.perf_counter() - start
    )


def _side(
    folder: Path, side: str, tower: mm.Encoder, columns: Columns, raw: pa.Table, key: str
) -> tuple[int, int]:
    """Write a tower, its features and its embeddings; return rows and width."""
    vectors = embed(tower, columns)
    _refuse_broken(vectors, side)
    towers.save(tower, folder / f"{side if side == 'item' else 'query'}_tower")
    ids = {key: raw[key], f"{side}_code": pa.array(columns[key])}
    features = {name: raw[name] for name in raw.column_names if name != key}
    inputs = {
        f"{name}{selfcheck.SUFFIX}": _to_arrow(columns[name]) for name in tower.schema.column_names
    }
    pq.write_table(pa.table({**ids, **features, **inputs}), folder / f"{side}_features.parquet")
    flat = pa.array(vectors.ravel(), pa.float32())
    fixed = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    pq.write_table(pa.table({**ids, "embedding": fixed}), folder / f"{side}_embeddings.parquet")
    log.info("%s: %s rows", side, f"{len(vectors):,}")
    return len(vectors), vectors.shape[1]


def _to_arrow(column: npt.NDArray[np.generic] | Ragged) -> pa.Array:
    if isinstance(column, Ragged):
        return pa.ListArray.from_arrays(column.offsets.astype(np.int32), pa.array(column.values))
    return pa.array(column)


def _refuse_broken(vectors: npt.NDArray[np.float32], side: str) -> None:
    if not np.isfinite(vectors).all():
        raise ArtifactError(f"{side} embeddings hold NaN or infinity; train again.")
    if len(vectors) > 1 and np.ptp(vectors, axis=0).max() == 0:
        raise ArtifactError(
            f"all {len(vectors)} {side} embeddings are the same: the {side} tower learnt nothing. "
            "Give it inputs that differ, or train longer."
        )


def _check_from_outside(folder: Path) -> None:
    """Load the towers in a fresh, isolated process and compare 200 rows of each side."""
    done = subprocess.run(
        [sys.executable, "-I", str(Path(selfcheck.__file__)), str(folder)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ArtifactError(
            f"The exported towers, loaded in a fresh process, do not give the model's embeddings: "
            f"{reason}. Nothing was exported."
        )
