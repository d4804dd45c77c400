"""Conformance tests that every retriever must pass: one function per promise, True if it is kept.

    @pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
    def test_mine_keeps(promise):
        assert promise(mine, toy.world())

A retriever that learns the groups of the toy world must also keep `finds_the_withheld`. Floating
point sums depend on the shape of the matrix product, so lists are compared up to nearly equal
scores (`same`).
"""

from __future__ import annotations

from unittest import mock

import numpy as np
from toy import Toy

import models.core.retriever
from models.core.retriever import Queries, Ragged, Retriever, TopK

RTOL, ATOL = 1e-4, 1e-6


def has_shapes_and_dtypes(retriever: Retriever, world: Toy) -> bool:
    """Return int64 rows and float32 scores, [n_queries, k], also if there are no queries."""
    shapes = []
    for queries in (world.queries, Queries(np.zeros(0, np.int64), Ragged.empty(0))):
        top = retriever.top_k(queries, 3)
        shapes.append(top.items.shape == top.scores.shape == (len(queries), 3))
        shapes.append(top.items.dtype == np.int64 and top.scores.dtype == np.float32)
    return all(shapes)


def ranks_by_score(retriever: Retriever, world: Toy) -> bool:
    """Return distinct rows of the catalogue, with falling scores."""
    top = retriever.top_k(world.queries, world.train.n_items)
    in_order = np.sort(top.items, axis=1)
    return bool(
        (in_order == np.arange(world.train.n_items)).all()
        and (np.diff(top.scores, axis=1) <= 0).all()
    )


def excludes(retriever: Retriever, world: Toy) -> bool:
    """Never return an excluded item; return all others, in the order without exclusion."""
    n_items = world.train.n_items
    seen = world.queries.histories
    everything = retriever.top_k(world.queries, n_items)
    top = retriever.top_k(world.queries, n_items, exclude=seen)
    kept = []
    for user in range(len(seen)):
        allowed = ~np.isin(everything.items[user], seen[user])
        left = TopK(everything.items[user, allowed], everything.scores[user, allowed])
        shown = top.items[user] != -1
        kept.append(same(left, TopK(top.items[user, shown], top.scores[user, shown])))
        kept.append(bool((top.scores[user, ~shown] == -np.inf).all()))
    return all(kept)


def keeps_to_candidates(retriever: Retriever, world: Toy) -> bool:
    """Return only candidates that are not excluded, all of them, in the order of all items."""
    n_items = world.train.n_items
    seen = world.queries.histories
    candidates = np.arange(n_items) % 3 != 0
    whole = retriever.top_k(world.queries, n_items, candidates=np.ones(n_items, bool))
    top = retriever.top_k(world.queries, n_items, exclude=seen, candidates=candidates)
    kept = []
    for user in range(len(seen)):
        allowed = candidates[whole.items[user]] & ~np.isin(whole.items[user], seen[user])
        left = TopK(whole.items[user, allowed], whole.scores[user, allowed])
        shown = top.items[user] != -1
        kept.append(same(left, TopK(top.items[user, shown], top.scores[user, shown])))
    return all(kept)


def pads(retriever: Retriever, world: Toy) -> bool:
    """Pad a list that is longer than the catalogue with -1 and -inf at its end."""
    n_items = world.train.n_items
    top = retriever.top_k(world.queries, n_items + 3)
    return bool(
        (top.items[:, :n_items] >= 0).all()
        and (top.items[:, n_items:] == -1).all()
        and (top.scores[:, n_items:] == -np.inf).all()
    )


def repeats(retriever: Retriever, world: Toy) -> bool:
    """Return bit-identical answers to equal queries."""
    first, second = (retriever.top_k(world.queries, 10) for _ in range(2))
    return np.array_equal(first.items, second.items) and np.array_equal(first.scores, second.scores)


def ignores_other_queries(retriever: Retriever, world: Toy) -> bool:
    """Return the same answer to a query, and its exclusions, alone as in a batch."""
    seen = world.queries.histories
    together = retriever.top_k(world.queries, world.train.n_items, exclude=seen)
    alone = []
    for i in range(0, len(world.queries), 5):
        query = world.queries.block(slice(i, i + 1))
        top = retriever.top_k(query, world.train.n_items, exclude=query.histories)
        alone.append(same(TopK(*(part[i : i + 1] for part in together)), top))
    return all(alone)


def ignores_blocks(retriever: Retriever, world: Toy) -> bool:
    """Return the same answers in one block, in blocks of three queries, and one by one."""
    n_items = world.train.n_items
    seen = world.queries.histories
    whole = retriever.top_k(world.queries, n_items, exclude=seen)
    alike = []
    for size in (1, 3 * n_items):
        with mock.patch.object(models.core.retriever, "BLOCK_SCORES", size):
            alike.append(same(whole, retriever.top_k(world.queries, n_items, exclude=seen)))
    return all(alike)


def answers_cold_users(retriever: Retriever, world: Toy) -> bool:
    """Rank the whole catalogue with finite scores for a cold-start user and an unknown user."""
    top = retriever.top_k(world.cold_queries, world.train.n_items)
    return bool((top.items >= 0).all() and np.isfinite(top.scores).all())


def finds_the_withheld(retriever: Retriever, world: Toy) -> bool:
    """Rank the withheld item first for at least 95 % of the members (if the retriever learns)."""
    top = retriever.top_k(world.queries, 1, exclude=world.queries.histories)
    return bool((top.items[:, 0] == world.targets.values).mean() >= 0.95)


PROMISES = (
    has_shapes_and_dtypes,
    ranks_by_score,
    excludes,
    keeps_to_candidates,
    pads,
    repeats,
    ignores_other_queries,
    ignores_blocks,
    answers_cold_users,
)


def same(a: TopK, b: TopK) -> bool:
    """Say whether two answers agree: nearly equal scores, and equal rows up to nearly equal scores.

    Rows may change places only within a run of nearly equal scores. Both answers must hold the
    whole catalogue, because otherwise the last run could be cut off in two ways.
    """
    if a.items.shape != b.items.shape:
        return False
    gaps_alike = np.array_equal(a.items < 0, b.items < 0)
    if not gaps_alike or not np.allclose(a.scores, b.scores, rtol=RTOL, atol=ATOL):
        return False
    return all(
        _same_runs(*rows)
        for rows in zip(
            np.atleast_2d(a.items), np.atleast_2d(b.items), np.atleast_2d(a.scores), strict=True
        )
    )


def _same_runs(a: np.ndarray, b: np.ndarray, scores: np.ndarray) -> bool:
    """Compare two lists of rows; within a run of nearly equal scores, their order is ignored."""
    shown = a >= 0
    a, b, scores = a[shown], b[shown], scores[shown]
    starts = np.flatnonzero(~np.isclose(scores[1:], scores[:-1], rtol=RTOL, atol=ATOL)) + 1
    runs = zip(np.split(a, starts), np.split(b, starts), strict=True)
    return all(set(one) == set(other) for one, other in runs)
