"""Approximate search by FAISS, for catalogues too large to score every item of.

FAISS (Douze et al. 2024) only proposes items; their order is settled by the sums and the tie rule
of `exact.py`. A query whose list could not be filled, or whose last place ties with what was
proposed last, is searched exactly, so that lists are always as long as they can be.

What is asked beyond what the index was tuned for takes more effort: a list of k after `m`
exclusions, among a share s of the catalogue, reaches as deep as the best (k + m) / s items.
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
    dot_products,
    error_bound,
    looked_through,
    refuse_nan,
    search,
    user_vectors,
)
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

Kind = Literal["flat", "hnsw", "ivf"]
KINDS: tuple[Kind, ...] = get_args(Kind)

#: Items proposed beyond what a list needs, so that rounding and ties rarely reach its end.
_MARGIN = 16
#: Items that a filter may leave to be scored one and all.
FEW = 50_000
#: Queries whose proposals are settled at a time.
_BLOCK = 1024
#: Links of an item in the graph, and candidates looked at while it is built (Malkov 2018).
_LINKS, _CONSTRUCTION = 32, 128
#: Cells of an inverted file: so many times the root of the number of items; vectors that one cell's
#: centre is learnt from, of which FAISS wants 39 at least.
_CELLS, _TO_LEARN, _AT_LEAST = 4, 40, 39


class NoFaiss(ImportError):
    """FAISS is not installed."""


@dataclass(frozen=True, eq=False)
class Index:
    """Item embeddings, and a FAISS index that proposes some of them.

    Attributes:
        items: float32 [n_items, d].
        kind: `flat` (all items), `hnsw` (a graph) or `ivf` (cells of near items).
        faiss: FAISS's index of the inner product; row i of `items` has id i.
        effort: what is looked at for a list of `at` items: cells of ivf, candidates of hnsw.
        at: list length, exclusions included, that the effort is enough for.
    """

    items: Floats
    kind: Kind
    faiss: Any
    effort: int = 16
    at: int = 100

    @cached_property
    def longest(self) -> float:
        """The length of the longest embedding."""
        return looked_through(self.items)

    @classmethod
    def build(cls, items: Floats, kind: Kind, *, seed: int = 1) -> Index:
        """Index items; the same items give the same index.

        Args:
            items: float32 [n_items, d].
            kind: the kind of the index.
            seed: the seed of the drawing of cells' centres.

        Raises:
            NoFaiss: the package is not there.
            BrokenModel: for embeddings that are no numbers.
        """
        faiss = _faiss()
        refuse_nan(items, "item")
        items = np.ascontiguousarray(items, np.float32)
        width, product = items.shape[1], faiss.METRIC_INNER_PRODUCT
        if kind == "flat":
            made = faiss.IndexFlatIP(width)
        elif kind == "hnsw":
            made = faiss.IndexHNSWFlat(width, _LINKS, product)
            made.hnsw.efConstruction = _CONSTRUCTION
        else:
            made = _cells(faiss, items, seed)
        return cls(items[:0], kind, made).added(items)

    def added(self, items: Floats) -> Index:
        """Return the index with more items behind those it has. FAISS's own index grows in place.

        Args:
            items: float32 [n_more, d].
        """
        faiss = _faiss()
        refuse_nan(items, "item")
        items = np.ascontiguousarray(items, np.float32)
        check_width(items, self.items)
        # a graph built by several threads is another one each time
        with _threads(faiss, 1 if self.kind == "hnsw" else faiss.omp_get_max_threads()):
            self.faiss.add(items)
        whole = np.concatenate([self.items, items]) if len(self.items) else items
        return replace(self, items=whole)

    def write(self, path: Path) -> None:
        """Write FAISS's index; the embeddings, `kind`, `effort` and `at` are the caller's."""
        _faiss().write_index(self.faiss, str(path))

    @classmethod
    def read(cls, path: Path, items: Floats, kind: Kind, *, effort: int, at: int) -> Index:
        """Read what `write` wrote; a flat index needs no file and is made of the embeddings.

        Raises:
            NoFaiss: the package is not there.
            ValueError: the file holds an index of other items, or a damaged one.
        """
        if kind == "flat":
            return replace(cls.build(items, kind), effort=effort, at=at)
        _faiss()
        found = index_file.read(path, kind, (len(items), items.shape[1]))
        return cls(items, kind, found, effort, at)

    def search(
        self,
        vectors: Floats,
        k: int,
        *,
        exclude: Ragged | None = None,
        candidates: Bools | None = None,
    ) -> TopK:
        """Rank the catalogue for embeddings of queries; what one gets does not hang on the others.

        Args:
            vectors: float32 [n_queries, d].
            k: list length.
            exclude: item rows to leave out, one list a query.
            candidates: the only items that may be returned, bool [n_items]; None for all.

        Raises:
            ValueError: when the two are not equally wide, and for k < 1.
            BrokenModel: for embeddings that are no numbers.
        """
        check_width(vectors, self.items)
        check_k(k)
        refuse_nan(vectors, "query")
        vectors = np.ascontiguousarray(vectors, np.float32)
        exclude = Ragged.empty(len(vectors)) if exclude is None else exclude
        if candidates is not None and np.count_nonzero(candidates) <= FEW:
            return self._among(np.flatnonzero(candidates), vectors, k, exclude)
        top, settled = self.proposed(vectors, k, exclude=exclude, candidates=candidates)
        if (rows := np.flatnonzero(~settled)).size:
            out = exclude.take(rows)
            found = search(
                *(vectors[rows], self.items, k),
                exclude=out,
                candidates=candidates,
                longest=self.longest,
            )
            top.items[rows], top.scores[rows] = found
        return top

    def _among(self, rows: Ints, vectors: Floats, k: int, exclude: Ragged) -> TopK:
        """Score all of a few items: a filter may leave those that no list would begin with."""
        if len(rows) == 0:
            return _nothing(len(vectors), k)
        place = np.full(len(self.items), NO_ITEM, np.int64)
        place[rows] = np.arange(len(rows))
        hidden = np.where(exclude.values >= 0, place[exclude.values], NO_ITEM)
        among = hidden != NO_ITEM
        out = Ragged.from_pairs(exclude.owners()[among], hidden[among], n_lists=len(exclude))
        found = search(vectors, self.items[rows], k, exclude=out, longest=self.longest)
        items = np.where(found.items == NO_ITEM, NO_ITEM, rows[found.items])
        return TopK(items, found.scores)

    def proposed(
        self, vectors: Floats, k: int, *, exclude: Ragged, candidates: Bools | None = None
    ) -> tuple[TopK, Bools]:
        """Return lists of what FAISS proposes, and which are full and beyond doubt, [n_queries].

        Args:
            vectors, k, exclude, candidates: as of `search`.
        """
        top = _nothing(len(vectors), k)
        settled = np.zeros(len(vectors), bool)
        for rows, depth in self._alike(k, exclude.lengths, candidates):
            items = self._propose(vectors[rows], depth, candidates)
            found = self._settle(items, vectors[rows], k, exclude.take(rows), candidates)
            (top.items[rows], top.scores[rows]), settled[rows] = found
        return top, settled

    def _alike(
        self, k: int, n_excluded: Ints, candidates: Bools | None
    ) -> Iterator[tuple[Ints, int]]:
        """Yield queries that need the same depth, `at` times a power of two; not the deepest ones.

        The depth is a query's own, so that it is answered alike alone and among others.
        """
        share = 1.0
        if candidates is not None:
            share = max(1, np.count_nonzero(candidates)) / len(candidates)
        times = np.maximum(1.0, (k + n_excluded) / share / self.at)
        levels = np.ceil(np.log2(times)).astype(np.int64)
        for level in np.unique(levels):
            depth = self.at << int(level)
            if depth + _MARGIN >= len(self.items) or self._is_too_deep(depth):
                continue  # a full search costs no more
            of_level = np.flatnonzero(levels == level)
            for start in range(0, len(of_level), _BLOCK):
                yield of_level[start : start + _BLOCK], depth

    def _effort(self, depth: int) -> int:
        return self.effort * depth // self.at

    def _is_too_deep(self, depth: int) -> bool:
        if self.kind == "ivf":
            return self._effort(depth) > max(self.effort, self.faiss.nlist // 2)
        if self.kind == "hnsw":
            return self._effort(depth) > max(self.effort, len(self.items) // 16)
        return depth > len(self.items) // 4

    def _propose(
        self, vectors: Floats, depth: int, candidates: Bools | None
    ) -> npt.NDArray[np.int64]:
        """Return items that may be the best, int64 [n_queries, depth + margin]; -1 for none."""
        faiss = _faiss()
        options = {}
        if candidates is not None:
            options["sel"] = faiss.IDSelectorBitmap(np.packbits(candidates, bitorder="little"))
        if self.kind == "hnsw":
            options["efSearch"] = self._effort(depth)
            parameters = faiss.SearchParametersHNSW(**options)
        elif self.kind == "ivf":
            options["nprobe"] = min(self._effort(depth), self.faiss.nlist)
            parameters = faiss.SearchParametersIVF(**options)
        else:
            parameters = faiss.SearchParameters(**options)
        return self.faiss.search(vectors, depth + _MARGIN, params=parameters)[1]

    def _settle(
        self,
        proposed: npt.NDArray[np.int64],
        vectors: Floats,
        k: int,
        exclude: Ragged,
        candidates: Bools | None,
    ) -> tuple[TopK, Bools]:
        """Rank what was proposed; say which lists are full and beyond doubt, bool [n_queries]."""
        proposed = np.sort(proposed, axis=1)  # columns in the order of item rows: the tie rule's
        owners, places = np.nonzero(proposed >= 0)
        sums = dot_products(vectors, self.items, owners, proposed[owners, places])
        scores = np.full(proposed.shape, -np.inf, np.float32)
        scores[owners, places] = sums
        last = np.min(np.where(proposed >= 0, scores, np.inf), axis=1)
        if len(exclude.values):
            known = exclude.values >= 0
            hidden = np.isin(
                np.arange(len(vectors))[:, None] * len(self.items) + proposed,
                exclude.owners()[known] * len(self.items) + exclude.values[known],
            )
            scores[hidden] = -np.inf
        if candidates is not None:
            scores[~candidates[proposed]] = -np.inf
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores = np.take_along_axis(scores, order, axis=1)
        items = np.take_along_axis(proposed, order, axis=1)
        items[np.isneginf(scores)] = NO_ITEM
        slack = error_bound(vectors, self.longest)
        settled = (items[:, -1] >= 0) & (scores[:, -1] > last + slack)
        return TopK(items, scores), settled


@dataclass(frozen=True)
class Ann:
    """Embeddings of users, and an index of the items.

    Attributes:
        users: float32 [n_users + 1, d]; the last row stands for every unknown user.
        index: the index of the items.
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
        """Rank the catalogue for each query's user; histories are not read.

        Raises:
            ValueError: for a user row outside [-1, n_users).
        """
        vectors = user_vectors(self.users, queries)
        return self.index.search(vectors, k, exclude=exclude, candidates=candidates)


def _nothing(n_queries: int, k: int) -> TopK:
    return TopK(
        np.full((n_queries, k), NO_ITEM, np.int64), np.full((n_queries, k), -np.inf, np.float32)
    )


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise NoFaiss(
            "An index of kind flat, hnsw or ivf needs FAISS, which is not installed: "
            "pip install 'merlin-two-tower[index]'."
        ) from error
    return faiss


def _cells(faiss: Any, items: Floats, seed: int) -> Any:
    """Return an empty inverted file whose cells' centres are learnt from some of the items."""
    n_cells = int(_CELLS * len(items) ** 0.5)
    n_cells = max(1, min(n_cells, len(items) // _AT_LEAST))
    width = items.shape[1]
    made = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, n_cells, faiss.METRIC_INNER_PRODUCT)
    made.cp.seed = seed
    made.cp.max_points_per_centroid = _TO_LEARN
    made.train(items)
    return made


@contextmanager
def _threads(faiss: Any, n: int) -> Iterator[None]:
    """Let FAISS use so many threads for a while."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(n)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
