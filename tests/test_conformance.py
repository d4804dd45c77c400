from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import toy
from conformance import (
    PROMISES,
    answers_cold_users,
    excludes,
    finds_the_withheld,
    has_shapes_and_dtypes,
    ignores_blocks,
    ignores_other_queries,
    keeps_to_candidates,
    pads,
    ranks_by_score,
    repeats,
    same,
)

import models.core.retriever
from models.baselines.als import ALS
from models.baselines.content import Content
from models.baselines.ease import EASE
from models.baselines.item_knn import ItemKNN
from models.baselines.popularity import Popularity, RecentPopularity
from models.baselines.random import Random
from models.core.ann import KINDS, Ann, Index
from models.core.exact import Exact
from models.core.retriever import TopK, best_k

WORLD = toy.world()


def exact() -> Exact:
    """Embed each group on an axis of its own; the cold user is near all of them."""
    axes = np.eye(WORLD.n_groups, dtype=np.float32)
    users = np.vstack([axes[WORLD.user_groups[:-1]], np.full((2, WORLD.n_groups), 0.1, np.float32)])
    return Exact(users, axes[WORLD.item_groups])


LEARNERS = {
    "knn": ItemKNN(),
    "ease": EASE(),
    "ease-decay": EASE(decay=3.0),
    "als": ALS(factors=8, regularization=0.1),
    "content": Content(attributes=WORLD.attributes),
}
OTHERS = {"random": Random(), "popularity": Popularity(), "recent": RecentPopularity(days=1.0)}
FITTED = {name: model.fit(WORLD.train) for name, model in (LEARNERS | OTHERS).items()}
FITTED["exact"] = exact()
#: The kinds of indices for catalogues of any size; ivf_pq needs 256 items.
SMALL_KINDS = [kind for kind in KINDS if kind != "ivf_pq"]
for kind in SMALL_KINDS:  # so eager that it finds everything, for lists so short that it is asked
    index = replace(Index.build(exact().items, kind), effort=64, at=2)
    FITTED[f"ann-{kind}"] = Ann(exact().users, index)


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
@pytest.mark.parametrize("name", FITTED)
def test_every_retriever_keeps(name, promise):
    assert promise(FITTED[name], WORLD)


@pytest.mark.parametrize("name", [*LEARNERS, "exact", *(f"ann-{kind}" for kind in SMALL_KINDS)])
def test_learners_find_the_withheld(name):
    assert finds_the_withheld(FITTED[name], WORLD)


# ── the promises can be broken ──


@dataclass
class Broken:
    """A retriever of popular items that breaks one promise; "nothing" breaks none."""

    how: str
    calls: list[int] = field(default_factory=list)

    def top_k(self, queries, k, *, exclude=None, candidates=None):
        self.calls.append(len(queries))
        scores = np.tile(np.arange(WORLD.train.n_items, 0, -1.0), (len(queries), 1))
        if self.how == "scores by company":
            scores += np.arange(scores.shape[1]) * len(queries)
        if self.how == "scores by block":
            scores += np.arange(scores.shape[1]) * (models.core.retriever.BLOCK_SCORES < 1000) * 2
        if self.how == "scores by call":
            scores += np.arange(scores.shape[1]) * len(self.calls)
        if self.how == "no list for strangers":
            scores[queries.users == -1] = -np.inf
        if self.how == "ignores exclude":
            exclude = None
        if self.how == "ignores candidates":
            candidates = None
        top = best_k(scores, k, exclude=exclude, candidates=candidates)
        if self.how == "excludes too much" and exclude is not None:
            top = TopK(np.roll(top.items, -1, axis=1), top.scores)
        if self.how == "worst first":
            top = TopK(top.items[:, ::-1], top.scores[:, ::-1])
        if self.how == "the best twice":
            top.items[:, 1:2] = top.items[:, :1]
        if self.how == "pads with an item":
            top = TopK(np.maximum(top.items, 0), top.scores)
        if self.how == "other dtypes":
            top = TopK(top.items.astype(np.int32), top.scores)
        return top


def test_a_sound_list_of_popular_items_keeps_every_promise():
    assert all(promise(Broken("nothing"), WORLD) for promise in PROMISES)


@pytest.mark.parametrize(
    ("how", "promise"),
    [
        ("other dtypes", has_shapes_and_dtypes),
        ("worst first", ranks_by_score),
        ("the best twice", ranks_by_score),
        ("ignores exclude", excludes),
        ("excludes too much", excludes),
        ("ignores candidates", keeps_to_candidates),
        ("pads with an item", pads),
        ("scores by call", repeats),
        ("scores by company", ignores_other_queries),
        ("scores by block", ignores_blocks),
        ("no list for strangers", answers_cold_users),
        ("nothing", finds_the_withheld),
    ],
)
def test_a_broken_promise_is_seen(how, promise):
    assert not promise(Broken(how), WORLD)


def top(items: list[int], scores: list[float]) -> TopK:
    return TopK(np.array([items]), np.array([scores], np.float32))


def test_answers_are_the_same_up_to_nearly_equal_scores():
    answer = top([4, 2, 0, 1, -1], [3.0, 1.0, 1.0, 0.5, -np.inf])
    assert same(answer, top([4, 0, 2, 1, -1], [3.0, 1.0000001, 1.0, 0.5, -np.inf]))
    assert not same(answer, top([2, 4, 0, 1, -1], [3.0, 1.0, 1.0, 0.5, -np.inf]))
    assert not same(answer, top([4, 2, 0, 3, -1], [3.0, 1.0, 1.0, 0.5, -np.inf]))
    assert not same(answer, top([4, 2, 0, 1, -1], [3.0, 1.0, 1.0, 0.6, -np.inf]))
    assert not same(answer, top([4, 2, 0, 1, 3], [3.0, 1.0, 1.0, 0.5, -np.inf]))


# ── the toy world is what it says ──


def test_the_world_has_its_cold_ones_its_duplicate_and_its_tie():
    train = WORLD.train
    pairs = list(zip(train.users.tolist(), train.items.tolist(), strict=True))
    assert len(pairs) == len(set(pairs)) + 1
    assert pairs.count(pairs[-1]) == 2
    assert WORLD.user_groups[pairs[-1][0]] == 0
    assert WORLD.cold_user not in train.users
    assert WORLD.cold_item not in train.items
    assert (np.diff(train.times) > 0).all()
    met = np.bincount([item for _, item in set(pairs)], minlength=train.n_items)
    assert met.tolist() == [10] * 24 + [0]  # 12 members of a group, 2 of whom miss an item


def test_the_withheld_item_is_the_only_one_of_his_group_that_a_member_did_not_meet():
    for user, history in enumerate(WORLD.queries.histories[i] for i in range(len(WORLD.members))):
        group = set(np.flatnonzero(WORLD.item_groups == WORLD.user_groups[user]).tolist())
        assert group - set(history.tolist()) - {WORLD.cold_item} == {int(WORLD.targets[user][0])}


def test_popularity_finds_one_in_g_and_a_constant_scorer_k_in_n():
    popular = FITTED["popularity"].top_k(WORLD.queries, 1, exclude=WORLD.queries.histories)
    assert (popular.items[:, 0] == WORLD.targets.values).mean() == 1 / WORLD.n_groups
    constant = best_k(np.zeros((len(WORLD.members), WORLD.train.n_items)), 6)
    assert (constant.items == WORLD.targets.values[:, None]).any(axis=1).mean() == 6 / 24
