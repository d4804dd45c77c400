from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import models.core.exact
from models.core import tiles
from models.core.exact import Exact, search
from models.core.retriever import Queries, Ragged

N_USERS, N_ITEMS, D = 12, 30, 5


@pytest.fixture
def exact() -> Exact:
    """Whole numbers, whose sums are exact in any order: ties are ties."""
    draw = np.random.default_rng(0)
    users = draw.integers(-3, 4, size=(N_USERS + 1, D)).astype(np.float32)
    return Exact(users, draw.integers(-3, 4, size=(N_ITEMS, D)).astype(np.float32))


def ask(users: list[int]) -> Queries:
    return Queries(np.array(users, np.int64), Ragged.empty(len(users)))


def by_hand(vector: np.ndarray, items: np.ndarray, out: list[int]) -> list[int]:
    """Rank one query in Python: score down, then row up."""
    scores = [sum(float(a) * float(b) for a, b in zip(vector, item, strict=True)) for item in items]
    return sorted((i for i in range(len(items)) if i not in out), key=lambda i: (-scores[i], i))


def test_it_ranks_by_the_dot_product(exact):
    users = [3, 0, 11, 3]
    top = exact.top_k(ask(users), 7)
    assert top.items.tolist() == [by_hand(exact.users[u], exact.items, [])[:7] for u in users]
    expected = exact.users[users].astype(np.float64) @ exact.items.T.astype(np.float64)
    np.testing.assert_array_equal(top.scores, np.take_along_axis(expected, top.items, axis=1))


def test_the_exclusions_of_a_query_are_its_own(exact):
    out = [[0, 5, 7], [], list(range(N_ITEMS - 1))]
    exclude = Ragged(np.concatenate(out).astype(int), np.cumsum([0, *map(len, out)]))
    top = exact.top_k(ask([1, 1, 2]), N_ITEMS, exclude=exclude)
    for row, skipped in enumerate(out):
        expected = by_hand(exact.users[[1, 1, 2][row]], exact.items, skipped)
        assert top.items[row].tolist() == expected + [-1] * len(skipped)


def test_only_candidates_are_shown(exact):
    candidates = np.arange(N_ITEMS) % 4 == 1
    expected = by_hand(exact.users[6], exact.items, np.flatnonzero(~candidates).tolist())[:5]
    assert exact.top_k(ask([6]), 5, candidates=candidates).items.tolist() == [expected]
    by_vector = search(exact.users[6:7], exact.items, 5, candidates=candidates)
    assert by_vector.items.tolist() == [expected]


def test_an_unknown_user_has_the_last_row(exact):
    known, unknown = exact.top_k(ask([0, -1]), 5).items.tolist()
    assert unknown == by_hand(exact.users[N_USERS], exact.items, [])[:5]
    assert unknown != known


class Sizes(NamedTuple):
    """Sizes of blocks and tiles, far below those that are fast, so that a small catalogue has many.

    Attributes:
        rows: number of queries of a block.
        first: number of items of a block's first tile.
        tile: number of items of each further tile.
        sorted: number of keys that are sorted at a time.
    """

    rows: int
    first: int
    tile: int
    sorted: int = 1 << 22


def shrink(monkeypatch: pytest.MonkeyPatch, sizes: Sizes) -> None:
    monkeypatch.setattr(tiles, "_ROWS", sizes.rows)
    monkeypatch.setattr(tiles, "_FIRST", sizes.first)
    monkeypatch.setattr(tiles, "_FIRST_SCORES", 2 * sizes.first)
    monkeypatch.setattr(tiles, "_FIRST_PER_K", 1)
    monkeypatch.setattr(tiles, "_TILE", sizes.tile)
    monkeypatch.setattr(tiles, "_SCORES", 1)
    monkeypatch.setattr(tiles, "_SORTED", sizes.sorted)
    monkeypatch.setattr(tiles, "_PAIRS", 100)
    monkeypatch.setattr(models.core.exact, "_MIN_ROWS", 1)
    monkeypatch.setattr(models.core.exact, "_MIN_ITEMS", 100)
    monkeypatch.setattr(models.core.exact, "_SCORES_PER_THREAD", 1)


SIZES = [Sizes(3, 10, 7), Sizes(2, 400, 90), Sizes(20, 50, 1000, 64), Sizes(7, 2000, 1)]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("n_threads", [1, 2, 5])
def test_the_size_of_the_blocks_does_not_matter(exact, monkeypatch, sizes, n_threads):
    exclude = Ragged.from_pairs(np.arange(N_USERS), np.arange(N_USERS), n_lists=N_USERS)
    queries = ask(list(range(N_USERS)))
    expected = [by_hand(exact.users[u], exact.items, [u])[:6] for u in range(N_USERS)]
    shrink(monkeypatch, sizes)
    monkeypatch.setattr(models.core.exact, "threads", lambda: n_threads)
    assert exact.top_k(queries, 6, exclude=exclude).items.tolist() == expected
    assert search(exact.users[:-1], exact.items, 6, exclude=exclude).items.tolist() == expected


@pytest.mark.parametrize("k", [1, 20, 400, 1500])
@pytest.mark.parametrize("sizes", SIZES)
def test_a_catalogue_in_groups_and_blocks_is_ranked_as_one_matrix(monkeypatch, k, sizes):
    draw = np.random.default_rng(3)
    users, items = (draw.integers(-3, 4, size=(n, 4)).astype(np.float32) for n in (20, 1500))
    seen = draw.integers(-1, 1500, size=(20, 30))
    candidates = draw.uniform(size=1500) < 0.9
    candidates[700:900] = False  # whole tiles
    scores = users.astype(np.float64) @ items.T.astype(np.float64)
    for row, column in zip(np.repeat(np.arange(20), 30), seen.ravel(), strict=True):
        if column >= 0:
            scores[row, column] = -np.inf
    scores[:, ~candidates] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    best = np.take_along_axis(scores, order, axis=1)
    shrink(monkeypatch, sizes)
    exclude = Ragged(seen.ravel(), np.arange(0, 601, 30))
    top = search(users, items, k, exclude=exclude, candidates=candidates)
    np.testing.assert_array_equal(top.items, np.where(np.isneginf(best), -1, order))
    np.testing.assert_array_equal(top.scores, best)
    if k == 20:  # ties at the end of a list are what is hard here
        assert (np.sort(scores, axis=1)[:, -21] == best[:, -1]).any()


@pytest.mark.parametrize("falling", [True, False])
def test_items_in_the_order_of_their_scores_are_ranked_too(monkeypatch, falling):
    # in rising order, each tile holds better items than all before it, and every floor must rise
    norms = np.linspace(1, 9, 1500)[:, None]
    items = np.tile(norms[::-1] if falling else norms, (1, 3)).astype(np.float32)
    users = np.array([[1, 1, 1], [-1, -1, -1], [2, 0, 1]], np.float32)
    expected = [by_hand(user, items, [])[:9] for user in users]
    for sizes in SIZES:
        shrink(monkeypatch, sizes)
        monkeypatch.setattr(tiles, "_WAITING", 50)
        assert search(users, items, 9).items.tolist() == expected


def test_lists_do_not_tell_how_many_threads_made_them(monkeypatch):
    draw = np.random.default_rng(4)
    users, items = (draw.normal(size=(n, 16)).astype(np.float32) for n in (90, 700))
    exclude = Ragged.from_pairs(np.repeat(np.arange(90), 5), draw.integers(0, 700, 450), n_lists=90)
    made = [search(users, items, 20, exclude=exclude)]
    shrink(monkeypatch, Sizes(30, 100, 40))
    for n_threads in (1, 2, 8):  # eight threads for three blocks divide the items, too
        monkeypatch.setattr(models.core.exact, "threads", lambda n=n_threads: n)
        made.append(search(users, items, 20, exclude=exclude))
    for row in range(90):
        assert made[0].items[row].tolist() == by_hand(users[row], items, exclude[row].tolist())[:20]
    for other in made[1:]:
        np.testing.assert_array_equal(other.items, made[0].items)
        np.testing.assert_array_equal(other.scores, made[0].scores)


#: Scores of which some are equal, zeros of both signs among them.
SCORES = st.one_of(st.floats(width=32, allow_nan=False), st.sampled_from([0.0, -0.0, 1.0, -1.0]))


@given(st.lists(st.tuples(SCORES, st.integers(0, 2**32 - 1)), min_size=1, max_size=20))
def test_keys_are_in_the_order_of_the_tie_rule(pairs):
    scores = np.array([score for score, _ in pairs], np.float32)
    columns = np.array([column for _, column in pairs], np.int64)
    keys = tiles._sort_keys(scores, columns)
    order = sorted(range(len(pairs)), key=lambda i: (-float(scores[i]), columns[i]))
    assert keys[order].tolist() == sorted(keys.tolist())
    np.testing.assert_array_equal(tiles.scores_of_keys(keys), scores)


def test_vectors_are_ranked_as_the_users_they_belong_to(exact):
    users = [4, 9, -1]
    exclude = Ragged(np.array([3, 8]), np.array([0, 1, 1, 2]))
    a = exact.top_k(ask(users), 9, exclude=exclude)
    b = search(exact.users[users], exact.items, 9, exclude=exclude)
    np.testing.assert_array_equal(a.items, b.items)
    np.testing.assert_array_equal(a.scores, b.scores)


def test_items_with_the_same_embedding_keep_the_order_of_their_rows():
    # real numbers, in a catalogue that no width of a BLAS kernel divides: float32 sums do not tie
    draw = np.random.default_rng(1)
    items = np.repeat(draw.normal(size=(1, 64)).astype(np.float32), 1003, axis=0)
    users = draw.normal(size=(6, 64)).astype(np.float32)
    top = Exact(users, items).top_k(ask([0, 1, 2, 3, 4]), 1003)
    assert (top.items == np.arange(1003)).all()


def test_scores_do_not_depend_on_the_number_of_queries():
    draw = np.random.default_rng(2)
    users = draw.normal(size=(8, 64)).astype(np.float32)
    exact = Exact(users, draw.normal(size=(1003, 64)).astype(np.float32))
    together = exact.top_k(ask(list(range(7))), 1003)
    for user in range(7):
        alone = exact.top_k(ask([user]), 1003)
        np.testing.assert_array_equal(alone.items[0], together.items[user])
        np.testing.assert_array_equal(alone.scores[0], together.scores[user])


def test_a_row_that_is_not_in_the_table_is_refused(exact):
    for user in (N_USERS, -2):  # numpy would take the unknown user's row, or the last user's
        with pytest.raises(ValueError, match=rf"must lie in \[-1, 12\). Received: {user}"):
            exact.top_k(ask([0, user]), 1)


def test_widths_must_agree(exact):
    with pytest.raises(ValueError, match="Received: 4 and 5 dimensions"):
        search(np.zeros((2, 4), np.float32), exact.items, 1)
    with pytest.raises(ValueError, match="Received: 5 and 4 dimensions"):
        Exact(exact.users, np.zeros((3, 4), np.float32))
    with pytest.raises(ValueError, match=r"Received: \(0, 5\) and \(30, 5\)"):
        Exact(exact.users[:0], exact.items)


def test_broken_embeddings_are_refused(exact):
    broken = exact.items.copy()
    broken[2] = np.nan
    with pytest.raises(ValueError, match="1 of 30 item embeddings hold NaN"):
        Exact(exact.users, broken).top_k(ask([0, 1]), 3)
