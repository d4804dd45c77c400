from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import toy
from implicit.cpu.als import AlternatingLeastSquares
from threadpoolctl import threadpool_limits

import models.baselines.cost
import models.baselines.random
import models.core.retriever
from models.baselines.als import ALS
from models.baselines.content import Content
from models.baselines.ease import EASE
from models.baselines.item_knn import ItemKNN
from models.baselines.popularity import Popularity, RecentPopularity
from models.baselines.random import Random
from models.core.retriever import Interactions, Queries, Ragged

N_USERS, N_ITEMS = 40, 15
DAY = 86_400


def log(*, seed: int = 0, n: int = 260) -> Interactions:
    """A log with repeats, a skewed catalogue and an item (the last) that nobody met."""
    draw = np.random.default_rng(seed)
    chances = np.append(1 / np.arange(1, N_ITEMS), 0)
    return Interactions(
        users=draw.integers(0, N_USERS, size=n),
        items=draw.choice(N_ITEMS, size=n, p=chances / chances.sum()),
        times=np.sort(draw.integers(0, 30 * DAY, size=n)),
        n_users=N_USERS,
        n_items=N_ITEMS,
    )


TRAIN = log()
X = np.zeros((N_USERS, N_ITEMS))
X[TRAIN.users, TRAIN.items] = 1
# histories that the models were not fitted on: with a repeat, empty, with one item, the whole shop
ASKED = [[3, 0, 7, 3], [], [14], list(range(N_ITEMS)), [1, 2]]


def ask(histories: list[list[int]], users: list[int] | None = None) -> Queries:
    values = [item for history in histories for item in history]
    offsets = np.cumsum([0, *map(len, histories)])
    rows = np.full(len(histories), -1) if users is None else np.array(users)
    return Queries(rows, Ragged(np.array(values, np.int64), offsets))


def as_scores(top) -> np.ndarray:
    """Lay a ranking of the whole catalogue out by item row, float32 [n_queries, n_items]."""
    scores = np.empty_like(top.scores)
    np.put_along_axis(scores, top.items, top.scores, axis=1)
    return scores


def binary(histories: list[list[int]]) -> np.ndarray:
    rows = np.zeros((len(histories), N_ITEMS))
    for row, history in enumerate(histories):
        rows[row, history] = 1
    return rows


# ── random ──


def test_the_hash_is_splitmix64():
    # the first numbers of its reference implementation from state 0
    step = 0x9E3779B97F4A7C15
    states = np.array([step, 2 * step % 2**64], np.uint64)
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]
    assert models.baselines.random._mix(states).tolist() == expected


def test_random_lists_show_every_item_equally_often_at_every_rank():
    n_users = 6000
    model = Random(seed=1).fit(TRAIN)
    top = model.top_k(Queries(np.arange(n_users), Ragged.empty(n_users)), N_ITEMS)
    for rank in (0, 7, 14):
        shown = np.bincount(top.items[:, rank], minlength=N_ITEMS)
        expected = n_users / N_ITEMS
        chi_square = ((shown - expected) ** 2 / expected).sum()
        assert chi_square < 36.1  # the 99.9 % point with 14 degrees of freedom


def test_random_scores_are_uniform_and_not_correlated():
    model = Random(seed=2).fit(replace(TRAIN, n_items=3000))
    scores = model.score(ask([[]] * 300, list(range(300)))).astype(np.float64)
    assert scores.mean() == pytest.approx(0.5, abs=0.002)
    assert np.sort(scores.ravel())[::9000] == pytest.approx(np.arange(100) / 100, abs=0.003)
    users = np.corrcoef(scores)[np.triu_indices(300, 1)]
    assert abs(users).max() < 6 / math.sqrt(3000)
    items = np.corrcoef(scores[:, :200].T)[np.triu_indices(200, 1)]
    assert abs(items).max() < 6 / math.sqrt(300)


def test_a_random_list_belongs_to_the_seed_and_the_user():
    ten = ask([[]] * 10, list(range(10)))
    first = Random(seed=0).fit(TRAIN).top_k(ten, N_ITEMS).items
    assert (Random(seed=0).fit(log(seed=9)).top_k(ten, N_ITEMS).items == first).all()
    assert (Random(seed=1).fit(TRAIN).top_k(ten, N_ITEMS).items != first).any(axis=1).all()
    mixed = Random(seed=0).fit(TRAIN).top_k(ask([[1], [], [2]], [7, -1, 2]), N_ITEMS).items
    assert mixed[[0, 2]].tolist() == first[[7, 2]].tolist()
    assert not (mixed[1] == first).all(axis=1).any()


# ── popularity ──


def small(times: list[int] | None) -> Interactions:
    return Interactions(
        users=np.array([0, 0, 1, 1, 2]),
        items=np.array([1, 1, 2, 1, 3]),
        times=None if times is None else np.array(times),
        n_users=3,
        n_items=5,
    )


def test_popularity_counts_every_interaction_and_ties_go_by_row():
    model = Popularity().fit(small(None))
    top = model.top_k(ask([[]]), 5)
    assert top.items.tolist() == [[1, 2, 3, 0, 4]]
    assert top.scores.tolist() == [[3, 1, 1, 0, 0]]


def test_recent_popularity_forgets_by_age():
    model = RecentPopularity(days=2.0).fit(small([0, DAY, 5 * DAY, 5 * DAY, 6 * DAY]))
    top = model.top_k(ask([[]]), 5)
    # ages in days: item 1 has 6, 5 and 1; item 2 has 1; item 3 has 0
    one = math.exp(-6 / 2) + math.exp(-5 / 2) + math.exp(-1 / 2)
    assert top.items.tolist() == [[3, 1, 2, 0, 4]]
    assert top.scores[0] == pytest.approx([1, one, math.exp(-1 / 2), 0, 0])


def test_recent_popularity_with_a_long_memory_is_popularity():
    recent = RecentPopularity(days=1e9).fit(TRAIN).top_k(ask([[]]), N_ITEMS)
    assert recent.items.tolist() == Popularity().fit(TRAIN).top_k(ask([[]]), N_ITEMS).items.tolist()


def test_recent_popularity_needs_times_and_a_positive_memory():
    with pytest.raises(ValueError, match="RecentPopularity needs times; this data has none"):
        RecentPopularity().fit(small(None))
    with pytest.raises(ValueError, match="days must be above 0"):
        RecentPopularity(days=0)


# ── item-kNN ──


def naive_similarities(neighbours: int) -> np.ndarray:
    """Cosine, item by item: the best neighbours of a row stay, ties by row."""
    kept = np.zeros((N_ITEMS, N_ITEMS))
    for i in range(N_ITEMS):
        cosines = {}
        for j in range(N_ITEMS):
            norm = math.sqrt(X[:, i].sum() * X[:, j].sum())
            if j != i and norm and X[:, i] @ X[:, j]:
                cosines[j] = X[:, i] @ X[:, j] / norm
        for j in sorted(cosines, key=lambda j: (-np.float32(cosines[j]), j))[:neighbours]:
            kept[i, j] = cosines[j]
    return kept


@pytest.mark.parametrize("neighbours", [1, 4, 99])
def test_knn_sums_the_cosines_of_the_history(neighbours):
    model = ItemKNN(neighbours=neighbours).fit(TRAIN)
    expected = binary(ASKED) @ naive_similarities(neighbours)
    got = as_scores(model.top_k(ask(ASKED), N_ITEMS))
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_knn_keeps_so_many_neighbours_and_never_the_item_itself():
    similarities = ItemKNN(neighbours=4).fit(TRAIN).similarities
    assert similarities.getnnz(axis=1).tolist() == [4] * (N_ITEMS - 1) + [0]  # nobody met the last
    assert not similarities.diagonal().any()


def test_the_blocks_of_the_fit_do_not_matter(monkeypatch):
    knn, ease = ItemKNN(neighbours=3).fit(TRAIN), EASE().fit(TRAIN)
    monkeypatch.setattr(models.core.retriever, "BLOCK_SCORES", 4 * N_ITEMS)
    assert (ItemKNN(neighbours=3).fit(TRAIN).similarities != knn.similarities).nnz == 0
    np.testing.assert_array_equal(EASE().fit(TRAIN).learnt.weights, ease.learnt.weights)


def test_knn_needs_a_neighbour():
    with pytest.raises(ValueError, match="neighbours must be at least 1"):
        ItemKNN(neighbours=0)


# ── EASE ──


def naive_ease(regularization: float) -> np.ndarray:
    """Solve the ridge regression of each item on all the others, one by one."""
    weights = np.zeros((N_ITEMS, N_ITEMS))
    for j in range(N_ITEMS):
        others = np.arange(N_ITEMS) != j
        left = X[:, others].T @ X[:, others] + regularization * np.eye(N_ITEMS - 1)
        weights[others, j] = np.linalg.solve(left, X[:, others].T @ X[:, j])
    return weights


@pytest.mark.parametrize("regularization", [0.5, 100.0])
def test_ease_is_the_constrained_least_squares_solution(regularization):
    model = EASE(regularization=regularization).fit(TRAIN)
    expected = naive_ease(regularization)
    np.testing.assert_allclose(model.learnt.weights, expected, rtol=1e-4, atol=1e-7)
    got = as_scores(model.top_k(ask(ASKED), N_ITEMS))
    np.testing.assert_allclose(got, binary(ASKED) @ expected, rtol=1e-4, atol=1e-6)


def test_decay_weighs_the_latest_most_and_leaves_the_fit_alone():
    plain, decayed = EASE(regularization=5.0).fit(TRAIN), EASE(regularization=5.0, decay=2.0)
    decayed = decayed.fit(TRAIN)
    np.testing.assert_array_equal(plain.learnt.weights, decayed.learnt.weights)
    x = np.zeros((len(ASKED), N_ITEMS))
    for row, history in enumerate(ASKED):
        for position, item in enumerate(reversed(history)):
            x[row, item] = max(x[row, item], math.exp(-position / 2))
    assert x[0, [3, 7, 0]] == pytest.approx([1, math.exp(-1 / 2), math.exp(-1)])
    got = as_scores(decayed.top_k(ask(ASKED), N_ITEMS))
    np.testing.assert_allclose(got, x @ naive_ease(5.0), rtol=1e-4, atol=1e-6)


def test_decay_sees_the_order_of_a_history_and_plain_ease_does_not():
    there, back = ask([[0, 1, 2]]), ask([[2, 1, 0]])
    plain, decayed = EASE().fit(TRAIN), EASE(decay=1.0).fit(TRAIN)
    assert (plain.score(there) == plain.score(back)).all()
    assert (decayed.score(there) != decayed.score(back)).any()


def test_an_item_that_is_in_no_table_takes_a_position_but_has_no_score():
    model = EASE(decay=2.0).fit(TRAIN)
    known = model.score(ask([[N_ITEMS - 2], [0]]))
    np.testing.assert_allclose(
        model.score(ask([[N_ITEMS - 2, -1], [-1, 0]])),
        known * np.float32([[math.exp(-1 / 2)], [1]]),
        rtol=1e-6,
    )


def test_ease_refuses_what_does_not_fit_in_memory(monkeypatch):
    monkeypatch.setattr(models.baselines.cost, "available_memory", lambda: 5_000)
    with pytest.raises(ValueError, match=r"15 items: it would take .* of memory are free"):
        EASE().fit(TRAIN)  # 24 bytes for each of 15 x 15 pairs
    monkeypatch.setattr(models.baselines.cost, "available_memory", lambda: 5_500)
    EASE().fit(TRAIN)


def test_ease_needs_positive_numbers():
    with pytest.raises(ValueError, match="regularization must be above 0"):
        EASE(regularization=0)
    with pytest.raises(ValueError, match="Received: decay = -1"):
        EASE(decay=-1)


# ── ALS ──


def solve(matrix: np.ndarray, factors: np.ndarray, model: ALS) -> np.ndarray:
    """Solve equation 4 of Hu, Koren and Volinsky for each row: confidence alpha if met, else 1."""
    solved = np.zeros((len(matrix), factors.shape[1]))
    for row, met in enumerate(matrix):
        confidence = np.where(met > 0, model.alpha, 1.0)
        left = factors.T @ (confidence[:, None] * factors)
        left += model.regularization * np.eye(factors.shape[1])
        solved[row] = np.linalg.solve(left, factors.T @ (confidence * (met > 0)))
    return solved


@pytest.mark.parametrize("alpha", [1.0, 5.0])
def test_als_solves_the_user_from_the_history_of_the_query(alpha):
    model = ALS(factors=4, regularization=0.5, alpha=alpha).fit(TRAIN)
    factors = model.item_factors.astype(np.float64)
    expected = solve(binary(ASKED), factors, model) @ factors.T
    got = as_scores(model.top_k(ask(ASKED), N_ITEMS))
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-5)


def test_als_converges_to_where_neither_side_moves():
    model = ALS(factors=3, regularization=2.0, alpha=3.0, iterations=300).fit(TRAIN)
    items = model.item_factors.astype(np.float64)
    np.testing.assert_allclose(solve(X.T, solve(X, items, model), model), items, atol=2e-3)
    early = replace(model, iterations=1, item_factors=None).fit(TRAIN).item_factors
    assert abs(solve(X.T, solve(X, early.astype(float), model), model) - early).max() > 0.05


def test_als_lists_are_those_of_the_library():
    model = ALS(factors=4, seed=3).fit(TRAIN)
    histories = TRAIN.histories()
    with threadpool_limits(1, user_api="blas"):
        library = AlternatingLeastSquares(
            factors=4, regularization=1.0, alpha=2.0, random_state=3, num_threads=1
        )
        library.fit(sp.csr_matrix(X, dtype=np.float32), show_progress=False)
        users = np.arange(N_USERS)
        rows = sp.csr_matrix(X, dtype=np.float32)
        items, scores = library.recommend(users, rows, N=3, recalculate_user=True)
    top = model.top_k(Queries(users, histories), 3, exclude=histories)
    full = X.sum(axis=1) <= N_ITEMS - 3  # users who have met nearly everything have shorter lists
    assert full.sum() > 30
    np.testing.assert_array_equal(top.items[full], items[full])
    np.testing.assert_allclose(top.scores[full], scores[full], rtol=1e-4)


def test_als_learns_the_same_from_the_same_seed():
    first = ALS(seed=4).fit(TRAIN).item_factors
    assert (ALS(seed=4).fit(TRAIN).item_factors == first).all()
    assert (ALS(seed=5).fit(TRAIN).item_factors != first).any()


# ── content ──

ATTRIBUTES = np.random.default_rng(5).integers(0, 2, size=(N_ITEMS, 4)).astype(np.float32)


def test_content_ranks_by_attributes_then_popularity_then_row():
    model = Content(attributes=sp.csr_matrix(ATTRIBUTES)).fit(TRAIN)
    counts = np.bincount(TRAIN.items, minlength=N_ITEMS)
    top = model.top_k(ask(ASKED), N_ITEMS)
    for row, history in enumerate(ASKED):
        vectors = ATTRIBUTES[sorted(set(history))]
        user = vectors.mean(axis=0) if history else np.zeros(4)
        scores = [round(float(user @ item), 5) for item in ATTRIBUTES]
        order = sorted(range(N_ITEMS), key=lambda i: (-scores[i], -counts[i], i))
        assert top.items[row].tolist() == order
        assert top.scores[row] == pytest.approx([scores[i] for i in order], abs=1e-5)
    assert len(set(top.scores[0].tolist())) < N_ITEMS / 2  # most places were decided by popularity


def test_content_ties_do_not_depend_on_rounding():
    # nine items of a third each: sums in another order would differ in the last bit
    attributes = sp.csr_matrix(np.tile(np.eye(3, dtype=np.float32), (5, 1)))
    model = Content(attributes=attributes).fit(TRAIN)
    top = model.top_k(ask([[0, 1, 2]]), N_ITEMS)
    assert set(top.scores[0].tolist()) == {np.float32(1) / np.float32(3)}
    assert (
        top.items[0].tolist() == Popularity().fit(TRAIN).top_k(ask([[]]), N_ITEMS).items[0].tolist()
    )


def test_content_excludes_by_row_and_ignores_rows_in_no_table():
    model = Content(attributes=sp.csr_matrix(ATTRIBUTES)).fit(TRAIN)
    whole = model.top_k(ask([[3]]), N_ITEMS).items[0]
    # the last item stays in: it is what numpy would take for row -1
    out = whole[whole != N_ITEMS - 1][[0, 5]]
    exclude = Ragged(np.array([out[0], -1, out[1]]), np.array([0, 3]))
    top = model.top_k(ask([[3]]), N_ITEMS, exclude=exclude)
    assert top.items[0].tolist() == [*whole[~np.isin(whole, out)], -1, -1]
    assert (top.scores[0, -2:] == -np.inf).all()


def test_content_reaches_an_item_that_nobody_met():
    world = toy.world()
    model = Content(attributes=world.attributes).fit(world.train)
    top = model.top_k(world.queries, 2, exclude=world.queries.histories)
    first_group = world.user_groups[world.members] == 0
    assert (top.items[first_group, 0] == world.targets.values[first_group]).all()
    assert (top.items[first_group, 1] == world.cold_item).all()  # the same score, but never met


def test_content_needs_a_row_of_attributes_for_each_item():
    with pytest.raises(ValueError, match="attributes has 3 rows for 15 items"):
        Content(attributes=sp.csr_matrix(ATTRIBUTES[:3])).fit(TRAIN)


# ── all of them ──

MODELS = {
    "random": Random(),
    "popularity": Popularity(),
    "recent": RecentPopularity(),
    "knn": ItemKNN(),
    "ease": EASE(),
    "ease-decay": EASE(decay=3.0),
    "als": ALS(factors=4),
    "content": Content(attributes=sp.csr_matrix(ATTRIBUTES)),
}
BY_HISTORY = ["knn", "ease", "ease-decay", "als", "content"]


@pytest.mark.parametrize("name", MODELS)
def test_fit_leaves_the_model_it_came_from_unfitted(name):
    model = MODELS[name]
    fitted = model.fit(TRAIN)
    assert fitted == model  # the hyper-parameters
    fitted.top_k(ask(ASKED), 3)
    with pytest.raises(ValueError, match=f"{type(model).__name__} has learnt nothing yet"):
        model.top_k(ask(ASKED), 3)


@pytest.mark.parametrize("name", BY_HISTORY)
def test_scores_come_from_the_history_asked_with_and_not_from_the_user(name):
    model = MODELS[name].fit(TRAIN)
    histories = [TRAIN.histories()[0].tolist(), [6], [6], [6, 9]]
    top = model.top_k(ask(histories, [0, 0, 1, 0]), N_ITEMS)
    assert (top.scores[1] == top.scores[2]).all()
    assert (top.items[1] == top.items[2]).all()
    assert (top.scores[0] != top.scores[1]).any()
    assert (top.scores[3] != top.scores[1]).any()


@pytest.mark.parametrize("name", ["knn", "ease", "als"])
def test_a_repeated_interaction_counts_once(name):
    again = np.append(np.arange(len(TRAIN.users)), [5, 5, 17])
    users, items = TRAIN.users[again], TRAIN.items[again]
    twice = replace(TRAIN, users=users, items=items, times=None)
    once = MODELS[name].fit(TRAIN).score(ask(ASKED))
    np.testing.assert_array_equal(MODELS[name].fit(twice).score(ask(ASKED)), once)


@pytest.mark.parametrize("name", MODELS)
def test_the_order_of_the_log_does_not_matter_to_the_fit(name):
    order = np.random.default_rng(1).permutation(len(TRAIN.users))
    users, items, times = TRAIN.users[order], TRAIN.items[order], TRAIN.times[order]
    mixed = replace(TRAIN, users=users, items=items, times=times)
    one, other = (MODELS[name].fit(train).top_k(ask(ASKED), N_ITEMS) for train in (TRAIN, mixed))
    np.testing.assert_array_equal(one.items, other.items)
    np.testing.assert_allclose(one.scores, other.scores, rtol=1e-6)
