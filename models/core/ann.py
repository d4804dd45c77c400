"""Approximate nearest neighbour search with FAISS, for catalogues too large for exact search.

FAISS (Douze et al. 2024) only proposes items; their scores are computed again, and the items are
ranked by the tie rule, as in exact search. If the proposed items do not fill a list, or the last
item of the list could tie with an item that was not proposed, the query is answered by exact
search. So lists of approximate search are never shorter than those of exact search.

Long lists, exclusions and filters need more search effort: for k items after m exclusions, among a
share s of the catalogue, the (k + m) / s best items must be proposed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from models.core import index_file
from models.core.exact import (
    check_width,
    error_bound,
    max_norm,
    refuse_nan,
    search,
    user_vectors,
)
from models.core.ivf import IVF_KINDS, PROPOSED, IvfKind, empty_index
from models.core.retriever import (
    NO_ITEM,
    Bools,
    Floats,
    Ints,
    Queries,
    Ragged,
    TopK,
    check_k,
)
from models.core.tiles import dot_products

Kind = Literal["flat", "hnsw", IvfKind]
KINDS: tuple[Kind, ...] = get_args(Kind)

#: Number of items proposed beyond those a list needs, so that ties rarely reach its end.
_MARGIN = 16
#: If a filter leaves at most this many items, all of them are scored.
FEW = 50_000
#: Number of queries that are searched at a time.
_BLOCK = 1024
#: HNSW: links of an item, and candidates considered while the graph is built (Malkov 2018).
_LINKS, _CONSTRUCTION = 32, 128
#: Number of items that are added at a time.
_ADDED = 1 << 20


class FaissNotInstalled(ImportError):
    """The Python package of FAISS is not installed, so no index can be built or read."""


@dataclass(frozen=True, eq=False)
class Index:
    """Item embeddings, and a FAISS index that proposes items for a query.

    Attributes:
        items: the embedding of each item of the catalogue, float32 [n_items, d].
        kind: `flat` (all items), `hnsw` (a graph) or one of `IVF_KINDS` (inverted files: cells of
            similar items).
        faiss: FAISS's index of the inner product; row i of `items` has id i.
        effort: number of cells (inverted files) or candidates (hnsw) that are searched for a list
            of `at` items.
        at: number of items per query, excluded ones included, for which the effort was tuned.
    """

    items: Floats
    kind: Kind
    faiss: Any
    effort: int = 16
    at: int = 100

    @cached_property
    def norm_bound(self) -> float:
        """The largest Euclidean norm of an item embedding, which bounds the errors of scores."""
        return max_norm(self.items)

    @classmethod
    def build(cls, items: Floats, kind: Kind, *, seed: int = 1) -> Index:
        """Build a FAISS index of item embeddings; the same items and seed give the same index.

        Args:
            items: the embedding of each item of the catalogue, float32 [n_items, d].
            kind: `flat` (all items), `hnsw` (a graph) or one of `IVF_KINDS` (inverted files).
            seed: seed of the random choice of the cell centres of an inverted file.

        Raises:
            FaissNotInstalled: FAISS is not installed.
            TooFewItems: there are too few items to learn the codes of `ivf_pq` from.
            BrokenModel: an embedding holds NaN or infinity.
        """
        faiss = _faiss()
        refuse_nan(items, "item")
        items = np.ascontiguousarray(items, np.float32)
        width, product = items.shape[1], faiss.METRIC_INNER_PRODUCT
        if kind == "flat":
            index = faiss.IndexFlatIP(width)
        elif kind == "hnsw":
            index = faiss.IndexHNSWFlat(width, _LINKS, product)
            index.hnsw.efConstruction = _CONSTRUCTION
        else:
            index = empty_index(faiss, items, kind, seed)
        return cls(items[:0], kind, index).with_items(items)

    def with_items(self, items: Floats) -> Index:
        """Append item embeddings to the FAISS index in place, and return an index of all items.

        Args:
            items: the embeddings of the items to append, float32 [n_more, d].
        """
        faiss = _faiss()
        refuse_nan(items, "item")
        items = np.ascontiguousarray(items, np.float32)
        check_width(items, self.items)
        # several threads would build another graph each time
        with _threads(faiss, 1 if self.kind == "hnsw" else faiss.omp_get_max_threads()):
            for start in range(0, len(items), _ADDED):
                self.faiss.add(items[start : start + _ADDED])
        whole = np.concatenate([self.items, items]) if len(self.items) else items
        return replace(self, items=whole)

    def write(self, path: Path) -> None:
        """Write the FAISS index to a file, without item embeddings, `kind`, `effort` and `at`."""
        _faiss().write_index(self.faiss, str(path))

    @classmethod
    def read(
        cls,
        path: Path,
        items: Floats,
        kind: Kind,
        *,
        effort: int,
        at: int,
        to_grow: bool = False,
    ) -> Index:
        """Read a FAISS index from its file; a flat index has no file, and is built from embeddings.

        The cells of a large inverted file are mapped into memory: they are read from the disk when
        they are searched, and all processes of a machine share them.

        Args:
            path: the file that `write` wrote.
            items: the embedding of each item of the catalogue, float32 [n_items, d].
            kind, effort, at: attributes of the index, which the file does not hold.
            to_grow: whether items will be added to the index, so that it must be in memory.

        Raises:
            FaissNotInstalled: FAISS is not installed.
            ValueError: the file is damaged, or it indexes other items.
        """
        if kind == "flat":
            return replace(cls.build(items, kind), effort=effort, at=at)
        _faiss()
        index = index_file.read(path, kind, (len(items), items.shape[1]), to_grow=to_grow)
        return cls(items, kind, index, effort, at)

    def search(
        self,
        vectors: Floats,
        k: int,
        *,
        exclude: Ragged | None = None,
        candidates: Bools | None = None,
    ) -> TopK:
        """Return the k items with the largest dot products for each query embedding.

        Args:
            vectors: the embedding of each query, float32 [n_queries, d].
            k: number of items to return for each query.
            exclude: items to leave out, as row numbers in the item table, one list per query.
            candidates: for each item, whether it may be returned, bool [n_items]; None for all.

        Raises:
            ValueError: queries and items have different numbers of dimensions, or k < 1.
            BrokenModel: an embedding holds NaN or infinity.
        """
        check_width(vectors, self.items)
        check_k(k)
        refuse_nan(vectors, "query")
        vectors = np.ascontiguousarray(vectors, np.float32)
        exclude = Ragged.empty(len(vectors)) if exclude is None else exclude
        if candidates is not None and np.count_nonzero(candidates) <= FEW:
            return self._search_among(np.flatnonzero(candidates), vectors, k, exclude)
        top, is_certain = self.search_proposals(vectors, k, exclude=exclude, candidates=candidates)
        if (rows := np.flatnonzero(~is_certain)).size:
            found = search(
                *(vectors[rows], self.items, k),
                exclude=exclude.take(rows),
                candidates=candidates,
                norm_bound=self.norm_bound,
            )
            top.items[rows], top.scores[rows] = found
        return top

    def _search_among(self, rows: Ints, vectors: Floats, k: int, exclude: Ragged) -> TopK:
        """Return the k best of the few items that a filter leaves, by exact search."""
        if len(rows) == 0:
            return TopK.empty(len(vectors), k)
        position = np.full(len(self.items), NO_ITEM, np.int64)
        position[rows] = np.arange(len(rows))
        excluded = np.where(exclude.values >= 0, position[exclude.values], NO_ITEM)
        is_among = excluded != NO_ITEM
        exclude = Ragged.from_pairs(
            exclude.owners()[is_among], excluded[is_among], n_lists=len(exclude)
        )
        found = search(vectors, self.items[rows], k, exclude=exclude, norm_bound=self.norm_bound)
        items = np.where(found.items == NO_ITEM, NO_ITEM, rows[found.items])
        return TopK(items, found.scores)

    def search_proposals(
        self, vectors: Floats, k: int, *, exclude: Ragged, candidates: Bools | None = None
    ) -> tuple[TopK, Bools]:
        """Return lists of the items that FAISS proposes, without exact search for incomplete lists.

        Args:
            vectors, k, exclude, candidates: see `search`.

        Returns:
            The lists, and whether each list is certainly that of exact search, bool [n_queries].
        """
        top = TopK.empty(len(vectors), k)
        is_certain = np.zeros(len(vectors), bool)
        for rows, depth in self._group_by_depth(k, exclude.lengths, candidates):
            items = self._propose(vectors[rows], depth, candidates)
            found = self._rank(items, vectors[rows], k, exclude.take(rows), candidates)
            (top.items[rows], top.scores[rows]), is_certain[rows] = found
        return top, is_certain

    def _group_by_depth(
        self, k: int, n_excluded: Ints, candidates: Bools | None
    ) -> Iterator[tuple[Ints, int]]:
        """Yield groups of queries with the number of items that FAISS must propose for them.

        The number of proposals is `at` times a power of two, and depends on the query alone, so
        that a query has the same top-k list alone and in a batch. Queries that exact search would
        answer equally fast are left out.
        """
        share = 1.0
        if candidates is not None:
            share = max(1, np.count_nonzero(candidates)) / len(candidates)
        times = np.maximum(1.0, (k + n_excluded) / share / self.at)
        levels = np.ceil(np.log2(times)).astype(np.int64)
        for level in np.unique(levels):
            depth = self.at << int(level)
            if depth + _MARGIN >= len(self.items) or self._is_too_deep(depth):
                continue  # exact search takes no more time
            of_level = np.flatnonzero(levels == level)
            for start in range(0, len(of_level), _BLOCK):
                yield of_level[start : start + _BLOCK], depth

    def _effort(self, depth: int) -> int:
        return self.effort * depth // self.at

    def _is_too_deep(self, depth: int) -> bool:
        if self.kind in IVF_KINDS:
            return self._effort(depth) > max(self.effort, self.faiss.nlist // 2)
        if self.kind == "hnsw":
            return self._effort(depth) > max(self.effort, len(self.items) // 16)
        return depth > len(self.items) // 4

    def _propose(
        self, vectors: Floats, depth: int, candidates: Bools | None
    ) -> npt.NDArray[np.int64]:
        """Return the items that FAISS proposes, int64 [n_queries, n_proposed]; -1 for none."""
        faiss = _faiss()
        options = {}
        if candidates is not None:
            options["sel"] = faiss.IDSelectorBitmap(np.packbits(candidates, bitorder="little"))
        if self.kind == "hnsw":
            options["efSearch"] = self._effort(depth)
            parameters = faiss.SearchParametersHNSW(**options)
        elif self.kind in IVF_KINDS:
            options["nprobe"] = min(self._effort(depth), self.faiss.nlist)
            parameters = faiss.SearchParametersIVF(**options)
        else:
            parameters = faiss.SearchParameters(**options)
        n_proposed = min(PROPOSED.get(self.kind, 1) * depth + _MARGIN, len(self.items))
        return self.faiss.search(vectors, n_proposed, params=parameters)[1]

    def _rank(
        self,
        proposed: npt.NDArray[np.int64],
        vectors: Floats,
        k: int,
        exclude: Ragged,
        candidates: Bools | None,
    ) -> tuple[TopK, Bools]:
        """Return the top k of the items that FAISS proposed, and which lists are complete."""
        proposed = np.sort(proposed, axis=1)  # by item row, as the tie rule has it
        owners, places = np.nonzero(proposed >= 0)
        sums = dot_products(vectors, self.items, owners, proposed[owners, places])
        scores = np.full(proposed.shape, -np.inf, np.float32)
        scores[owners, places] = sums
        last = np.min(np.where(proposed >= 0, scores, np.inf), axis=1)
        if len(exclude.values):
            known = exclude.values >= 0
            is_excluded = np.isin(
                np.arange(len(vectors))[:, None] * len(self.items) + proposed,
                exclude.owners()[known] * len(self.items) + exclude.values[known],
            )
            scores[is_excluded] = -np.inf
        if candidates is not None:
            scores[~candidates[proposed]] = -np.inf
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores = np.take_along_axis(scores, order, axis=1)
        items = np.take_along_axis(proposed, order, axis=1)
        items[np.isneginf(scores)] = NO_ITEM
        slack = error_bound(vectors, self.norm_bound)
        is_certain = (items[:, -1] >= 0) & (scores[:, -1] > last + slack)
        return TopK(items, scores), is_certain


@dataclass(frozen=True)
class Ann:
    """A retriever that searches an approximate index with the stored embedding of a user.

    Attributes:
        users: the embedding of each user, float32 [n_users + 1, d]; last row: unknown users.
        index: the FAISS index of the item embeddings.
    """

    users: Floats
    index: Index

    def top_k(
        self,
        queries: Queries,
        k: int,
        *,
        exclude: Ragged | None = None,
        candidates: Bools | None = None,
    ) -> TopK:
        """Return the k best items for each query's user, by the stored embedding of the user.

        Raises:
            ValueError: a user row is outside [-1, n_users).
        """
        vectors = user_vectors(self.users, queries)
        return self.index.search(vectors, k, exclude=exclude, candidates=candidates)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise FaissNotInstalled(
            "An index of kind flat, hnsw or ivf needs FAISS, which is not installed: "
            "pip install 'merlin-two-tower[index]'."
        ) from error
    return faiss


@contextmanager
def _threads(faiss: Any, n: int) -> Iterator[None]:
    """Return a context manager that sets the number of threads with which FAISS searches."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(n)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
