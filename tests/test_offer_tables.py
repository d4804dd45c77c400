"""Offers as weighted lists, and the AUC of their users, against loops and another library."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import toy_offers as toy
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from models.core.retriever import BrokenModel
from models.offers.auc import grouped_auc
from models.offers.config import OfferModel
from models.offers.judge import PairJudge
from models.offers.model import InferenceModel
from models.offers.offers import items_as_offers, offers_by_value, offers_of, positions_in
from models.offers.pairs import NoNegativesError, Pairs, Task
from models.offers.similarity import cosines, ward_order

# ── tables ──────────────────────────────────────────────────────────────────────────────


def events(n: int = 300) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    return {"a": draw.integers(3, 9, n), "b": draw.zipf(1.5, n) % 40}


def test_e21_offers_are_the_most_frequent_values_of_their_events() -> None:
    columns, top = events(), 5
    values = np.arange(3, 9)
    offers = offers_by_value("a", values, columns, top=top)
    cut = 0
    for place, value in enumerate(values):
        counts = Counter(columns["b"][columns["a"] == value].tolist())
        best = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:top]
        cut += len(counts) > top
        row = slice(*offers["b"].lists.offsets[place : place + 2])
        assert offers["b"].lists[place].tolist() == [code for code, _ in best]
        total = sum(n for _, n in best)
        np.testing.assert_allclose(offers["b"].weights[row], [n / total for _, n in best])
        assert offers["a"].lists[place].tolist() == [value]
    assert cut, "some lists must be cut"


@given(st.lists(st.tuples(st.integers(-1, 4), st.integers(0, 6)), max_size=60), st.integers(1, 4))
def test_e21_weights_sum_to_one_and_lists_are_short(rows: list[tuple[int, int]], top: int) -> None:
    groups = np.array([g for g, _ in rows], np.int64)
    codes = np.array([c for _, c in rows], np.int64)
    found = offers_of(groups, {"b": codes}, n_offers=5, top=top)["b"]
    assert len(found.lists) == 5
    sums = np.bincount(found.lists.owners(), found.weights, minlength=5)
    has_events = np.isin(np.arange(5), groups)
    np.testing.assert_allclose(sums, has_events.astype(float), atol=1e-6)
    assert found.lists.lengths.max(initial=0) <= top
    assert (found.weights > 0).all()


def test_e21_of_251_values_250_are_kept_and_one_event_weighs_one() -> None:
    columns = {"a": np.array([1] * 251 + [2]), "b": np.arange(252)}
    found = offers_by_value("a", np.array([1, 2, 3]), columns, top=250)["b"]
    assert found.lists.lengths.tolist() == [250, 1, 0]
    assert found.weights[250] == 1
    assert found.weights[:250].sum() == pytest.approx(1)


def test_places_are_minus_one_where_there_is_none() -> None:
    assert positions_in(np.array([5, 1, 9, 3]), np.array([3, 5])).tolist() == [1, -1, -1, 0]
    assert positions_in(np.array([5]), np.array([], int)).tolist() == [-1]


# ── AUC ─────────────────────────────────────────────────────────────────────────────────


def test_v06_auc_of_each_group_is_that_of_mann_and_whitney() -> None:
    draw = np.random.default_rng(0)
    groups = draw.integers(0, 6, 400)
    positive = draw.random(400) < 0.3
    scores = draw.integers(0, 12, 400) + 2.0 * positive  # many ties
    found = grouped_auc(groups, scores, positive, n_groups=6)
    for group in range(6):
        mine = groups == group
        yes, no = scores[mine & positive], scores[mine & ~positive]
        wins = mannwhitneyu(yes, no).statistic  # counts a tie as a half
        assert found.auc[group] == pytest.approx(wins / (len(yes) * len(no)), abs=1e-12)
        assert (found.positives[group], found.negatives[group]) == (len(yes), len(no))
    assert np.ptp(found.auc) > 0.02, "groups must differ"


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.booleans()), max_size=50),
)
def test_v06_auc_is_that_of_a_loop_over_pairs(rows: list[tuple[int, int, bool]]) -> None:
    groups = np.array([g for g, _, _ in rows], np.int64)
    scores = np.array([s for _, s, _ in rows], np.float64)
    positive = np.array([p for _, _, p in rows], bool)
    found = grouped_auc(groups, scores, positive, n_groups=4)
    for group in range(4):
        pairs = [
            (a > b) + (a == b) / 2
            for a, p in zip(scores[groups == group], positive[groups == group], strict=True)
            for b, q in zip(scores[groups == group], positive[groups == group], strict=True)
            if p and not q
        ]
        assert found.auc[group] == pytest.approx(np.mean(pairs) if pairs else np.nan, nan_ok=True)


def test_v06_the_mean_is_weighted_and_bands_open_below_and_close_above() -> None:
    groups = np.repeat([0, 1, 2, 3], [4, 3, 2, 3])
    positive = np.array([1, 1, 0, 0, 1, 0, 0, 1, 1, 1, 1, 0], bool)
    scores = np.array([2, 2, 1, 1, 1, 2, 1, 5, 5, 3, 1, 2], float)
    # by hand: AUC 1 of two positives, 1/4 of one, none (no negative) of two, 1/2 of two
    found = grouped_auc(groups, scores, positive, n_groups=4)
    np.testing.assert_array_equal(found.auc, [1, 0.25, np.nan, 0.5])
    mean = found.mean()
    assert (mean.groups, mean.positives, mean.one_class) == (3, 5, 1)
    assert mean.mean == pytest.approx((1 * 2 + 0.25 * 1 + 0.5 * 2) / 5)
    assert found.mean(low=1).mean == pytest.approx(0.75)
    assert found.mean(low=0, high=1).mean == pytest.approx(0.25)
    assert found.mean(low=2).groups == 0


def test_v06_a_constant_scorer_earns_a_half() -> None:
    positive = np.arange(40) % 5 == 0
    found = grouped_auc(np.arange(40) % 3, np.zeros(40), positive, n_groups=3)
    assert (found.auc == 0.5).all()


def test_v06_pairs_of_the_same_offer_are_no_negatives() -> None:
    keys = np.array([0, 0, 1, -1, 2, 1])  # two mini-batches of three
    pairs = Pairs({"a": keys}, np.arange(6), 3)
    task = Task(keys, {}, 3)
    scores = np.arange(18, dtype=float).reshape(2, 3, 3)
    found = pairs.auc(task, scores)
    # offer 0: its two events' own pairs, and user 2 with both; users 0 and 1 with each other not.
    # offer 1: own in each mini-batch, users 0, 1 and users 3, 4; offer 2: own, users 3 and 5.
    # the event without an offer is a user, but nobody's offer
    assert found.positives.tolist() == [2, 2, 1]
    assert found.negatives.tolist() == [2, 4, 2]


def test_v06_another_event_of_the_same_user_is_no_negative() -> None:
    keys, users = np.array([0, 1, 2, 0, 1, 2]), np.array([7, 7, 8, -1, -2, -1])
    scores = np.arange(18, dtype=float).reshape(2, 3, 3)
    found = Pairs({"a": keys}, users, 3).auc(Task(keys, {}, 3), scores)
    # of 12 pairs with another event, two are of user 7 and two of user -1, who is in no table
    assert found.positives.tolist() == [2, 2, 2]
    assert found.negatives.tolist() == [2, 3, 3]
    apart = Pairs({"a": keys}, np.arange(6), 3).auc(Task(keys, {}, 3), scores)
    assert apart.negatives.tolist() == [4, 4, 4], "the control: users of their own"


def test_events_without_a_negative_are_refused() -> None:
    of_one = Pairs({"item": np.arange(6)}, np.zeros(6, int), 3)
    same_item = Pairs({"item": np.zeros(6, int)}, np.arange(6), 3)
    for pairs in (of_one, same_item):
        with pytest.raises(NoNegativesError, match="its 6 events, in mini-batches of 3, pair no"):
            PairJudge(pairs, "item")
    assert PairJudge(Pairs({"item": np.arange(6)}, np.arange(6), 3), "item").names == ("val_auc",)


def test_scores_that_are_no_numbers_are_refused() -> None:
    broken = toy.model(OfferModel(group_by=False, mask_net=False))
    broken.set_weights([np.full_like(weight, np.nan) for weight in broken.get_weights()])
    judge = PairJudge(Pairs(toy.events(20), np.arange(20), 5), "item")
    with pytest.raises(BrokenModel, match="100 scores are NaN"):
        judge.measure(broken)


def test_v07_tasks_are_scored_as_one_by_one() -> None:
    columns = toy.events(45, seed=2)
    asked = InferenceModel(toy.built(True, True, True))
    pairs = Pairs(columns, np.arange(45), 5)
    kinds = np.unique(columns["kind"])
    offers = offers_by_value("kind", kinds, {n: columns[n] for n in ("item", "kind")}, top=3)
    tasks = {
        "kind": Task(positions_in(columns["kind"], kinds), offers, len(kinds)),
        "item": Task(np.arange(45), items_as_offers({n: columns[n] for n in ("item", "kind")}), 45),
    }
    found = pairs.scores(asked, tasks)
    assert pairs.scores(asked, {"kind": tasks["kind"]})["kind"].tolist() == found["kind"].tolist()
    users, vectors = asked.users(columns), asked.offers(offers)
    for g, i, j in [(0, 0, 0), (3, 4, 1), (8, 2, 3)]:
        offer = vectors[tasks["kind"].keys[5 * g + j]]
        alone = asked.score(users[None, 5 * g + i : 5 * g + i + 1], offer[None, None])
        assert found["kind"][g, i, j] == pytest.approx(float(alone[0, 0, 0]), abs=1e-5)


# ── similar offers ──────────────────────────────────────────────────────────────────────


def test_x06_cosines_are_symmetric_with_a_diagonal_of_one() -> None:
    vectors = np.random.default_rng(0).normal(size=(9, 3, 5))
    matrix = cosines(vectors)
    np.testing.assert_array_equal(matrix, matrix.T)
    np.testing.assert_array_equal(np.diag(matrix), 1)
    rows = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in vectors]
    hand = (rows[2] * rows[7]).sum() / 3
    assert matrix[2, 7] == pytest.approx(hand)
    np.testing.assert_allclose(cosines(vectors * np.array([[[1], [10], [100]]])), matrix)


def test_x06_wards_order_is_a_permutation_that_puts_like_beside_like() -> None:
    draw = np.random.default_rng(0)
    group = draw.permutation(np.arange(12) % 3)
    vectors = np.eye(3)[group] + 0.1 * draw.normal(size=(12, 3))
    order = ward_order(cosines(vectors))
    assert sorted(order) == list(range(12))
    assert (np.diff(group[order]) != 0).sum() == 2, "three groups have two borders"
