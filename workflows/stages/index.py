"""The catalogue: the exported items, the items that the index stage added, and their search.

If there is a FAISS index, it proposes candidate items; otherwise every item is scored.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.core.ann import Ann, FaissNotInstalled, Index, Kind
from models.core.exact import Exact, max_norm
from models.core.retriever import Bools, Floats, Ints, Retriever
from workflows.ground.column_names import TRAIN_COUNT
from workflows.ground.errors import ArtifactError, DataError, MissingStage, StaleInput
from workflows.ground.lookup import Lookup
from workflows.ground.stage_content import embeddings_of, reading
from workflows.recipe import Recipe
from workflows.stages.export import Export
from workflows.stages.item_rules import ItemRules
from workflows.stages.store import Store

log = logging.getLogger(__name__)


class SearchSettings(msgspec.Struct, frozen=True):
    """The settings with which the FAISS index of an index stage is searched.

    Attributes:
        kind: the kind of the FAISS index; `exact` if there is no index and every item is scored.
        effort: the search effort that was chosen for the FAISS index (such as the number of cells
            that are searched).
        at: the list length for which the search effort was chosen.
    """

    kind: Literal["exact", Kind]
    effort: int = 0
    at: int = 0


@dataclass(frozen=True)
class IndexFiles:
    """The paths of the files in the folder of the index stage."""

    folder: Path

    @property
    def settings(self) -> Path:
        """The JSON file with the settings with which the FAISS index is searched."""
        return self.folder / "search.json"

    @property
    def faiss(self) -> Path:
        """The file of the FAISS index; absent if search scores every item."""
        return self.folder / "index.faiss"

    @property
    def added(self) -> Path:
        """The file with readable columns and embeddings of items added after the export, if any."""
        return self.folder / "added_items.parquet"


@dataclass(frozen=True)
class Catalogue:
    """The items that can be recommended, with their embeddings and the search for the best ones.

    Attributes:
        recipe: the recipe of the run.
        items: readable (not encoded) item columns, one row per item: exported items, then added
            items.
        vectors: item embeddings, float32 [n_items, dim].
        n_exported: number of exported items.
        index: the FAISS index that proposes candidate items; None if every item is scored.
    """

    recipe: Recipe
    items: pa.Table
    vectors: Floats
    n_exported: int
    index: Index | None = None

    @classmethod
    def open(cls, store: Store, export: Export, *, to_grow: bool = False) -> Catalogue:
        """Read the items of an export, and the index stage if it was made from this export.

        Args:
            store: the folder of the run, or a copied export.
            export: the export.
            to_grow: whether items will be added to the index.

        Raises:
            ArtifactError: the index is damaged, or FAISS is not installed.
        """
        catalogue = cls.of_export(export)
        if not _has_index(store, export.recipe):
            return catalogue
        files = IndexFiles(store.folder("index"))
        with reading(files.folder, "index"):
            if files.added.is_file():
                catalogue = catalogue.with_added(pq.read_table(files.added))
            settings = msgspec.json.decode(files.settings.read_bytes(), type=SearchSettings)
        return replace(catalogue, index=_read(catalogue.vectors, settings, files, to_grow))

    @classmethod
    def of_export(cls, export: Export) -> Catalogue:
        """Return the catalogue of the exported items, without added items and without an index."""
        return cls(export.recipe, export.items, export.item_vectors, len(export.items))

    def with_added(self, more: pa.Table) -> Catalogue:
        """Return the catalogue with further items appended, and without an index.

        Args:
            more: a table of the further items, with a column `embedding` and readable item columns,
                some of which may be absent.
        """
        columns = {
            field.name: more[field.name].cast(field.type)
            if field.name in more.column_names
            else pa.chunked_array([pa.nulls(len(more), field.type)])
            for field in self.items.schema
        }
        items = pa.concat_tables([self.items, pa.table(columns, self.items.schema)])
        added = embeddings_of(more, IndexFiles(Path()).added, "index")
        vectors = np.concatenate([self.vectors, added])
        return replace(self, items=items.combine_chunks(), vectors=vectors, index=None)

    @property
    def kind(self) -> str:
        """The kind of item search: exact, or the kind of the FAISS index (flat, hnsw or ivf)."""
        return self.index.kind if self.index else "exact"

    def retriever(self, users: Floats) -> Retriever:
        """Return the retriever that ranks the items of the catalogue for users.

        Args:
            users: user embeddings, float32 [n_users + 1, dim]; the last row is for unknown users.
        """
        if self.index:
            return Ann(users, self.index)
        return Exact(users, self.vectors, self._norm_bound)

    @cached_property
    def _norm_bound(self) -> float:
        """The largest Euclidean norm of the item embeddings."""
        return max_norm(self.vectors)

    @cached_property
    def ids(self) -> pa.StringArray:
        """Raw item ids in the order of the catalogue's rows."""
        return self.items[self.recipe.item_id].combine_chunks()

    @cached_property
    def labels(self) -> pa.Table:
        """The label columns of items (text for people, such as titles), one row per item."""
        features = self.recipe.features
        return self.items.select(
            [n for n in self.recipe.columns("item") if features[n].meaning.is_label]
        )

    @cached_property
    def rules(self) -> ItemRules:
        """The object that selects items by rules `column=value` on their readable columns."""
        names = [name for name in self.items.column_names if name in self.recipe.features]
        return ItemRules(self.items.select(names))

    @cached_property
    def unit_vectors(self) -> Floats:
        """Item embeddings without the item bias, normalised to length 1, float32 [n_items, width].

        The bias measures the popularity of an item, not its similarity to other items.
        """
        vectors = self.vectors[:, : self.vectors.shape[1] - self.recipe.towers.item_bias]
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.where(lengths > 0, lengths, 1)

    @cached_property
    def offered(self) -> Bools:
        """For each item, whether it may be recommended, bool [n_items]; true for added items."""
        mask = np.ones(len(self.items), bool)
        if self.recipe.evaluate.candidates == "train":
            counts = self.items[TRAIN_COUNT].to_numpy()[: self.n_exported]
            mask[: self.n_exported] = counts > 0
        return mask

    def rows_of(self, ids: Sequence[str]) -> Ints:
        """Return the row numbers of items in the catalogue, given their raw ids, int64 [n_ids].

        Raises:
            DataError: no item of the catalogue has one of the ids.
        """
        rows = self.find(pa.array(ids, pa.string()))
        if (rows < 0).any():
            unknown = ids[int(np.argmax(rows < 0))]
            raise DataError(f"There is no item {unknown!r} in {self.recipe.item_id!r}.")
        return rows

    def find(self, ids: pa.Array) -> Ints:
        """Return the catalogue rows of items by their raw ids, int64 [n_ids]; -1 if unknown."""
        return self.lookup.rows(ids)

    @cached_property
    def lookup(self) -> Lookup:
        """The map from raw item ids to row numbers in the catalogue."""
        return Lookup(self.ids)


def _has_index(store: Store, recipe: Recipe) -> bool:
    """Return whether the run has an index stage that was made from its present export.

    Raises:
        ArtifactError: the index stage is damaged.
    """
    try:
        store.read("index", recipe)
    except MissingStage:
        return False
    except StaleInput as error:
        log.warning("%s Until then it is left aside, with what was added to it.", error)
        return False
    return True


def _read(
    vectors: Floats, settings: SearchSettings, files: IndexFiles, to_grow: bool
) -> Index | None:
    """Read the FAISS index of an index stage; return None if every item is scored instead."""
    if settings.kind == "exact":
        return None
    try:
        return Index.read(
            *(files.faiss, vectors, settings.kind),
            effort=settings.effort,
            at=settings.at,
            to_grow=to_grow,
        )
    except (FaissNotInstalled, ValueError, RuntimeError) as error:
        raise ArtifactError(
            f"{files.faiss} cannot be used: {error} Run `two-tower index` again, or remove "
            f"{files.folder}."
        ) from None
