from __future__ import annotations

import math
from itertools import pairwise, permutations

import numpy as np
import pytest
import toy

import models.core.evaluation_set
from models.core.config import ListRules
from models.core.evaluation_set import SELECTION_METRICS, EvaluationSet, build_evaluation_set
from models.core.retriever import BrokenModel, Interactions, Queries, Ragged, TopK, best_k
from workflows.recipe.protocol import EvaluateConfig

WORLD = toy.world()
N_ITEMS = WORLD.train.n_items


class Scorer:
    """Ranks by a table of scores, one row a user row; notes how long lists it was asked for."""

    def __init__(self, scores: np.ndarray) -> None:
        self.scores = np.asarray(scores, np.float32)
        self.asked: list[tuple[int, int]] = []

    def top_k(self, queries, k, *, exclude=None, candidates=None) -> TopK:
        self.asked.append((len(queries), k))
        return best_k(self.scores[queries.users], k, exclude=exclude, candidates=candidates)


def constant(n_users: int, n_items: int) -> Scorer:
    return Scorer(np.zeros((n_users, n_items)))


def ragged(lists: list[list[int]]) -> Ragged:
    offsets = np.cumsum([0, *map(len, lists)])
    return Ragged(np.array([value for values in lists for value in values], np.int64), offsets)


def of(
    targets: list[list[int]],
    *,
    seen: list[list[int]] | None = None,
    n_items: int = 6,
    candidates: list[int] | None = None,
) -> EvaluationSet:
    """Return an evaluation set of users 0, 1, … with these targets."""
    histories = ragged(seen or [[] for _ in targets])
    allowed = np.ones(n_items, bool) if candidates is None else np.isin(range(n_items), candidates)
    return EvaluationSet(
        queries=Queries(np.arange(len(targets)), histories),
        targets=ragged(targets),
        exclude=None if seen is None else histories,
        candidates=allowed,
        warm=histories.lengths > 0,
    )


def test_what_was_seen_without_counting_is_left_out_but_no_history() -> None:
    history = Interactions(np.array([0, 1, -2]), np.array([1, 2, 3]), None, 2, 6)
    also = Interactions(np.array([1, -2, 0, 5]), np.array([4, 5, 0, 1]), None, 2, 6)
    users, items = np.array([0, 1, -2]), np.array([2, 4, 1])
    counts = np.ones(6, np.int64)
    of_all = build_evaluation_set(
        users, items, history=history, item_counts=counts, rules=EvaluateConfig(), also_seen=also
    )
    assert of_all.queries.users.tolist() == [-1, 0, 1]
    assert [of_all.queries.histories[n].tolist() for n in range(3)] == [[3], [1], [2]]
    assert of_all.exclude is not None
    assert [of_all.exclude[n].tolist() for n in range(3)] == [[3, 5], [1, 0], [2, 4]]
    assert of_all.n_hidden() == 1  # user 1 is to get item 4, which they saw
    two = of_all.take(np.array([2, 0]))
    assert [two.seen[n].tolist() for n in range(2)] == [[2, 4], [3, 5]]
    keeping = EvaluateConfig(exclude_seen=False)
    kept = build_evaluation_set(
        users, items, history=history, item_counts=counts, rules=keeping, also_seen=also
    )
    assert kept.exclude is None
    assert kept.n_hidden() == 0


def toy_trial() -> EvaluationSet:
    return of(
        [WORLD.targets[i].tolist() for i in range(len(WORLD.members))],
        seen=[WORLD.queries.histories[i].tolist() for i in range(len(WORLD.members))],
        n_items=N_ITEMS,
    )


# ── equal scores ──


def test_a_constant_model_earns_k_of_n_and_not_what_popularity_earns():
    model = constant(len(WORLD.members), N_ITEMS)
    got = toy_trial().per_user(model, [1, 5, 10])
    n_left = N_ITEMS - 5  # each member has met five of the 25 items
    for k in (1, 5, 10):
        assert got[f"recall@{k}"] == pytest.approx([k / n_left] * len(WORLD.members))
    # its lists start with the lowest rows, the most popular ones: as they stand, they earn more
    shown = toy_trial().top_k(model, 10).items
    assert (shown[:, :1] == WORLD.targets.values[:, None]).mean() == 1 / WORLD.n_groups


def test_a_model_that_learns_earns_one_and_shows_what_it_was_asked_for():
    scores = (WORLD.user_groups[:-1, None] == WORLD.item_groups[None, :]).astype(float)
    scores[:, WORLD.cold_item] = 0.5
    ranking = toy_trial().rank(Scorer(scores), 3)
    assert ranking.items.shape == (len(WORLD.members), 3)
    assert (ranking.items[:, 0] == WORLD.targets.values).all()
    assert (ranking.ranks.before == 0).all()
    assert (ranking.ranks.tied == 1).all()


def mean_over_orders(scores: list[float], targets: list[int], out: set[int], k: int) -> dict:
    """Return recall and ndcg, averaged over all orders that the scores allow."""
    shown = [item for item in range(len(scores)) if item not in out]
    values = []
    for order in permutations(shown):
        if all(scores[a] >= scores[b] for a, b in pairwise(order)):
            hit = [item in targets for item in order[:k]]
            ideal = sum(1 / math.log2(i + 2) for i in range(min(k, len(set(targets)))))
            dcg = sum(1 / math.log2(i + 2) for i, h in enumerate(hit) if h)
            values.append((sum(hit) / len(set(targets)), dcg / ideal))
    recall, ndcg = np.mean(values, axis=0)
    return {"recall": recall, "ndcg": ndcg}


@pytest.mark.parametrize("k", [1, 2, 3])
def test_ties_are_followed_to_their_ends(k):
    scores = [[2, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0], [5, 4, 3, 2, 1, 0], [1, 1, 0, 0, 0, 0]]
    targets, seen = [[4, 0], [5], [1, 2], [3, 1, 5]], [[1], [0, 0, 2], [], [0]]
    one = of(targets, seen=seen, candidates=[0, 1, 2, 4, 5])
    model = Scorer(np.array(scores))
    got = one.per_user(model, [k])
    for user in range(4):
        out = {3, *seen[user]}
        expected = mean_over_orders(scores[user], targets[user], out, k)
        for name, value in expected.items():
            assert got[f"{name}@{k}"][user] == pytest.approx(value), (user, name)
    assert model.asked[0] == (4, 2 * k)  # only those whose run goes on are asked again
    assert sum(n for n, _ in model.asked[1:]) < 4


def test_a_run_without_an_end_in_sight_counts_against_the_model(monkeypatch):
    monkeypatch.setattr(models.core.evaluation_set, "DEEPEST", 10)
    one = of([[3], [30]], seen=[[0], []], n_items=40)
    got = one.per_user(constant(2, 40), [4])
    # user 0 may see 39 items; the ten that are followed hold no target of user 1
    assert got["recall@4"].tolist() == pytest.approx([4 / 39, 0.0])
    monkeypatch.setattr(models.core.evaluation_set, "DEEPEST", 40)
    assert one.per_user(constant(2, 40), [4])["recall@4"].tolist() == pytest.approx([4 / 39, 0.1])


def test_how_many_items_a_list_may_show():
    one = of(
        [[0], [0], [0]], seen=[[1, 1, 3, -1], [], [0, 2, 4]], n_items=6, candidates=[0, 1, 2, 5]
    )
    assert one.n_allowed().tolist() == [3, 4, 2]  # 3 and 4 are no candidates anyway
    assert of([[0]], n_items=6, candidates=[1, 2]).n_allowed().tolist() == [2]


def test_company_does_not_change_what_a_tie_is_worth():
    one = of([[4], [5], [1]], seen=[[0], [], [2]])
    model = Scorer(np.array([[1, 1, 1, 1, 1, 0], [0] * 6, [3, 2, 2, 2, 0, 0]]))
    together = one.per_user(model, [2])
    for user in range(3):
        alone = one.take(np.array([user])).per_user(model, [2])
        assert {n: v[0] for n, v in alone.items()} == {n: v[user] for n, v in together.items()}


# ── asking ──


def test_v05_seen_items_and_others_than_candidates_are_never_shown():
    one = of([[0], [5]], seen=[[5, 4], [0]], candidates=[0, 1, 4, 5])
    top = one.top_k(Scorer(np.tile(np.arange(6.0), (2, 1))), 5)
    assert top.items.tolist() == [[1, 0, -1, -1, -1], [5, 4, 1, -1, -1]]


def test_numbers_that_are_none_are_refused():
    scores = np.zeros((1, 6))
    scores[0, 3] = np.nan
    with pytest.raises(BrokenModel, match="1 of 6 scores are NaN"):
        of([[0]]).per_user(Scorer(scores), [1])

    class Unchecked:
        def top_k(self, queries, k, **_):
            return TopK(np.zeros((1, k), np.int64), np.full((1, k), np.nan, np.float32))

    with pytest.raises(BrokenModel, match="2 scores are NaN"):
        of([[0]]).per_user(Unchecked(), [1])


def test_taking_queries_takes_all_that_belongs_to_them():
    one = of([[0], [1, 2], [3]], seen=[[5], [], [4, 0]])
    few = one.take(np.array([2, 0]))
    assert few.queries.users.tolist() == [2, 0]
    assert [few.targets[i].tolist() for i in range(2)] == [[3], [0]]
    assert [few.exclude[i].tolist() for i in range(2)] == [[4, 0], [5]]
    assert [few.queries.histories[i].tolist() for i in range(2)] == [[4, 0], [5]]
    assert few.warm.tolist() == [True, True]


def test_models_are_chosen_by_the_mean_of_four_metrics():
    draw = np.random.default_rng(0)
    one = of([[int(i)] for i in draw.integers(0, 80, 30)], n_items=80)
    model = Scorer(draw.random((30, 80)))
    values = []
    for user in range(30):
        rank = 1 + int((model.scores[user] > model.scores[user, one.targets[user][0]]).sum())
        values += [rank <= 10, rank <= 20, rank <= 50]
        values.append(1 / math.log2(rank + 1) if rank <= 10 else 0.0)
    assert one.selection_score(model) == pytest.approx(np.mean(values))
    assert len(SELECTION_METRICS) == 4


# ── gathering ──

HISTORY = Interactions(
    users=np.array([1, 0, 1, -7, 1]),
    items=np.array([2, 3, 0, 4, -1]),
    times=np.arange(5),
    n_users=3,
    n_items=6,
)
COUNTS = np.array([1, 0, 1, 1, 1, 0])


def gather(**config) -> EvaluationSet:
    users, items = np.array([1, -1, 2, 1, -7]), np.array([5, 0, -1, 4, 1])
    config = EvaluateConfig(**config)
    return build_evaluation_set(users, items, history=HISTORY, item_counts=COUNTS, rules=config)


def test_a_trial_has_one_query_a_person_with_what_he_did_before():
    one = gather()
    assert one.queries.users.tolist() == [-1, -1, 1, 2]  # two strangers are two persons
    assert [one.targets[i].tolist() for i in range(4)] == [[1], [0], [5, 4], [-1]]
    assert [one.queries.histories[i].tolist() for i in range(4)] == [[4], [], [2, 0], []]
    assert one.warm.tolist() == [True, False, True, False]
    assert one.exclude is one.queries.histories
    assert one.candidates.all()


def test_a_user_asks_once_on_each_occasion():
    users, items = np.array([1, 0, 1, 1]), np.array([5, 0, 4, 3])
    contexts = {"month": np.array([7, 7, 2, 7])}
    config = EvaluateConfig()
    one = build_evaluation_set(
        users, items, history=HISTORY, item_counts=COUNTS, rules=config, contexts=contexts
    )
    assert one.queries.users.tolist() == [0, 1, 1]
    assert one.queries.contexts["month"].tolist() == [7, 2, 7]
    assert [one.targets[i].tolist() for i in range(3)] == [[0], [4], [5, 3]]
    assert [one.queries.histories[i].tolist() for i in range(3)] == [[3], [2, 0], [2, 0]]
    two = one.take(np.array([2]))
    assert two.queries.contexts["month"].tolist() == [7]


def test_rows_with_lists_ask_one_by_one():
    users, items = np.array([1, 1]), np.array([5, 4])
    lists = Ragged(np.array([3, 3]), np.array([0, 1, 2]))
    one = build_evaluation_set(
        users,
        items,
        history=HISTORY,
        item_counts=COUNTS,
        rules=EvaluateConfig(),
        contexts={"tags": lists},
    )
    assert one.queries.users.tolist() == [1, 1]
    assert [one.targets[i].tolist() for i in range(2)] == [[5], [4]]


def test_cold_candidates_are_ranked_among_themselves_for_who_has_one_as_a_target():
    users, items = np.array([1, -1, 2, 1, -7, 0]), np.array([5, 0, -1, 4, 1, 5])
    one = build_evaluation_set(
        users, items, history=HISTORY, item_counts=COUNTS, rules=ListRules(candidates="cold")
    )
    assert one.candidates.tolist() == [False, True, False, False, False, True]
    assert one.queries.users.tolist() == [-1, 0, 1]
    assert [one.targets[i].tolist() for i in range(3)] == [[1], [5], [5]]
    assert [one.queries.histories[i].tolist() for i in range(3)] == [[4], [3], [2, 0]]
    assert one.warm.tolist() == [True, True, True]
    assert one.chance(1) == 1 / 2
    assert one.chance(3) == 1
    met = np.ones(len(COUNTS), int)
    rules = ListRules(candidates="cold")
    assert not len(
        build_evaluation_set(users, items, history=HISTORY, item_counts=met, rules=rules).queries
    )


def test_chance_is_the_share_that_random_orders_find():
    one = gather(exclude_seen=False, candidates="train")  # of five targets, 0 and 4 can be found
    assert one.chance(1) == pytest.approx(2 / 5 / 4)
    assert one.chance(10) == pytest.approx(2 / 5)
    hidden = of([[0, 1], [2]], seen=[[1], [0, 0, 3]], n_items=6)
    assert hidden.chance(2) == pytest.approx((2 / 5 + 0 + 2 / 4) / 3)


def test_the_protocol_comes_from_the_configuration():
    one = gather(exclude_seen=False, candidates="train")
    assert one.exclude is None
    assert one.candidates.tolist() == [True, False, True, True, True, False]
