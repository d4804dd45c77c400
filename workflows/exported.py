"""An export, ready to be asked: raw ids in, lists of raw ids out, in the ranking of evaluate.

It needs neither TensorFlow nor Merlin.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from models.baselines.fallback import Fallback, strangers
from models.baselines.popularity import Popularity
from models.exact import Exact, search
from models.retriever import NO_ITEM, Bools, Floats, Ints, Queries, Ragged, Retriever, TopK
from workflows.errors import DataError
from workflows.prepared import KNOWN, Prepared
from workflows.recipe import Recipe
from workflows.store import Store

#: Users whose lists are made at a time.
SHARD = 50_000


@dataclass(frozen=True)
class Wish:
    """What a list may hold.

    Attributes:
        k: list length; shorter where fewer items remain.
        keep_seen: show what the user had before the cut, too.
        only: rules `column=value` that every item meets; of a column of lists, one value of a cell.
        deny: raw item ids that nobody is shown.
    """

    k: int = 10
    keep_seen: bool = False
    only: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()


@dataclass(frozen=True)
class Export:
    """An export, ready to be asked.

    Attributes:
        folder: of the export stage.
        prepared: the etl stage.
        recipe: names of columns, and the fallback.
        as_of: the cut that the export knows of.
    """

    folder: Path
    prepared: Prepared
    recipe: Recipe
    as_of: str

    @classmethod
    def open(cls, store: Store, recipe: Recipe) -> Export:
        """Check the stages and return them.

        Raises:
            MissingStage, StaleInput, ArtifactError: they cannot be used.
        """
        manifest = store.read("export", recipe)
        prepared = Prepared.open(store, recipe)
        return cls(store.folder("export"), prepared, recipe, manifest.options["as_of"])

    @cached_property
    def items(self) -> pa.Table:
        """Readable item columns, one row an item."""
        return pq.read_table(self.folder / "item_features.parquet")

    @cached_property
    def item_ids(self) -> pa.StringArray:
        """Raw ids in the order of item rows."""
        return self.items[self.recipe.item_id].combine_chunks()

    @cached_property
    def user_ids(self) -> pa.StringArray:
        """Raw ids in the order of user rows."""
        table = pq.read_table(
            self.folder / "user_embeddings.parquet", columns=[self.recipe.user_id]
        )
        return table[self.recipe.user_id].combine_chunks()

    @cached_property
    def item_vectors(self) -> Floats:
        """Embeddings, float32 [n_items, dim]."""
        return _vectors(self.folder / "item_embeddings.parquet")

    @cached_property
    def retriever(self) -> Retriever:
        """What answers: the embeddings, and the recipe's fallback for strangers."""
        nobody = np.load(self.folder / "unknown_user.npy")
        users = np.concatenate([_vectors(self.folder / "user_embeddings.parquet"), nobody[None]])
        exact = Exact(users, self.item_vectors)
        if self.recipe.fallback == "tower":
            return exact
        known = self.prepared.interactions(*KNOWN[self.as_of])
        return Fallback(exact, Popularity().fit(known), strangers)

    @cached_property
    def histories(self) -> Ragged:
        """What each user of the table did before the cut; one more list, empty, for strangers."""
        known = self.prepared.histories(*KNOWN[self.as_of])
        return Ragged(known.values, np.append(known.offsets, known.offsets[-1]))

    def shards(self, wish: Wish) -> Iterator[pa.Table]:
        """Yield everybody's lists, `SHARD` users at a time."""
        starts = range(0, len(self.user_ids), SHARD)
        for start in tqdm(starts, unit="shard", disable=None):
            ids = self.user_ids.slice(start, SHARD).to_numpy(zero_copy_only=False)
            yield self.lists(ids, wish)

    def lists(self, users: np.ndarray[Any, Any], wish: Wish) -> pa.Table:
        """Return users' lists: user id, rank, item id, score, who answered, the items' labels.

        Args:
            users: raw ids, text [n_users].
            wish: what lists may hold.
        """
        found = pc.index_in(pa.array(users, pa.string()), value_set=self.user_ids)
        rows = found.fill_null(-1).to_numpy().astype(np.int64)
        queries = Queries(rows, self.histories.take(rows % len(self.histories)))
        top = self.retriever.top_k(
            queries,
            wish.k,
            exclude=None if wish.keep_seen else queries.histories,
            candidates=self.allowed(wish),
        )
        by = np.where(strangers(queries), self.recipe.fallback, "two-tower")
        by = np.where(by == "tower", "unknown-user tower", by)
        return self._table(users, by, top)

    def similar(self, item: str, wish: Wish) -> list[dict[str, Any]]:
        """Return the items whose embeddings point most nearly where an item's does.

        The item bias is left out: it says how popular an item is, not what it is like.

        Raises:
            DataError: there is no such item.
        """
        row = self._rows_of_items([item])
        width = self.item_vectors.shape[1] - self.recipe.model.item_bias
        vectors = self.item_vectors[:, :width]
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = vectors / np.where(lengths > 0, lengths, 1)
        top = search(
            vectors[row],
            vectors,
            wish.k,
            exclude=Ragged(row, np.array([0, 1])),
            candidates=self.allowed(wish),
        )
        table = self._table(np.array([item]), np.array([""]), top)
        return table.drop([self.recipe.user_id, "answered_by"]).to_pylist()

    def allowed(self, wish: Wish) -> Bools:
        """Return which items may be shown, bool [n_items].

        Raises:
            DataError: a rule or an id that fits no item.
        """
        mask = np.ones(len(self.items), bool)
        if self.recipe.evaluate.candidates == "train":
            mask &= self.prepared.item_counts > 0
        for rule in wish.only:
            mask &= self._meets(rule)
        if wish.deny:
            mask[self._rows_of_items(wish.deny)] = False
        return mask

    def _meets(self, rule: str) -> Bools:
        name, equals, value = rule.partition("=")
        readable = [c for c in self.items.column_names if c in self.recipe.features]
        if not equals or name not in readable:
            raise DataError(
                f"--only {rule!r}: expected column=value, with one of the columns "
                f"{', '.join(readable)}."
            )
        column = self.items[name].combine_chunks()
        if pa.types.is_list(column.type):
            hits = pc.equal(column.flatten().cast(pa.string()), value).fill_null(False)
            mask = np.zeros(len(column), bool)
            mask[pc.list_parent_indices(column).filter(hits).to_numpy()] = True
            return mask
        equal = pc.equal(column.cast(pa.string()), value).fill_null(False)
        return equal.to_numpy(zero_copy_only=False)

    def _rows_of_items(self, ids: Sequence[str]) -> Ints:
        rows = pc.index_in(pa.array(ids, pa.string()), value_set=self.item_ids)
        if rows.null_count:
            strange = [i for i, row in zip(ids, rows.to_pylist(), strict=True) if row is None]
            raise DataError(f"There is no item {strange[0]!r} in {self.recipe.item_id!r}.")
        return rows.to_numpy().astype(np.int64)

    def _table(self, users: np.ndarray[Any, Any], by: np.ndarray[Any, Any], top: TopK) -> pa.Table:
        owners, places = np.nonzero(top.items != NO_ITEM)
        rows = pa.array(top.items[owners, places])
        labels = [n for n in self.recipe.columns("item") if self.recipe.features[n].kind == "label"]
        columns = {
            self.recipe.user_id: pa.array(users, pa.string()).take(pa.array(owners)),
            "rank": pa.array((places + 1).astype(np.int32)),
            self.recipe.item_id: self.item_ids.take(rows),
            "score": pa.array(top.scores[owners, places]),
            "answered_by": pa.array(by, pa.string()).take(pa.array(owners)),
        }
        columns |= {name: self.items[name].combine_chunks().take(rows) for name in labels}
        return pa.table(columns)


def _vectors(path: Path) -> Floats:
    column = pq.read_table(path, columns=["embedding"])["embedding"].combine_chunks()
    return column.flatten().to_numpy().reshape(len(column), -1)
