from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import models.core.retriever
from models.core.retriever import (
    NO_ITEM,
    Interactions,
    Queries,
    Ragged,
    best_k,
    blocks,
    require_fitted,
    top_k_by_scores,
)

quick = settings(deadline=None, database=None, max_examples=200)
INF = np.inf


def ragged(lists: list[list[int]]) -> Ragged:
    """The same lists, written by hand."""
    offsets = np.cumsum([0, *map(len, lists)])
    return Ragged(np.array([value for values in lists for value in values], np.int64), offsets)


def as_lists(lists: Ragged) -> list[list[int]]:
    return [lists[i].tolist() for i in range(len(lists))]


def naive_best_k(
    scores: list[list[float]], k: int, exclude: list[list[int]]
) -> list[list[tuple[int, float]]]:
    """Sort each row whole: score down, then row up; pad with gaps."""
    answers = []
    for row, out in zip(scores, exclude, strict=True):
        left = [(-s, i) for i, s in enumerate(row) if i not in out and s != -INF]
        best = [(i, -minus) for minus, i in sorted(left)[:k]]
        answers.append(best + [(NO_ITEM, -INF)] * (k - len(best)))
    return answers


lists_of_items = st.lists(st.lists(st.integers(0, 6), max_size=5), min_size=1, max_size=5)


# ── Ragged ──


def test_from_pairs_gathers_and_keeps_the_order_within_a_list():
    lists = Ragged.from_pairs(np.array([2, 0, 2, 0]), np.array([7, 5, 6, 5]), n_lists=4)
    assert as_lists(lists) == [[5, 5], [], [7, 6], []]
    assert lists.lengths.tolist() == [2, 0, 2, 0]
    assert lists.owners().tolist() == [0, 0, 2, 2]
    assert len(lists) == 4


@quick
@given(lists_of_items, st.lists(st.integers(-1, 4), max_size=6))
def test_take_gives_the_lists_with_these_numbers(lists, numbers):
    numbers = [n for n in numbers if n < len(lists)]
    expected = [lists[n] if n >= 0 else [] for n in numbers]
    assert as_lists(ragged(lists).take(np.array(numbers, np.int64))) == expected


def test_take_from_no_lists_gives_empty_lists():
    assert as_lists(Ragged.empty(0).take(np.array([-1, -1]))) == [[], []]


@quick
@given(lists_of_items)
def test_to_csr_holds_a_one_for_each_distinct_value(lists):
    expected = np.zeros((len(lists), 7), np.float32)
    for row, values in enumerate(lists):
        expected[row, values] = 1
    matrix = ragged(lists).to_csr(7)
    assert isinstance(matrix, sp.csr_matrix)
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix.toarray(), expected)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_to_csr_leaves_the_order_of_the_lists_alone(dtype):
    lists = Ragged(np.array([3, 1, 2, 0], dtype), np.array([0, 4], dtype))
    lists.to_csr(4)
    assert lists.values.tolist() == [3, 1, 2, 0]


def test_to_csr_leaves_out_rows_that_are_in_no_table():
    assert ragged([[-1, 1], [-1]]).to_csr(2).toarray().tolist() == [[0, 1], [0, 0]]


def test_to_csr_refuses_a_value_beyond_the_columns():
    with pytest.raises(ValueError, match="exceeds"):
        ragged([[2]]).to_csr(2)


def test_histories_are_by_user_and_oldest_first():
    log = Interactions(
        users=np.array([1, 0, 1, 1]), items=np.array([4, 2, 3, 4]), times=None, n_users=3, n_items=5
    )
    assert as_lists(log.histories()) == [[2], [4, 3, 4], []]


def test_a_block_of_queries_keeps_users_and_histories_together():
    queries = Queries(np.array([5, -1, 7]), ragged([[1], [], [2, 3]]))
    block = queries.block(slice(1, 3))
    assert block.users.tolist() == [-1, 7]
    assert as_lists(block.histories) == [[], [2, 3]]


# ── best_k ──


def test_equal_scores_go_by_row():
    top = best_k(np.array([[1.0, 3.0, 3.0, 0.0, 3.0]]), 2)
    assert top.items.tolist() == [[1, 2]]
    assert top.scores.tolist() == [[3.0, 3.0]]


def test_excluded_items_leave_gaps_and_never_come_back():
    top = best_k(np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]), 3, exclude=ragged([[2, 0], []]))
    assert top.items.tolist() == [[1, -1, -1], [2, 1, 0]]
    assert top.scores.tolist() == [[2.0, -INF, -INF], [3.0, 2.0, 1.0]]


def test_excluding_a_row_that_is_in_no_table_excludes_nothing():
    assert best_k(np.array([[1.0, 2.0]]), 2, exclude=ragged([[-1]])).items.tolist() == [[1, 0]]


def test_only_candidates_are_returned_and_those_not_excluded():
    candidates = np.array([True, False, True, True])
    top = best_k(
        np.array([[1.0, 9.0, 3.0, 3.0]] * 2), 3, exclude=ragged([[], [2]]), candidates=candidates
    )
    assert top.items.tolist() == [[2, 3, 0], [3, 0, -1]]


def test_minus_infinity_is_never_returned():
    assert best_k(np.array([[-INF, 1.0, -INF]]), 2).items.tolist() == [[1, -1]]


def test_a_list_longer_than_the_catalogue_is_padded():
    top = best_k(np.array([[1.0, 2.0]]), 4)
    assert top.items.tolist() == [[1, 0, -1, -1]]
    assert top.scores.tolist() == [[2.0, 1.0, -INF, -INF]]
    assert (top.items.dtype, top.scores.dtype) == (np.int64, np.float32)


def test_the_scores_given_are_not_changed():
    scores = np.array([[1.0, 2.0]], np.float32)
    best_k(scores, 1, exclude=ragged([[1]]))
    assert scores.tolist() == [[1.0, 2.0]]


def test_nan_scores_are_refused():
    with pytest.raises(ValueError, match="2 of 4 scores are NaN; the model is broken"):
        best_k(np.array([[np.nan, 1.0], [0.0, np.nan]]), 1)


@pytest.mark.parametrize("k", [0, -1])
def test_a_list_has_at_least_one_place(k):
    with pytest.raises(ValueError, match=f"k must be at least 1. Received: k = {k}"):
        best_k(np.zeros((1, 2)), k)


# few distinct scores, so that most rows have ties across the k-th place
rows_of_scores = st.lists(
    st.lists(st.sampled_from([-INF, -1.0, -0.0, 0.0, 0.5, 2.0]), min_size=7, max_size=7),
    min_size=1,
    max_size=5,
)


@quick
@given(rows_of_scores, st.integers(1, 9), st.data())
def test_q02_best_k_is_a_full_sort(rows, k, data):
    exclude = data.draw(
        st.lists(st.lists(st.integers(0, 6), max_size=7), min_size=len(rows), max_size=len(rows))
    )
    top = best_k(np.array(rows), k, exclude=ragged(exclude))
    expected = naive_best_k(rows, k, exclude)
    answers = zip(top.items.tolist(), top.scores.tolist(), strict=True)
    assert [list(zip(*answer, strict=True)) for answer in answers] == expected


def test_best_k_is_a_full_sort_of_many_distinct_scores():
    scores = np.random.default_rng(0).normal(size=(40, 500)).astype(np.float32)
    top = best_k(scores, 25)
    np.testing.assert_array_equal(top.items, np.argsort(-scores, axis=1, kind="stable")[:, :25])
    assert (np.take_along_axis(scores, top.items, axis=1) == top.scores).all()


# ── blocks ──


@pytest.mark.parametrize("budget", [1, 10, 25, 10_000])
def test_blocks_cover_the_queries_once_and_stay_in_budget(monkeypatch, budget):
    monkeypatch.setattr(models.core.retriever, "BLOCK_SCORES", budget)
    parts = list(blocks(7, 10))
    assert [i for part in parts for i in range(part.start, part.stop)] == list(range(7))
    assert max(part.stop - part.start for part in parts) == min(7, max(1, budget // 10))


@pytest.mark.parametrize("budget", [1, 8, 10_000])
def test_ranking_by_blocks_is_ranking_at_once(monkeypatch, budget):
    scores = np.random.default_rng(1).integers(0, 3, size=(9, 4)).astype(np.float32)
    exclude = Ragged.from_pairs(np.arange(9), np.arange(9) % 4, n_lists=9)
    queries = Queries(np.arange(9), Ragged.empty(9))
    candidates = np.array([True, True, False, True])
    whole = best_k(scores, 3, exclude=exclude, candidates=candidates)
    monkeypatch.setattr(models.core.retriever, "BLOCK_SCORES", budget)
    top = top_k_by_scores(
        lambda block: scores[block.users],
        queries,
        3,
        n_items=4,
        exclude=exclude,
        candidates=candidates,
    )
    np.testing.assert_array_equal(top.items, whole.items)
    np.testing.assert_array_equal(top.scores, whole.scores)


def test_no_queries_get_no_lists():
    nobody = Queries(np.zeros(0, np.int64), Ragged.empty(0))
    top = top_k_by_scores(lambda _: np.zeros((0, 4)), nobody, 3, n_items=4)
    assert top.items.shape == top.scores.shape == (0, 3)


def test_an_unfitted_model_says_so():
    with pytest.raises(ValueError, match="object has learnt nothing yet"):
        require_fitted(None, object())
