"""Exports a two-tower model: SavedModels of both towers, feature tables and embeddings."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.core.column_names import HISTORY_AGES
from models.core.columns import (
    Columns,
    GrowingFile,
    as_array,
    fixed_lists,
    table_columns,
    to_arrow,
    write_vectors,
)
from models.core.retriever import Floats, Interactions, Ints, Queries, Ragged
from models.core.row_groups import take_rows
from models.towers.schema_file import read_schema, write_schema
from models.towers.tower import Tower, embed
from models.training.two_tower import Model, TwoTower
from workflows.derive import fitted
from workflows.ground.column_names import EMBEDDING, ITEM_CODE, USER_CODE, input_of
from workflows.ground.stage_content import reading, require
from workflows.recipe.raw_inputs import columns_of_roles, given_inputs
from workflows.stages.etl import KNOWN, Prepared
from workflows.stages.export import ALSO_SEEN_ROWS, ITEM_ROWS, ExportFiles, Side
from workflows.stages.store import Store
from workflows.stages.train import load_model
from workflows.stages.user_blocks import UserBlock, UserBlocks
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
    two_tower, files = _without_users(model, prepared), ExportFiles(folder)
    known = UserBlocks.of(prepared, KNOWN[as_of])
    _write_tower("user", two_tower.tower, prepared, files)
    _write_tower("item", model.candidate_encoder, prepared, files)
    _write_items(two_tower.vectors, model.candidate_encoder, prepared, files)
    with _UserWriter(two_tower, prepared, files, prepared.also_seen(*KNOWN[as_of])) as writer:
        for block in known.read(folder):
            writer.write(block)
    np.save(files.item_counts, known.item_counts)
    np.save(files.unknown_user, _unknown_user(two_tower, prepared))
    ages_of = prepared.recipe.history_with_ages
    write_schema(read_schema(prepared.folder / "train", ages_of=ages_of), files.schema)
    fitted.write(prepared.states, folder)
    return {"users": prepared.n_users, "items": prepared.n_items, "dim": writer.width}


def _refuse_older_tables(prepared: Prepared) -> None:
    """Refuse tables of an earlier version, which lack the raw columns that features derive from."""
    for name, roles in (("users", ("user", "context")), ("items", ("item",))):
        path = prepared.files.raw(name)
        with reading(path, "etl"):
            there = pq.read_schema(path).names
        for column in columns_of_roles(prepared.recipe, *roles):
            require(column in there, path, "etl", f"there is no column {column!r}")


def _without_users(model: Model, prepared: Prepared) -> TwoTower:
    """Return a model as a retriever that has the items, but no users yet."""
    vectors = embed(model.candidate_encoder, prepared.items)
    return TwoTower(model.query_encoder, {}, prepared.items, vectors)


def _write_tower(side: Side, tower: Tower, prepared: Prepared, files: ExportFiles) -> None:
    """Write the SavedModels of a tower: the one that takes codes, and the one of raw values."""
    towers.save(tower, files.tower(side))
    raw_towers.save(
        tower,
        files.raw_tower(side),
        recipe=prepared.recipe,
        vocabularies=prepared.vocabularies,
        numbers=prepared.numbers,
        states=prepared.states,
    )


def _write_items(vectors: Floats, tower: Tower, prepared: Prepared, files: ExportFiles) -> None:
    """Write the features and the embeddings of all items."""
    check = checks.EmbeddingCheck("item embeddings", whose="item tower")
    check.add(vectors)
    check.finish(learns=bool(tower.trainable_weights))
    key = prepared.recipe.item_id
    rows = _Rows(
        key,
        ITEM_CODE,
        as_array(prepared.items[key]),
        {name: prepared.items[name] for name in tower.schema.column_names},
        vectors,
        prepared.raw_items,
    )
    pq.write_table(rows.features(), files.features("item"))
    write_vectors(rows.embeddings(), files.embeddings("item"))
    log.info("item: %s rows", f"{len(vectors):,}")


class _Rows(NamedTuple):
    """The exported data of some users or items.

    Attributes:
        key: the name of the user or item id column.
        code: the name of the column of the codes of the ids.
        codes: the codes of the ids, int [n_rows].
        inputs: the encoded inputs of the tower, n_rows rows.
        vectors: the embeddings of these users or items, float32 [n_rows, dim].
        raw: the readable (not encoded) columns, n_rows rows.
    """

    key: str
    code: str
    codes: Ints
    inputs: Columns
    vectors: Floats
    raw: pa.Table

    @property
    def _ids(self) -> dict[str, pa.ChunkedArray | pa.Array]:
        return {self.key: self.raw[self.key], self.code: pa.array(self.codes)}

    def features(self) -> pa.Table:
        """Return ids, codes, readable columns and tower inputs as a table."""
        readable = {name: self.raw[name] for name in self.raw.column_names if name != self.key}
        inputs = {input_of(name): to_arrow(column) for name, column in self.inputs.items()}
        return pa.table({**self._ids, **readable, **inputs})

    def embeddings(self) -> pa.Table:
        """Return ids, codes and embeddings as a table."""
        return pa.table({**self._ids, EMBEDDING: fixed_lists(self.vectors)})


class _UserWriter:
    """Writes the features, embeddings and histories of users, one block as one row group of each.

    Args:
        two_tower: the model with the items.
        prepared: the content of the run's etl stage.
        files: the paths of the files of the export.
        also: interactions that count as seen, but not for histories; None if there are none.
    """

    def __init__(
        self, two_tower: TwoTower, prepared: Prepared, files: ExportFiles, also: Interactions | None
    ) -> None:
        self._two_tower, self._prepared, self._also = two_tower, prepared, also
        self._encoded = prepared.row_groups("users")
        self._raw = prepared.raw_row_groups("users")
        self._check = checks.EmbeddingCheck("user embeddings", whose="user tower")
        self._features = GrowingFile(files.features("user"))
        self._embeddings = GrowingFile(files.embeddings("user"), use_dictionary=False)
        self._histories = GrowingFile(files.histories)
        #: Number of dimensions of the embeddings, once a block was written.
        self.width = 0

    def __enter__(self) -> _UserWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for file in (self._features, self._embeddings, self._histories):
            file.close()
        if kind is None:
            # a tower without weights, of a popularity model, embeds all users alike
            self._check.finish(learns=bool(self._two_tower.tower.trainable_weights))

    def write(self, block: UserBlock) -> None:
        """Embed the users of a block, and append them to the files."""
        rows = self._rows(block)
        self._check.add(rows.vectors)
        self.width = rows.vectors.shape[1]
        self._features.append(rows.features())
        self._embeddings.append(rows.embeddings())
        self._histories.append(histories(block, self._also))
        log.info("user: %s of %s rows", f"{block.users.stop:,}", f"{self._prepared.n_users:,}")

    def _rows(self, block: UserBlock) -> _Rows:
        numbers = np.arange(block.users.start, block.users.stop)
        encoded = table_columns(take_rows(self._encoded, numbers))
        lists = block.known.histories()
        queries = Queries(np.arange(len(numbers)), lists, times=block.known.history_times())
        inputs = replace(self._two_tower, users=encoded).inputs(queries)
        raw = self._with_given(take_rows(self._raw, numbers), lists)
        if HISTORY_AGES in inputs:
            raw = raw.append_column(HISTORY_AGES, to_arrow(inputs[HISTORY_AGES]))
        key = self._prepared.recipe.user_id
        vectors = embed(self._two_tower.tower, inputs)
        return _Rows(key, USER_CODE, as_array(encoded[key]), inputs, vectors, raw)

    def _with_given(self, raw: pa.Table, lists: Ragged) -> pa.Table:
        """Add the raw histories, as the query tower takes them, to the readable columns."""
        recipe = self._prepared.recipe
        if history := recipe.history:
            latest = lists.last(history.max_len)
            for name, listed in given_inputs(recipe, history.inputs).items():
                column = self._prepared.raw_items[listed.column].combine_chunks()
                values = column.take(pa.array(latest.values))
                offsets = latest.offsets.astype(np.int32)
                raw = raw.append_column(name, pa.ListArray.from_arrays(offsets, values))
        return raw


def histories(block: UserBlock, also: Interactions | None) -> pa.Table:
    """Return each user's history, and items seen in dropped rows, as lists of item row numbers.

    Args:
        block: the users with their interactions.
        also: interactions of all users that count as seen, but not for histories; None if there
            are none.
    """
    columns = {ITEM_ROWS: block.known.histories()}
    if also is not None:
        mine = (also.users >= block.users.start) & (also.users < block.users.stop)
        mine &= also.items >= 0
        columns[ALSO_SEEN_ROWS] = Ragged.from_pairs(
            also.users[mine] - block.users.start, also.items[mine], n_lists=block.known.n_users
        )
    lists = {
        name: to_arrow(Ragged(rows.values.astype(np.int32), rows.offsets))
        for name, rows in columns.items()
    }
    return pa.table(lists)


def _unknown_user(two_tower: TwoTower, prepared: Prepared) -> Floats:
    """Return the embedding of an unknown user without a history, float32 [dim]."""
    last = take_rows(prepared.row_groups("users"), np.array([prepared.n_users]))
    unknown = replace(two_tower, users=table_columns(last))
    return unknown.embed(Queries(np.array([-1]), Ragged.empty(1)))[0]
