from __future__ import annotations

import math
from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import models.core.retriever
from models.core import metrics
from models.core.retriever import NO_ITEM, Ragged

quick = settings(deadline=None, database=None, max_examples=150)
NAMES = ("recall", "ndcg", "mrr", "map", "hit_rate", "precision")

# rank        1   2   3   4
ITEMS = [
    [7, 3, 5, 1],  # targets 3, 1: hits at ranks 2 and 4
    [2, 8, 4, 6],  # targets 9, 0: no hit
    [5, 1, -1, -1],  # targets 5, 1, 9: hits at ranks 1 and 2, then the list runs out
    [1, 2, 3, 4],  # targets 3 and one that the catalogue does not have: hit at rank 3
]
TARGETS = [[3, 1], [9, 0], [5, 1, 9], [3, -1]]
LOG3, LOG4, LOG5 = math.log2(3), math.log2(4), math.log2(5)  # discounts of ranks 2, 3 and 4


def ragged(lists: list[list[int]]) -> Ragged:
    offsets = np.cumsum([0, *map(len, lists)])
    return Ragged(np.array([value for values in lists for value in values], np.int64), offsets)


def per_user(items: np.ndarray, targets: Ragged, ks: list[int], **options) -> dict:
    return metrics.per_user(metrics.find_ranks(items, targets, **options), targets, ks)


def measure(k: int) -> dict[str, list[float]]:
    values = per_user(np.array(ITEMS), ragged(TARGETS), [k])
    return {name: values[f"{name}@{k}"].tolist() for name in NAMES}


def naive(shown: list[int], targets: list[int], k: int) -> dict[str, float]:
    """One user, straight from the definitions."""
    n = len({t for t in targets if t >= 0}) + targets.count(-1)
    h = [item in targets and item >= 0 for item in shown[:k]]
    dcg = sum(1 / math.log2(i + 2) for i in range(k) if h[i])
    return {
        "recall": sum(h) / n,
        "ndcg": dcg / sum(1 / math.log2(i + 2) for i in range(min(n, k))),
        "mrr": next((1 / (i + 1) for i in range(k) if h[i]), 0.0),
        "map": sum(sum(h[: i + 1]) / (i + 1) for i in range(k) if h[i]) / min(n, k),
        "hit_rate": float(any(h)),
        "precision": sum(h) / k,
    }


def test_targets_are_found_in_their_places():
    none = metrics.UNRANKED
    found = metrics.find_ranks(np.array(ITEMS), ragged(TARGETS))
    # of 3, 1 | 9, 0 | 5, 1, 9 | 3, -1
    assert found.before.tolist() == [1, 3, none, none, 0, 1, none, 2, none]
    assert found.tied.tolist() == [1] * 9


def test_v02_the_table_at_4():
    got = measure(4)
    assert got["recall"] == pytest.approx([2 / 2, 0, 2 / 3, 1 / 2])
    assert got["precision"] == pytest.approx([2 / 4, 0, 2 / 4, 1 / 4])
    assert got["hit_rate"] == [1, 0, 1, 1]
    assert got["mrr"] == pytest.approx([1 / 2, 0, 1, 1 / 3])
    # precision at the hits: 1/2 at rank 2, 2/4 at rank 4 | 1 and 1 of at most 3 | 1/3 of at most 2
    assert got["map"] == pytest.approx([(1 / 2 + 2 / 4) / 2, 0, (1 + 1) / 3, (1 / 3) / 2])
    two, three = 1 + 1 / LOG3, 1 + 1 / LOG3 + 1 / LOG4  # the best list of two and of three targets
    assert got["ndcg"] == pytest.approx(
        [(1 / LOG3 + 1 / LOG5) / two, 0, (1 + 1 / LOG3) / three, (1 / LOG4) / two]
    )


def test_the_table_at_2():
    got = measure(2)
    assert got["recall"] == pytest.approx([1 / 2, 0, 2 / 3, 0])  # 2 of 3 is all that 2 places hold
    assert got["precision"] == pytest.approx([1 / 2, 0, 2 / 2, 0])
    assert got["hit_rate"] == [1, 0, 1, 0]
    assert got["mrr"] == pytest.approx([1 / 2, 0, 1, 0])
    assert got["map"] == pytest.approx(
        [(1 / 2) / 2, 0, (1 + 1) / 2, 0]
    )  # 3 targets, at most 2 hits
    assert got["ndcg"] == pytest.approx([(1 / LOG3) / (1 + 1 / LOG3), 0, 1, 0])


users_with_targets = st.lists(
    st.tuples(
        st.lists(st.integers(0, 9), min_size=0, max_size=5, unique=True),
        st.lists(st.integers(-1, 9), min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=6,
)


@quick
@given(users_with_targets, st.integers(1, 5))
def test_v02_metrics_follow_their_definitions(users, k):
    items = np.array([shown + [NO_ITEM] * (5 - len(shown)) for shown, _ in users])
    got = per_user(items, ragged([targets for _, targets in users]), [k, 5])
    for i, (_, targets) in enumerate(users):
        for name, value in naive(items[i].tolist(), targets, k).items():
            assert got[f"{name}@{k}"][i] == pytest.approx(value), name


@quick
@given(users_with_targets)
def test_metrics_stay_in_their_bounds_and_rise_with_k(users):
    items = np.array([shown + [NO_ITEM] * (5 - len(shown)) for shown, _ in users])
    got = per_user(items, ragged([targets for _, targets in users]), [1, 2, 3, 4, 5])
    assert all(((values >= 0) & (values <= 1)).all() for values in got.values())
    for name in ("recall", "mrr", "hit_rate"):
        by_k = np.stack([got[f"{name}@{k}"] for k in (1, 2, 3, 4, 5)])
        assert (np.diff(by_k, axis=0) >= 0).all(), name


def test_values_are_float64_one_a_user_and_named():
    got = per_user(np.array(ITEMS, np.int32), ragged(TARGETS), [1, 4])
    assert list(got) == [f"{name}@{k}" for k in (1, 4) for name in NAMES]
    assert all(values.dtype == np.float64 and values.shape == (4,) for values in got.values())


def test_a_perfect_list_earns_one_and_a_list_of_misses_nothing():
    perfect = per_user(np.array([[4, 2, 9]]), ragged([[2, 4]]), [2])
    assert {name: values.tolist() for name, values in perfect.items()} == {
        f"{name}@2": [1.0] for name in NAMES
    }
    misses = per_user(np.array([[5, 6, 7]]), ragged([[2, 4]]), [2])
    assert all(values.tolist() == [0.0] for values in misses.values())


def test_v03_a_target_that_the_catalogue_does_not_have_counts_and_is_never_hit():
    # the gap is -1 too and must not meet the target
    got = per_user(np.array([[3, -1], [3, -1]]), ragged([[3], [3, -1]]), [2])
    assert got["recall@2"].tolist() == [1.0, 1 / 2]
    assert got["ndcg@2"][0] == 1.0
    assert got["ndcg@2"][1] == pytest.approx(1 / (1 + 1 / LOG3))
    lost = per_user(np.array([[-1, -1], [3, -1]]), ragged([[-1, -1], [-1]]), [1, 2])
    assert all(values.tolist() == [0.0, 0.0] for values in lost.values())


def test_a_target_given_twice_counts_once_but_unknown_ones_each():
    once = metrics.distinct(ragged([[5, 3, 5], [3], [-1, 2, -1]]))
    assert once.tolist() == [True, True, False, True, True, True, True]
    got = per_user(np.array([[5, 0], [3, 0], [2, 0]]), ragged([[5, 3, 5], [3], [-1, 2, -1]]), [2])
    assert got["recall@2"] == pytest.approx([1 / 2, 1, 1 / 3])


# ── equal scores ──


def every_order(scores: list[float], targets: set[int], k: int) -> dict[str, float]:
    """Average the naive metrics over all orders that the scores allow."""
    n = len(scores)
    orders = [
        o for o in permutations(range(n)) if all(scores[a] >= scores[b] for a, b in pairwise(o))
    ]
    values = [naive(list(order), sorted(targets), k) for order in orders]
    return {name: sum(v[name] for v in values) / len(values) for name in NAMES}


@quick
@given(
    st.lists(st.integers(0, 2), min_size=6, max_size=6),
    st.sets(st.integers(0, 5), min_size=1),
    st.integers(1, 6),
)
def test_a_metric_is_its_mean_over_all_orders_of_equal_scores(scores, targets, k):
    shown = sorted(range(6), key=lambda item: -scores[item])
    falling = np.array([[scores[item] for item in shown]])
    got = per_user(np.array([shown]), ragged([sorted(targets)]), [k], scores=falling)
    for name, value in every_order(scores, targets, k).items():
        assert got[f"{name}@{k}"][0] == pytest.approx(value), name


def test_a_run_of_equal_scores_beyond_the_list_lowers_the_metrics():
    # two targets at ranks 2 and 3 of a list of 3; the last two tie with one, then with ten more
    items, scores = np.array([[7, 5, 3]] * 2), np.array([[2.0, 1.0, 1.0]] * 2)
    got = per_user(items, ragged([[5], [5]]), [2], scores=scores, beyond=np.array([1, 10]))
    assert got["recall@2"] == pytest.approx([1 / 3, 1 / 12])
    assert got["mrr@2"] == pytest.approx([1 / 3 / 2, 1 / 12 / 2])
    first = per_user(items, ragged([[7], [7]]), [2], scores=scores, beyond=np.array([1, 10]))
    assert first["recall@2"].tolist() == [1.0, 1.0]  # its score is its own


@pytest.mark.parametrize("shown", [range(40), range(39, -1, -1)])
def test_a_constant_scorer_earns_k_of_n_in_whatever_order_it_lists(shown):
    items = np.tile(np.array(shown), (40, 1))
    targets = Ragged(
        np.append(np.zeros(30, int), np.arange(10)), np.arange(41)
    )  # item 0 is popular
    got = per_user(items, targets, [1, 5, 10], scores=np.zeros((40, 40)))
    for k in (1, 5, 10):
        assert got[f"recall@{k}"] == pytest.approx([k / 40] * 40)
        assert got[f"hit_rate@{k}"] == pytest.approx([k / 40] * 40)
    assert got["mrr@10"] == pytest.approx([sum(1 / i for i in range(1, 11)) / 40] * 40)
    # the order in which it lists them would earn much more, or much less
    naive_recall = (items[:, :10] == targets.values[:, None]).any(axis=1).mean()
    assert abs(naive_recall - 10 / 40) > 0.2


def test_v01_rows_are_counted_with_their_repeats():
    found = metrics.find_ranks(np.array([[5, 3], [1, 2]]), ragged([[5, 5, 9], [2]]))
    assert metrics.hits_by_user(found, ragged([[5, 5, 9], [2]]), k=1).tolist() == [2.0, 0.0]
    assert metrics.hits_by_user(found, ragged([[5, 5, 9], [2]]), k=2).tolist() == [2.0, 1.0]
    tied = metrics.find_ranks(np.array([[5, 3]]), ragged([[3, 3]]), scores=np.ones((1, 2)))
    assert metrics.hits_by_user(tied, ragged([[3, 3]]), k=1).tolist() == [1.0]  # 1/2, twice


# ── invariances and refusals ──


def test_users_do_not_influence_each_other():
    draw = np.random.default_rng(3)
    items = np.argsort(draw.random((50, 30)), axis=1)[:, :8]
    lists = [draw.integers(-1, 30, size=draw.integers(1, 6)).tolist() for _ in range(50)]
    whole = per_user(items, ragged(lists), [5])
    order = draw.permutation(50)
    mixed = per_user(items[order], ragged([lists[i] for i in order]), [5])
    alone = per_user(items[7:8], ragged(lists[7:8]), [5])
    for name, values in whole.items():
        np.testing.assert_array_equal(mixed[name], values[order])
        assert alone[name][0] == values[7]


def test_the_order_of_targets_does_not_matter_but_that_of_items_does():
    one = per_user(np.array([[1, 2, 3]]), ragged([[3, 9]]), [3])
    other = per_user(np.array([[1, 2, 3]]), ragged([[9, 3]]), [3])
    better = per_user(np.array([[3, 2, 1]]), ragged([[3, 9]]), [3])
    assert one == other
    assert better["ndcg@3"] > one["ndcg@3"]
    assert better["recall@3"] == one["recall@3"]


def test_the_blocks_of_users_do_not_matter(monkeypatch):
    draw = np.random.default_rng(4)
    items = np.argsort(draw.random((50, 30)), axis=1)[:, :8]
    scores = -np.sort(draw.integers(0, 4, size=(50, 8)), axis=1)
    targets = ragged([draw.integers(-1, 30, size=3).tolist() for _ in range(50)])
    options = {"scores": scores, "beyond": np.arange(50)}
    whole = per_user(items, targets, [3, 5], **options)
    for size in (1, 8 * 7):
        monkeypatch.setattr(models.core.retriever, "BLOCK_SCORES", size)
        for name, values in per_user(items, targets, [3, 5], **options).items():
            np.testing.assert_array_equal(values, whole[name])


def test_item_rows_may_be_large():
    far = 3_000_000_000
    found = metrics.find_ranks(np.array([[far, 1], [1, far]]), ragged([[far], [2]]))
    assert found.before.tolist() == [0, metrics.UNRANKED]


def test_a_k_below_one_is_refused():
    with pytest.raises(ValueError, match=r"k must be at least 1. Received: k = 0"):
        per_user(np.array(ITEMS), ragged(TARGETS), [0])


def test_users_without_targets_are_refused():
    with pytest.raises(ValueError, match=r"1 of 2 users have no targets \(the first is list 1\)"):
        per_user(np.array([[1], [2]]), ragged([[1], []]), [1])


def test_lists_and_targets_must_be_as_many():
    with pytest.raises(ValueError, match="1 lists were given for 2 users"):
        per_user(np.array([[1]]), ragged([[1], [2]]), [1])


def test_a_list_that_names_an_item_twice_is_refused():
    with pytest.raises(ValueError, match=r"1 lists have an item twice \(list 1: item 4\)"):
        metrics.find_ranks(np.array([[1, 2, 3], [4, 5, 4]]), ragged([[1], [4]]))


# ── the whole catalogue ──


def test_coverage_is_the_share_of_the_catalogue_that_is_shown():
    items = np.array([[0, 1, 2], [1, 0, -1], [0, 3, 4]])
    assert metrics.coverage(items, k=1, n_items=10) == 2 / 10  # items 0 and 1
    assert metrics.coverage(items, k=3, n_items=10) == 5 / 10  # items 0 to 4; the gap is no item


def test_popularity_bias_is_the_mean_percentile():
    counts = np.array([9, 1, 5, 5])  # percentiles: .875, .125, and the two that tie .5
    assert metrics.popularity_bias(np.array([[0]]), counts, k=1) == 0.875
    assert metrics.popularity_bias(np.array([[1]]), counts, k=1) == 0.125
    assert metrics.popularity_bias(np.array([[2, 3]]), counts, k=2) == 0.5
    assert metrics.popularity_bias(np.array([[0, 1], [0, -1]]), counts, k=2) == pytest.approx(
        (0.875 + 0.125 + 0.875) / 3
    )


@quick
@given(st.lists(st.integers(0, 5), min_size=1, max_size=20))
def test_showing_the_whole_catalogue_has_no_popularity_bias(counts):
    everything = np.arange(len(counts))[None]
    bias = metrics.popularity_bias(everything, np.array(counts), k=len(counts))
    assert bias == pytest.approx(0.5)


def test_lists_without_an_item_have_no_popularity_bias():
    assert metrics.popularity_bias(np.full((2, 3), NO_ITEM), np.array([1, 2]), k=3) is None
