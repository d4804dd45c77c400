"""Exports a two-tower model: SavedModels of both towers, feature tables and embeddings."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from models.core.column_names import HISTORY_AGES
from models.core.columns import Columns, as_array, fixed_lists, to_arrow, write_vectors
from models.core.retriever import Interactions, Queries, Ragged
from models.towers.schema_file import read_schema, write_schema
from models.towers.tower import Tower, embed
from models.training.two_tower import TwoTower
from workflows.derive import fitted
from workflows.ground.column_names import EMBEDDING, ITEM_CODE, USER_CODE, input_of
from workflows.ground.stage_content import require
from workflows.recipe.raw_inputs import columns_of_roles, given_inputs
from workflows.stages.etl import KNOWN, Prepared
from workflows.stages.export import ALSO_SEEN_ROWS, ITEM_ROWS, ExportFiles, Side
from workflows.stages.store import Store
from workflows.stages.train import load_model
from workflows.towers import checks, raw_towers, towers

log = logging.getLogger(__name__)

AsOf = Literal["test", "latest"]


def export(prepared: Prepared, store: Store, folder: Path, *, as_of: AsOf) -> dict[str, int]:
    """Write the SavedModels of both towers, their input tables and their embeddings to a folder.

    Args:
        prepared: the content of the run's etl stage.
        store: the stages of the run.
        folder: the folder of the export.
        as_of: the cut before which interactions count for histories and a popularity prior: `test`,
            as in the evaluation, or `latest`, which counts all interactions, for production.

    Returns:
        The numbers of users and items, and the number of dimensions of the embeddings.
    """
    _refuse_older_tables(prepared)
    model = load_model(store, prepared.recipe, prepared, as_of=as_of)
    two_tower = TwoTower.of(model, prepared.users, prepared.items)
    known, files = prepared.interactions(*KNOWN[as_of]), ExportFiles(folder)
    of_users = known.of_known_users()
    histories = of_users.histories()
    queries = Queries(np.arange(len(histories)), histories, times=of_users.history_times())
    sides = (
        _users(two_tower, prepared, queries),
        _items(two_tower, model.candidate_encoder, prepared),
    )
    widths = [_write(side, prepared, files) for side in sides]
    write_histories(histories, prepared.also_seen(*KNOWN[as_of]), files)
    np.save(files.item_counts, known.item_counts())
    np.save(files.unknown_user, _unknown_user(two_tower))
    ages_of = prepared.recipe.history_with_ages
    write_schema(read_schema(prepared.folder / "train", ages_of=ages_of), files.schema)
    fitted.write(prepared.states, folder)
    return {**{f"{side.name}s": len(side.raw) for side in sides}, "dim": widths[0]}


def _refuse_older_tables(prepared: Prepared) -> None:
    """Refuse tables of an earlier version, which lack the raw columns that features derive from."""
    for name, roles in (("users", ("user", "context")), ("items", ("item",))):
        table = prepared.raw_users if name == "users" else prepared.raw_items
        for column in columns_of_roles(prepared.recipe, *roles):
            path = prepared.files.raw(name)
            require(column in table.column_names, path, "etl", f"there is no column {column!r}")


@dataclass(frozen=True)
class _Side:
    """The exported data of one side of a two-tower model: of all users or of all items.

    Attributes:
        name: the side, `user` or `item`.
        key: the name of the user or item id column.
        tower: the encoder that embeds the users or items.
        codes: the codes of the ids, int [n_rows].
        inputs: the encoded inputs of the tower, n_rows rows.
        vectors: the embeddings of these users or items, float32 [n_rows, dim].
        raw: the readable (not encoded) columns, n_rows rows.
    """

    name: Side
    key: str
    tower: Tower
    codes: npt.NDArray[np.integer]
    inputs: Columns
    vectors: npt.NDArray[np.float32]
    raw: pa.Table


def _users(two_tower: TwoTower, prepared: Prepared, queries: Queries) -> _Side:
    # the last row of the user table is for unknown users: without an id, it is not exported
    n_users = len(queries)
    inputs = two_tower.inputs(queries)
    raw = prepared.raw_users.slice(0, n_users)
    if history := prepared.recipe.history:
        latest = queries.histories.last(history.max_len)
        for name, listed in given_inputs(prepared.recipe, history.inputs).items():
            column = prepared.raw_items[listed.column].combine_chunks()
            values = column.take(pa.array(latest.values))
            lists = pa.ListArray.from_arrays(latest.offsets.astype(np.int32), values)
            raw = raw.append_column(name, lists)
    if HISTORY_AGES in inputs:
        raw = raw.append_column(HISTORY_AGES, to_arrow(inputs[HISTORY_AGES]))
    key = prepared.recipe.user_id
    codes = as_array(prepared.users[key])[:n_users]
    tower = two_tower.tower
    return _Side("user", key, tower, codes, inputs, embed(tower, inputs), raw)


def write_histories(histories: Ragged, also: Interactions | None, files: ExportFiles) -> None:
    """Write each user's history, and items seen in rows that a filter dropped, as row numbers."""
    columns = {ITEM_ROWS: histories}
    if also is not None:
        columns[ALSO_SEEN_ROWS] = also.of_known_users().histories()
    lists = {
        name: to_arrow(Ragged(rows.values.astype(np.int32), rows.offsets))
        for name, rows in columns.items()
    }
    pq.write_table(pa.table(lists), files.histories)


def _unknown_user(two_tower: TwoTower) -> npt.NDArray[np.float32]:
    """Return the embedding of an unknown user without a history, float32 [dim]."""
    unknown = Queries(np.array([-1]), Ragged.empty(1))
    return two_tower.embed(unknown)[0]


def _items(two_tower: TwoTower, tower: Tower, prepared: Prepared) -> _Side:
    key = prepared.recipe.item_id
    inputs = {name: prepared.items[name] for name in tower.schema.column_names}
    codes = as_array(prepared.items[key])
    vectors, raw = two_tower.vectors, prepared.raw_items
    return _Side("item", key, tower, codes, inputs, vectors, raw)


def _write(side: _Side, prepared: Prepared, files: ExportFiles) -> int:
    """Write one tower, its table of features and its embeddings; return their dimensions."""
    checks.refuse_broken(
        side.vectors,
        f"{side.name} embeddings",
        whose=f"{side.name} tower",
        learns=bool(side.tower.trainable_weights),  # popularity embeds all users alike
    )
    towers.save(side.tower, files.tower(side.name))
    raw_towers.save(
        side.tower,
        files.raw_tower(side.name),
        recipe=prepared.recipe,
        vocabularies=prepared.vocabularies,
        numbers=prepared.numbers,
        states=prepared.states,
    )
    code = USER_CODE if side.name == "user" else ITEM_CODE
    ids = {side.key: side.raw[side.key], code: pa.array(side.codes)}
    readable = {name: side.raw[name] for name in side.raw.column_names if name != side.key}
    inputs = {input_of(name): to_arrow(column) for name, column in side.inputs.items()}
    features = pa.table({**ids, **readable, **inputs})
    pq.write_table(features, files.features(side.name))
    embeddings = pa.table({**ids, EMBEDDING: fixed_lists(side.vectors)})
    write_vectors(embeddings, files.embeddings(side.name))
    log.info("%s: %s rows", side.name, f"{len(side.vectors):,}")
    return side.vectors.shape[1]
