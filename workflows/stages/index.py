"""The items that can be shown: those of the export, and those that the index stage added.

Where there is an index, it proposes; where there is none, every item is scored.
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
import pyarrow.compute as pc
import pyarrow.parquet as pq

from models.core.ann import Ann, Index, NoFaiss
from models.core.exact import Exact, looked_through
from models.core.retriever import Bools, Floats, Ints, Retriever
from workflows.ground.errors import ArtifactError, DataError, MissingStage, StaleInput
from workflows.ground.lookup import Lookup
from workflows.ground.stage_content import embeddings_of, reading, require
from workflows.raw import spelling
from workflows.recipe import Recipe
from workflows.recipe.text import nearest
from workflows.stages.store import Store

log = logging.getLogger(__name__)

#: A message looks for the nearest text among at most so many.
_COMPARED = 10_000


class Searched(msgspec.Struct, frozen=True):
    """How an index stage is searched.

    Attributes:
        kind: `exact`, or of the FAISS index beside it.
        effort: the effort that was chosen for it.
        at: list length that it was chosen at.
    """

    kind: Literal["exact", "flat", "hnsw", "ivf"]
    effort: int = 0
    at: int = 0


@dataclass(frozen=True)
class IndexFiles:
    """File names of the index stage."""

    folder: Path

    @property
    def searched(self) -> Path:
        """How it is searched, JSON."""
        return self.folder / "search.json"

    @property
    def faiss(self) -> Path:
        """FAISS's own file; absent where every item is scored."""
        return self.folder / "index.faiss"

    @property
    def added(self) -> Path:
        """Added items: readable columns and `embedding`; absent where there are none."""
        return self.folder / "added_items.parquet"


@dataclass(frozen=True)
class Catalogue:
    """Items, their embeddings, and what finds the best of them.

    Attributes:
        recipe: names of columns.
        items: readable columns, one row an item: the export's, then the added ones.
        vectors: float32 [n_items, dim].
        n_exported: how many of them are the export's.
        index: what proposes items; None where every item is scored.
    """

    recipe: Recipe
    items: pa.Table
    vectors: Floats
    n_exported: int
    index: Index | None = None

    @classmethod
    def open(cls, store: Store, recipe: Recipe) -> Catalogue:
        """Read the items of the export and, if there is one that fits it, of the index.

        Raises:
            ArtifactError: the index is damaged, or FAISS is not there to read it.
        """
        catalogue = cls.of_export(store, recipe)
        if not _is_indexed(store, recipe):
            return catalogue
        files = IndexFiles(store.folder("index"))
        with reading(files.folder, "index"):
            if files.added.is_file():
                catalogue = catalogue.with_added(pq.read_table(files.added))
            how = msgspec.json.decode(files.searched.read_bytes(), type=Searched)
        return replace(catalogue, index=_read(catalogue.vectors, how, files))

    @classmethod
    def of_export(cls, store: Store, recipe: Recipe) -> Catalogue:
        """Read the items of the export alone."""
        folder = store.folder("export")
        with reading(folder, "export"):
            names = pq.read_schema(folder / "item_features.parquet").names
            readable = [n for n in names if n in (*recipe.columns("item"), "train_count")]
            items = pq.read_table(folder / "item_features.parquet", columns=readable)
            path = folder / "item_embeddings.parquet"
            vectors = embeddings_of(pq.read_table(path), path, "export")
            lengths = f"{len(items)} items have {len(vectors)} embeddings"
            require(len(vectors) == len(items), path, "export", lengths)
            require(recipe.item_id in items.column_names, folder, "export", "items without an id")
        return cls(recipe, items.combine_chunks(), vectors, len(items))

    def with_added(self, more: pa.Table) -> Catalogue:
        """Return the catalogue with more items behind its own, to be scored one by one.

        Args:
            more: readable columns, of which some may be missing, and `embedding`.
        """
        columns = {
            field.name: more[field.name].cast(field.type)
            if field.name in more.column_names
            else pa.chunked_array([pa.nulls(len(more), field.type)])
            for field in self.items.schema
        }
        items = pa.concat_tables([self.items, pa.table(columns, self.items.schema)])
        added = embeddings_of(more, Path("added_items.parquet"), "index")
        vectors = np.concatenate([self.vectors, added])
        return replace(self, items=items.combine_chunks(), vectors=vectors, index=None)

    @property
    def kind(self) -> str:
        """How it is searched: exact, flat, hnsw or ivf."""
        return self.index.kind if self.index else "exact"

    def retriever(self, users: Floats) -> Retriever:
        """Return what ranks the items for users.

        Args:
            users: embeddings, float32 [n_users + 1, dim]; the last for every unknown user.
        """
        if self.index:
            return Ann(users, self.index)
        return Exact(users, self.vectors, self.longest)

    @cached_property
    def longest(self) -> float:
        """The length of the longest embedding."""
        return looked_through(self.vectors)

    @cached_property
    def ids(self) -> pa.StringArray:
        """Raw ids in the order of rows."""
        return self.items[self.recipe.item_id].combine_chunks()

    @cached_property
    def labels(self) -> pa.Table:
        """The columns that are there to be read, in the order of rows."""
        features = self.recipe.features
        return self.items.select(
            [n for n in self.recipe.columns("item") if features[n].meaning.is_label]
        )

    @cached_property
    def directions(self) -> Floats:
        """Embeddings of length 1, without the item bias: what an item is like, [n_items, width]."""
        vectors = self.vectors[:, : self.vectors.shape[1] - self.recipe.towers.item_bias]
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.where(lengths > 0, lengths, 1)

    @cached_property
    def offered(self) -> Bools:
        """Items that may be shown at all, bool [n_items]; added ones always."""
        mask = np.ones(len(self.items), bool)
        if self.recipe.evaluate.candidates == "train":
            counts = self.items["train_count"].to_numpy()[: self.n_exported]
            mask[: self.n_exported] = counts > 0
        return mask

    def rows_of(self, ids: Sequence[str]) -> Ints:
        """Return the rows of items, int64 [n_ids].

        Raises:
            DataError: there is no such item.
        """
        rows = self.find(pa.array(ids, pa.string()))
        if (rows < 0).any():
            strange = ids[int(np.argmax(rows < 0))]
            raise DataError(f"There is no item {strange!r} in {self.recipe.item_id!r}.")
        return rows

    def find(self, ids: pa.Array) -> Ints:
        """Return the rows of items, int64 [n_ids]; -1 for those that are not there."""
        return self.lookup.rows(ids)

    @cached_property
    def lookup(self) -> Lookup:
        """Where items stand."""
        return Lookup(self.ids)

    def meets(self, rule: str) -> Bools:
        """Return which items meet a rule `column=value`, bool [n_items].

        Numbers are compared as such, and text is spelt as the column spells it: `price=4.0` is
        `price=4`, and `new=True` is `new=true`.

        Raises:
            DataError: no such column, or no number where one is needed.
        """
        name, value = self._parsed(rule)
        column = self.items[name].combine_chunks()
        if not pa.types.is_list(column.type):
            equal = pc.equal(column, _like(value, column, rule)).fill_null(False)
            return equal.to_numpy(zero_copy_only=False)
        hits = pc.equal(column.flatten(), _like(value, column.flatten(), rule))
        mask = np.zeros(len(column), bool)
        mask[pc.list_parent_indices(column).filter(hits.fill_null(False)).to_numpy()] = True
        return mask

    def refuse_vain(self, rules: Sequence[str]) -> None:
        """Refuse a rule that no item meets.

        Raises:
            DataError: there is one; the message names the value that is nearest to it.
        """
        for rule in rules:
            if not self.meets(rule).any():
                name, value = self._parsed(rule)
                raise DataError(
                    f"--only {rule!r}: no item has {value!r} in {name!r}. "
                    f"{self._nearest(name, value)}Correct the rule, or leave it out."
                )

    def _parsed(self, rule: str) -> tuple[str, str]:
        """Return the column and the value of a rule."""
        readable = [c for c in self.items.column_names if c in self.recipe.features]
        parsed = split_rule(rule, readable)
        if parsed is None:
            raise DataError(
                f"--only {rule!r}: expected column=value, with one of the columns "
                f"{', '.join(readable)}."
            )
        return parsed

    def _nearest(self, name: str, value: str) -> str:
        column = self.items[name].combine_chunks()
        values = (column.flatten() if pa.types.is_list(column.type) else column).unique()
        values = values.drop_null()
        if pa.types.is_string(values.type):  # each comparison takes some 10 microseconds
            return nearest(value, values.slice(0, _COMPARED).to_pylist())
        if not len(values):
            return ""
        numbers = values.to_numpy().astype(np.float64)
        close = numbers[np.abs(numbers - float(value)).argmin()]
        return f"The nearest number is {close:g}. "


def split_rule(rule: str, columns: Sequence[str]) -> tuple[str, str] | None:
    """Return column and value of `column=value`; None if it begins with none of the columns.

    The name of a column may hold `=`, too.
    """
    fits = [name for name in columns if rule.startswith(f"{name}=")]
    if not fits:
        return None
    name = max(fits, key=len)
    return name, rule[len(name) + 1 :]


def _like(value: str, column: pa.Array, rule: str) -> pa.Scalar:
    """Return the value of a rule as what a column holds.

    Raises:
        DataError: it is no number, and the column holds numbers.
    """
    if pa.types.is_string(column.type):
        told = pa.array([value], pa.string())
        if spelling.other(told).null_count == 0:  # it has another spelling
            told = spelling.like(told, column.unique().drop_null())
        return told[0]
    try:
        return pa.scalar(float(value), pa.float64()).cast(column.type, safe=False)
    except ValueError:
        raise DataError(
            f"--only {rule!r}: {value!r} is no number. Give one, such as 4.5."
        ) from None


def _is_indexed(store: Store, recipe: Recipe) -> bool:
    """Say whether there is an index stage of this export.

    Raises:
        ArtifactError: it is damaged.
    """
    try:
        store.read("index", recipe)
    except MissingStage:
        return False
    except StaleInput as error:
        log.warning("%s Until then it is left aside, with what was added to it.", error)
        return False
    return True


def _read(vectors: Floats, how: Searched, files: IndexFiles) -> Index | None:
    """Return the index of an index stage; None where every item is scored."""
    if how.kind == "exact":
        return None
    try:
        return Index.read(files.faiss, vectors, how.kind, effort=how.effort, at=how.at)
    except (NoFaiss, ValueError, RuntimeError) as error:
        raise ArtifactError(
            f"{files.faiss} cannot be used: {error} Run `two-tower index` again, or remove "
            f"{files.folder}."
        ) from None
