"""EASE by users is EASE by items: against dense algebra, and for histories of anybody."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import toy
from conformance import PROMISES, finds_the_withheld

from models.baselines.closed_form import ByItems, ByUsers, Solver
from models.baselines.ease import EASE
from models.core.retriever import Interactions, Queries, Ragged


def log(n_users: int, n_items: int, n: int, *, seed: int = 0) -> Interactions:
    """Return a log with few popular items, items that nobody met, and users without a row."""
    draw = np.random.default_rng(seed)
    met = max(2, n_items * 4 // 5)
    chances = 1 / np.arange(1, met + 1)
    return Interactions(
        users=draw.integers(0, max(1, n_users - 2), n),
        items=draw.choice(met, size=n, p=chances / chances.sum()),
        times=np.arange(n),
        n_users=n_users,
        n_items=n_items,
    )


def dense(train: Interactions) -> np.ndarray:
    matrix = np.zeros((train.n_users, train.n_items))
    matrix[train.users, train.items] = 1
    return matrix


def primal(train: Interactions, regularization: float) -> np.ndarray:
    """Return B by equation 8 of the paper, in dense float64 and by another inverse."""
    x = dense(train)
    p = np.linalg.inv(x.T @ x + regularization * np.eye(train.n_items))
    weights = np.eye(train.n_items) - p / np.diag(p)
    np.fill_diagonal(weights, 0)
    return weights


def held_out(train: Interactions) -> sp.csr_matrix:
    """Return histories that the fit has not seen: binary, weighed, empty, and of everything."""
    draw = np.random.default_rng(5)
    rows = (draw.random((6, train.n_items)) < 0.1).astype(np.float32)
    rows[2:4] *= draw.random((2, train.n_items)).astype(np.float32)
    rows[4], rows[5] = 0, 1
    return sp.csr_matrix(rows)


def tolerance(histories: sp.csr_matrix, weights: np.ndarray) -> np.ndarray:
    """Return what rounding to float32 explains: it grows with the sizes that enter each sum."""
    entering = abs(histories).toarray() @ abs(weights) + 1e-3
    return 16 * np.finfo(np.float32).eps * entering


FEW = log(30, 80, 400)  # users are fewer
MANY = log(90, 40, 700)  # items are fewer


@pytest.mark.parametrize("regularization", [0.5, 30.0, 1000.0])
@pytest.mark.parametrize("train", [FEW, MANY], ids=["by users", "by items"])
def test_both_forms_are_the_closed_form_of_the_paper(train, regularization):
    learnt = Solver(train).solve(regularization)
    assert isinstance(learnt, ByUsers if train is FEW else ByItems)
    weights = primal(train, regularization)
    x = dense(train)
    for histories in (held_out(train), sp.csr_matrix(x, dtype=np.float32)):
        got = learnt.score(histories)
        assert got.dtype == np.float32
        expected = histories.toarray().astype(np.float64) @ weights
        assert (abs(got - expected) <= tolerance(histories, weights)).all()


class OfUsers(Solver):
    by_users = True


class OfItems(Solver):
    by_users = False


@pytest.mark.parametrize("regularization", [0.5, 100.0])
@pytest.mark.parametrize("train", [FEW, MANY], ids=["few users", "many users"])
def test_on_the_same_data_both_forms_give_the_same_scores(train, regularization):
    one, other = (kind(train).solve(regularization) for kind in (OfUsers, OfItems))
    assert (type(one), type(other)) == (ByUsers, ByItems)
    weights = primal(train, regularization)
    for histories in (held_out(train), sp.csr_matrix(dense(train), dtype=np.float32)):
        difference = abs(one.score(histories) - other.score(histories))
        assert (difference <= tolerance(histories, weights)).all()


@pytest.mark.parametrize("promise", [*PROMISES, finds_the_withheld], ids=lambda p: p.__name__)
def test_the_form_by_users_keeps_what_every_retriever_promises(promise):
    world = toy.world()
    assert promise(EASE(decay=3.0, learnt=OfUsers(world.train).solve(100.0)), world)


def test_the_tolerance_distinguishes_another_lambda():
    histories, weights = held_out(FEW), primal(FEW, 30.0)
    got = Solver(FEW).solve(30.1).score(histories)
    assert (abs(got - histories @ weights) > tolerance(histories, weights)).any()


def test_the_tolerance_distinguishes_a_fit_item_by_item():
    """The control of the diagonal: without it, an item would score itself."""
    histories, weights = held_out(FEW), primal(FEW, 30.0)
    learnt = Solver(FEW).solve(30.0)
    careless = ByUsers(learnt.users, learnt.inverse, np.zeros_like(learnt.shares))
    got = careless.score(histories)
    assert (abs(got - histories @ weights) > tolerance(histories, weights)).any()


@pytest.mark.parametrize("decay", [None, 3.0])
def test_ease_asks_either_form_with_decayed_histories_of_strangers(decay):
    histories = [[3, 0, 7, 3], [], [79], [1, 2, -1]]
    offsets = np.cumsum([0, *map(len, histories)])
    values = np.array([i for h in histories for i in h])
    queries = Queries(np.full(4, -1), Ragged(values, offsets))
    x = np.zeros((4, 80))
    for row, history in enumerate(histories):
        for position, item in enumerate(reversed(history)):
            if item >= 0:
                weight = 1.0 if decay is None else np.exp(-position / decay)
                x[row, item] = max(x[row, item], weight)
    weights = primal(FEW, 5.0)
    got = EASE(regularization=5.0, decay=decay).fit(FEW).score(queries)
    assert (abs(got - x @ weights) <= tolerance(sp.csr_matrix(x), weights)).all()


def test_the_form_by_users_makes_no_matrix_of_all_items_by_all_items():
    train = log(12, 3_000, 200)
    learnt = Solver(train).solve(10.0)
    assert learnt.inverse.shape == (10, 10)  # two users have no row
    largest = max(a.size for a in (learnt.inverse, learnt.shares, learnt.users.data))
    assert largest <= 3_000


def test_items_with_the_same_users_tie_to_the_last_bit():
    users = np.array([0, 1, 2, 0, 1, 2, 3, 3])
    items = np.array([4, 4, 4, 9, 9, 9, 1, 2])
    train = Interactions(users, items, None, n_users=4, n_items=12)
    histories = sp.csr_matrix((np.ones(2, np.float32), ([0, 0], [1, 2])), (1, 12))
    (scores,) = Solver(train).solve(2.0).score(histories)
    assert scores[4] == scores[9]


def test_the_cost_of_a_fit_is_computed_from_the_smaller_side():
    assert Solver(FEW).cost(fits=1).n_rows == 28
    assert Solver(MANY).cost(fits=1).n_rows == 40
    assert Solver(FEW).sentence(fits=4).startswith("a dense matrix of the 28 users, for 80 items: ")
