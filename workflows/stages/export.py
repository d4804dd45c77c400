"""Reads the files of the export stage: tables, embeddings, histories and towers.

The folder of an export is complete without the other stages of its run, so that it can be copied to
another machine. Reading an export does not need Merlin, and needs TensorFlow only to open a tower.
"""

from __future__ import annotations

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
from models.core.retriever import Floats, Ragged, concatenate_lists
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
    """

    files: ExportFiles
    recipe: Recipe
    as_of: str

    @classmethod
    def open(cls, store: Store, recipe: Recipe) -> Export:
        """Check that the export fits the recipe and is undamaged, and return its content.

        Raises:
            MissingStage, StaleInput, ArtifactError: the export is missing, stale or damaged.
        """
        manifest = store.read("export", recipe)
        folder = store.folder("export")
        with reading(folder, "export"):
            as_of = manifest.options[AS_OF]
        return cls(ExportFiles(folder), recipe, as_of)

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

    @cached_property
    def user_vectors(self) -> Floats:
        """User embeddings, float32 [n_users + 1, dim]; the last row is for unknown users."""
        path = self.files.embeddings("user")
        with reading(path, "export"):
            users = embeddings_of(pq.read_table(path, columns=[EMBEDDING]), path, "export")
        width = self.item_vectors.shape[1]
        require(
            users.shape[1] == width, path, "export", f"users are not {width} numbers as items are"
        )
        return np.concatenate([users, self._unknown_user[None]])

    @property
    def _unknown_user(self) -> Floats:
        path = self.files.unknown_user
        with reading(path, "export"):
            vector: Floats = np.load(path, allow_pickle=False)
            width = self.item_vectors.shape[1]
            is_right = vector.shape == (width,) and np.isfinite(vector).all()
            require(bool(is_right), path, "export", f"expected {width} numbers")
        return vector

    @cached_property
    def raw_users(self) -> pa.Table:
        """Readable (not encoded) columns of users: features, and inputs of the raw query tower."""
        names = self.recipe.columns("user", "context")
        given = given_inputs(self.recipe, [*names, *self.recipe.history_columns])
        columns = list(dict.fromkeys([*names, *given]))
        path = self.files.features("user")
        with reading(path, "export"):
            table = pq.read_table(path, columns=columns)
            require(len(table) == len(self.user_ids), path, "export", "it has other users")
        return table

    @cached_property
    def histories(self) -> Ragged:
        """For each user, the row numbers of the items in the history, oldest first.

        The last list is for users who are not in the user table; it is empty.
        """
        return self._item_rows(ITEM_ROWS)

    @cached_property
    def seen(self) -> Ragged:
        """For each user, the row numbers of the items in the history, then of other seen items.

        The other seen items are those of interactions that a filter dropped, but that count as
        seen.
        """
        with reading(self.files.histories, "export"):
            names = pq.read_schema(self.files.histories).names
        if ALSO_SEEN_ROWS not in names:
            return self.histories
        return concatenate_lists(self.histories, self._item_rows(ALSO_SEEN_ROWS))

    def _item_rows(self, column: str) -> Ragged:
        """Read a column of the histories file: for each user, a list of row numbers of items.

        The last list, an empty one, is for users who are not in the user table.
        """
        path = self.files.histories
        with reading(path, "export"):
            lists = from_arrow(pq.read_table(path, columns=[column])[column])
            if not isinstance(lists, Ragged) or not np.issubdtype(lists.values.dtype, np.integer):
                raise TypeError(f"{column} holds no lists of whole numbers")
        require(len(lists) == len(self.user_ids), path, "export", "it has other users")
        rows = lists.values
        are_items = not len(rows) or (rows.min() >= 0 and rows.max() < len(self.items))
        require(bool(are_items), path, "export", "histories name rows beyond the items")
        return Ragged(rows, np.append(lists.offsets, lists.offsets[-1]))

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
