"""Reads the files of the export stage: tables, embeddings, histories and towers.

The folder of an export is complete without the other stages of its run, so that it can be copied to
another machine. Reading an export does not need Merlin, and needs TensorFlow only to open a tower.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from models.core.columns import from_arrow
from models.core.retriever import Floats, Ints, Ragged, concatenate_lists
from models.core.row_groups import Group, RowGroups, take_lists, take_rows
from workflows.derive import fitted
from workflows.derive.fitted import States
from workflows.ground import vocabulary
from workflows.ground.column_names import EMBEDDING, TRAIN_COUNT
from workflows.ground.lookup import Lookup
from workflows.ground.stage_content import embeddings_of, reading, require
from workflows.ground.vocabulary import Vocabulary
from workflows.recipe import Recipe
from workflows.recipe.raw_inputs import given_inputs
from workflows.stages.embedding import RawTower
from workflows.stages.store import Store

Side = Literal["user", "item"]
SIDES: tuple[Side, ...] = ("user", "item")

#: Columns of the file of histories, a list of item rows for each user: what the user did before
#: the cut, oldest first; and, if a filter asks for it, dropped items that count as seen.
ITEM_ROWS, ALSO_SEEN_ROWS = "item_rows", "also_seen_rows"
#: The option of the manifest that names the cut up to which interactions are known.
AS_OF = "as_of"


@dataclass(frozen=True)
class ExportFiles:
    """The paths of the files in the folder of the export stage."""

    folder: Path

    def features(self, side: Side) -> Path:
        """The file with ids, readable columns and encoded inputs of all users or all items."""
        return self.folder / f"{side}_features.parquet"

    def embeddings(self, side: Side) -> Path:
        """The file with the ids, codes and embeddings of all users or all items, in table order."""
        return self.folder / f"{side}_embeddings.parquet"

    def tower(self, side: Side) -> Path:
        """The SavedModel of the user or item tower that takes codes and standardised numbers."""
        return self.folder / {"user": "query_tower", "item": "item_tower"}[side]

    def raw_tower(self, side: Side) -> Path:
        """The SavedModel of the user or item tower that takes raw values: text and numbers."""
        tower = self.tower(side)
        return tower.with_name(f"{tower.name}_raw")

    @property
    def unknown_user(self) -> Path:
        """The file with the embedding that is used for users who are not in the user table."""
        return self.folder / "unknown_user.npy"

    @property
    def histories(self) -> Path:
        """The file with each user's history and other seen items, as row numbers of items."""
        return self.folder / "histories.parquet"

    @property
    def item_counts(self) -> Path:
        """The file with the number of interactions of each item before the cut, int64 [n_items]."""
        return self.folder / "item_counts.npy"

    @property
    def events(self) -> Path:
        """The file with the attribute codes of all target events; only for offer models."""
        return self.folder / "events.parquet"

    @property
    def vocabularies(self) -> Path:
        """The folder of the vocabularies, which map the values of encoded columns to codes."""
        return self.folder / vocabulary.FOLDER

    @property
    def schema(self) -> Path:
        """The file with Merlin's schema of the input columns of the user and item towers."""
        return self.folder / "schema.pbtxt"


@dataclass(frozen=True)
class Export:
    """The content of an export (embeddings, tables, towers); each file is read at first use.

    Attributes:
        files: the paths of the files of the export stage.
        recipe: the recipe of the run.
        as_of: the cut before which interactions count for histories: `test`, or `latest` for all.
        kept: number of row groups of users (65,536 users each) that stay in memory once they were
            read; None for all.
    """

    files: ExportFiles
    recipe: Recipe
    as_of: str
    kept: int | None = None

    @classmethod
    def open(cls, store: Store, recipe: Recipe, *, kept: int | None = None) -> Export:
        """Check that the export fits the recipe and is undamaged, and return its content.

        Args:
            store: the folder of the run, or a copied export.
            recipe: the recipe of the run.
            kept: the attribute `kept`.

        Raises:
            MissingStage, StaleInput, ArtifactError: the export is missing, stale or damaged.
        """
        manifest = store.read("export", recipe)
        folder = store.folder("export")
        with reading(folder, "export"):
            as_of = manifest.options[AS_OF]
        return cls(ExportFiles(folder), recipe, as_of, kept)

    @cached_property
    def items(self) -> pa.Table:
        """Readable (not encoded) columns and training counts of items, one row per item."""
        path = self.files.features("item")
        with reading(path, "export"):
            columns = (*self.recipe.columns("item"), TRAIN_COUNT)
            names = [name for name in pq.read_schema(path).names if name in columns]
            require(self.recipe.item_id in names, path, "export", "items without an id")
            return pq.read_table(path, columns=names).combine_chunks()

    @cached_property
    def item_vectors(self) -> Floats:
        """Item embeddings, float32 [n_items, dim], in the order of the item table."""
        path = self.files.embeddings("item")
        with reading(path, "export"):
            vectors = embeddings_of(pq.read_table(path, columns=[EMBEDDING]), path, "export")
        lengths = f"{len(self.items)} items have {len(vectors)} embeddings"
        require(len(vectors) == len(self.items), path, "export", lengths)
        return vectors

    @cached_property
    def user_ids(self) -> pa.StringArray:
        """Raw user ids in the order of the user table."""
        path = self.files.embeddings("user")
        with reading(path, "export"):
            table = pq.read_table(path, columns=[self.recipe.user_id])
            return table[self.recipe.user_id].combine_chunks()

    @cached_property
    def user_lookup(self) -> Lookup:
        """A map from raw user ids to row numbers of the user table."""
        return Lookup(self.user_ids)

    def user_vectors(self, rows: Ints) -> Floats:
        """Return the embeddings of users, float32 [n_rows, dim].

        Args:
            rows: row numbers of the users in the user table, int [n_rows]; -1 for an unknown user.
        """
        vectors = np.tile(self.unknown_user, (len(rows), 1))
        known = np.flatnonzero(rows >= 0)
        with reading(self.files.embeddings("user"), "export"):
            for piece in self._vectors.pieces(rows[known]):
                vectors[known[piece.positions]] = piece.group[piece.rows]
        return vectors

    @cached_property
    def unknown_user(self) -> Floats:
        """The embedding of users who are not in the user table, float32 [dim]."""
        path = self.files.unknown_user
        with reading(path, "export"):
            vector: Floats = np.load(path, allow_pickle=False)
            width = self.item_vectors.shape[1]
            is_right = vector.shape == (width,) and np.isfinite(vector).all()
            require(bool(is_right), path, "export", f"expected {width} numbers")
        return vector

    def raw_users(self, rows: Ints, columns: Sequence[str]) -> pa.Table:
        """Return readable features of users, and raw values that the query tower takes.

        Args:
            rows: row numbers of the users in the user table, int [n_rows]; for -1, an unknown user,
                all values are null.
            columns: the columns to return.
        """
        known = np.flatnonzero(rows >= 0)
        with reading(self.files.features("user"), "export"):
            table = take_rows(self._raw_users, rows[known]).select(columns)
        places = np.full(len(rows), len(known))
        places[known] = np.arange(len(known))
        return table.take(pa.array(places, mask=rows < 0))

    def histories(self, rows: Ints) -> Ragged:
        """Return, for each user, the row numbers of the items in the history, oldest first.

        Args:
            rows: row numbers of the users in the user table, int [n_rows]; -1 for an unknown user,
                who has no history.
        """
        return self._lists(self._histories, rows)

    def seen(self, rows: Ints) -> Ragged:
        """Return, for each user, the items of the history, then other seen items.

        The other seen items are those of interactions that a filter dropped, but that count as
        seen.

        Args:
            rows: row numbers of the users in the user table, int [n_rows]; -1 for an unknown user.
        """
        histories = self.histories(rows)
        if self._also_seen is None:
            return histories
        return concatenate_lists(histories, self._lists(self._also_seen, rows))

    def load_users(self) -> None:
        """Read the embeddings and histories of all users now."""
        for groups in (self._vectors, self._histories, self._also_seen):
            if groups is not None:
                groups.load()

    def load_raw_users(self) -> None:
        """Read the readable features of all users now."""
        with reading(self.files.features("user"), "export"):
            self._raw_users.load()

    def _lists(self, groups: RowGroups[Ragged], rows: Ints) -> Ragged:
        with reading(self.files.histories, "export"):
            return take_lists(groups, rows)

    @cached_property
    def _vectors(self) -> RowGroups[Floats]:
        path = self.files.embeddings("user")
        width = self.item_vectors.shape[1]

        def convert(table: pa.Table) -> Floats:
            users = embeddings_of(table, path, "export")
            fault = f"users are not {width} numbers as items are"
            require(users.shape[1] == width, path, "export", fault)
            return users

        return self._groups(path, [EMBEDDING], convert)

    @cached_property
    def _raw_users(self) -> RowGroups[pa.Table]:
        names = self.recipe.columns("user", "context")
        given = given_inputs(self.recipe, [*names, *self.recipe.history_columns])
        columns = list(dict.fromkeys([*names, *given]))
        return self._groups(self.files.features("user"), columns, lambda t: t.select(columns))

    @cached_property
    def _histories(self) -> RowGroups[Ragged]:
        return self._item_rows(ITEM_ROWS)

    @cached_property
    def _also_seen(self) -> RowGroups[Ragged] | None:
        with reading(self.files.histories, "export"):
            names = pq.read_schema(self.files.histories).names
        return self._item_rows(ALSO_SEEN_ROWS) if ALSO_SEEN_ROWS in names else None

    def _item_rows(self, column: str) -> RowGroups[Ragged]:
        """Return a column of the file of histories: for each user, row numbers of items."""
        path, n_items = self.files.histories, len(self.items)

        def convert(table: pa.Table) -> Ragged:
            lists = from_arrow(table[column])
            if not isinstance(lists, Ragged) or not np.issubdtype(lists.values.dtype, np.integer):
                raise TypeError(f"{column} holds no lists of whole numbers")
            rows = lists.values
            are_items = not len(rows) or (rows.min() >= 0 and rows.max() < n_items)
            require(bool(are_items), path, "export", "histories name rows beyond the items")
            return lists

        return self._groups(path, [column], convert)

    def _groups(
        self, path: Path, columns: Sequence[str], convert: Callable[[pa.Table], Group]
    ) -> RowGroups[Group]:
        """Return a reader of a file that has a row for each user of the user table."""
        with reading(path, "export"):
            groups = RowGroups([path], columns, convert, kept=self.kept)
        require(len(groups) == len(self.user_ids), path, "export", "it has other users")
        return groups

    @cached_property
    def item_counts(self) -> npt.NDArray[np.int64]:
        """Number of interactions of each item before the cut, int64 [n_items]."""
        path = self.files.item_counts
        with reading(path, "export"):
            counts: npt.NDArray[np.int64] = np.load(path, allow_pickle=False)
            is_right = counts.shape == (len(self.items),) and counts.dtype == np.int64
            require(is_right, path, "export", f"expected {len(self.items)} whole numbers")
        return counts

    @cached_property
    def vocabularies(self) -> dict[str, Vocabulary]:
        """The vocabulary of each column whose values get codes."""
        with reading(self.files.vocabularies, "export"):
            return vocabulary.read_all(self.files.folder)

    @cached_property
    def states(self) -> States:
        """What steps of `derive` learnt from the training rows, by derived column."""
        return fitted.read(self.files.folder, "export")

    def known_texts(self, column: str) -> pa.StringArray:
        """Return the known texts of a column: those of its vocabulary or of the exported tables.

        Args:
            column: a text column that is not an id column.
        """
        if column in self.vocabularies:
            return self.vocabularies[column].values
        return self.raw_texts.get(column, pa.array([], pa.string()))

    @cached_property
    def raw_texts(self) -> dict[str, pa.StringArray]:
        """The distinct texts in the exported tables, by text column that a derive step reads."""
        found: dict[str, pa.StringArray] = {}
        for side in SIDES:
            path = self.files.features(side)
            with reading(path, "export"):
                texts = [f.name for f in pq.read_schema(path) if pa.types.is_string(f.type)]
                names = [step.of for step in self.recipe.derive if step.of in texts]
                table = pq.read_table(path, columns=list(dict.fromkeys(names)))
            found |= {name: pc.unique(table[name]).drop_null() for name in table.column_names}
        return found

    @cached_property
    def query_tower(self) -> RawTower:
        """The query tower that embeds users, given raw values (text and numbers) of its inputs."""
        return RawTower.open(self.files.raw_tower("user"))

    @cached_property
    def item_tower(self) -> RawTower:
        """The item tower that embeds items, given raw values (text and numbers) of its inputs."""
        return RawTower.open(self.files.raw_tower("item"))
