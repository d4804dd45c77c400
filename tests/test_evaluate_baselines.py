from __future__ import annotations

import dataclasses
import functools
import logging
import re
import subprocess
import sys

import msgspec
import numpy as np
import pytest
import scipy.sparse as sp
import toy
from conformance import PROMISES, finds_the_withheld

from models.baselines import als, content, cost, ease, item_knn, popularity, search
from models.baselines.content import multi_hot
from models.baselines.ease import EASE
from models.baselines.errors import CannotFit
from models.baselines.fallback import Fallback, as_of, parameters, unknown_users, without_history
from models.baselines.item_knn import ItemKNN
from models.baselines.popularity import Popularity, RecentPopularity
from models.baselines.registry import BASELINES, GRIDS, grid_of
from models.baselines.search import Facts
from models.core.evaluation_set import EvaluationSet
from models.core.retriever import BrokenModel, Interactions, Queries, Ragged
from workflows.ranking import baselines
from workflows.recipe.protocol import EvaluateConfig

WORLD = toy.world()
FACTS = Facts(train=WORLD.train, attributes=WORLD.attributes, seed=3)
BY_HISTORY = ["content", "item-knn", "ease", "ease-decayed", "als"]


def evaluation_set(users: np.ndarray, targets: Ragged) -> EvaluationSet:
    histories = WORLD.train.histories().take(users)
    everything = np.ones(WORLD.train.n_items, bool)
    return EvaluationSet(
        Queries(users, histories), targets, histories, everything, histories.lengths > 0
    )


VALID = evaluation_set(WORLD.members, WORLD.targets)


@functools.cache
def started(name: str) -> list:
    """Return the fitted models of a grid's first points."""
    grid = grid_of(name, FACTS)
    return [grid.fit(point) for point in grid.start]


# ── grids ──


def test_a_recipe_may_name_the_baselines_of_the_registry_and_no_other():
    found = msgspec.convert({"baselines": list(GRIDS)}, EvaluateConfig)
    assert found.baselines == tuple(GRIDS)
    with pytest.raises(msgspec.ValidationError, match="baselines"):
        msgspec.convert({"baselines": ["best"]}, EvaluateConfig)


@pytest.mark.parametrize("name", BASELINES)
def test_a_grid_holds_fitted_models_with_parameters_of_their_own(name):
    models = started(name)
    chosen = [tuple(parameters(model).items()) for model in models]
    assert len(set(chosen)) == len(models)
    assert all(promise(models[0], WORLD) for promise in PROMISES)
    sizes = {"recent-popularity": 7, "item-knn": 5, "ease": 5, "ease-decayed": 15, "als": 5}
    assert len(models) == sizes.get(name, 1)


@pytest.mark.parametrize(
    ("grid", "model"),
    [
        (lambda: popularity.recent_grid(FACTS), RecentPopularity),
        (lambda: item_knn.grid(FACTS), ItemKNN),
        (lambda: ease.grid(FACTS), EASE),
        (lambda: ease.decayed_grid(FACTS), EASE),
    ],
)
def test_work_that_a_grid_shares_changes_no_model(grid, model):
    found = grid()
    for got in (found.fit(point) for point in found.start):
        names = [f.name for f in dataclasses.fields(got) if f.compare]
        alone = model(**{name: getattr(got, name) for name in names}).fit(WORLD.train)
        one, other = (m.top_k(WORLD.queries, WORLD.train.n_items) for m in (got, alone))
        np.testing.assert_array_equal(one.items, other.items)
        np.testing.assert_array_equal(one.scores, other.scores)


@pytest.mark.parametrize("neighbours", [1, 3, 8])
def test_the_nearest_neighbours_are_those_of_a_fit_also_where_they_tie(neighbours):
    draw = np.random.default_rng(0)
    users, items = draw.integers(0, 6, 60), draw.integers(0, 30, 60)  # few users: many ties
    train = Interactions(users, items, None, n_users=6, n_items=30)
    got = ItemKNN(neighbours=20).fit(train).nearest(neighbours)
    alone = ItemKNN(neighbours=neighbours).fit(train)
    assert got == alone
    assert (got.similarities != alone.similarities).nnz == 0
    assert got.similarities.nnz == alone.similarities.nnz


def test_als_takes_the_seed():
    grid = als.grid(dataclasses.replace(FACTS, seed=7))
    assert grid.start == als.START
    assert grid.fit((8.0, 1.0, 2.0)).seed == 7


@pytest.mark.parametrize("name", BASELINES)
def test_the_parameters_of_a_model_are_those_of_its_point(name):
    grid = grid_of(name, FACTS)
    for point, model in zip(grid.start, started(name), strict=True):
        named = dict(zip([axis.name for axis in grid.axes], point, strict=True))
        found = parameters(model)
        assert {n: v for n, v in found.items() if n in named} == named
        assert set(found) - set(named) <= {"seed", "iterations"}


def test_more_neighbours_than_the_first_matrix_holds_are_fitted_anew():
    grid = item_knn.grid(FACTS)
    for wanted in (200.0, 3.0):
        got = grid.fit((wanted,))
        alone = ItemKNN(neighbours=int(wanted)).fit(WORLD.train)
        assert got == alone
        assert (got.similarities != alone.similarities).nnz == 0


def test_parameters_are_the_numbers_and_nothing_learnt():
    assert parameters(Popularity().fit(WORLD.train)) == {}
    model = EASE(regularization=5.0).fit(WORLD.train)
    assert parameters(model) == {"regularization": 5.0}
    wrapped = Fallback(dataclasses.replace(model, decay=2.0), Popularity(), without_history)
    assert parameters(wrapped) == {"regularization": 5.0, "decay": 2.0}


# ── what a model needs ──


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("recent-popularity", "RecentPopularity needs times; this data has none"),
        ("ease-decayed", "a decayed history needs times"),
    ],
)
def test_without_times_some_cannot_run(name, why):
    facts = dataclasses.replace(FACTS, train=dataclasses.replace(WORLD.train, times=None))
    with pytest.raises(CannotFit, match=why):
        baselines.choose(name, facts, VALID)


def test_without_attributes_content_cannot_run():
    facts = dataclasses.replace(FACTS, attributes=sp.csr_matrix((WORLD.train.n_items, 0)))
    with pytest.raises(CannotFit, match="no categories beside their id"):
        baselines.choose("content", facts, VALID)


@pytest.mark.parametrize("name", ["ease", "ease-decayed"])
def test_too_little_memory_leaves_ease_out(monkeypatch, name):
    monkeypatch.setattr(cost, "available_memory", lambda: 1_000)
    with pytest.raises(CannotFit, match=r"25 items.* GiB; 0.0 GiB of memory are free"):
        baselines.choose(name, FACTS, VALID)


def test_a_library_that_is_absent_leaves_its_model_out(monkeypatch):
    monkeypatch.delitem(sys.modules, "models.baselines.als")
    monkeypatch.delattr("models.baselines.als", raising=False)
    for name in [n for n in sys.modules if n.split(".")[0] == "implicit"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "implicit", None)  # what an import that fails leaves
    why = "the library implicit.* is not installed; the extra `baselines` brings it"
    with pytest.raises(CannotFit, match=why):
        baselines.choose("als", FACTS, VALID)
    found = dict(baselines.fit_baselines(["als", "popularity"], FACTS, VALID))
    assert isinstance(found["als"], CannotFit)
    assert isinstance(found["popularity"].model, Popularity)  # the others go on


def test_the_registry_does_not_load_what_only_als_needs():
    heavy = "{'implicit', 'merlin', 'scipy', 'tensorflow'}"
    code = f"import sys, models.baselines.registry; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# ── choosing ──


@pytest.mark.parametrize("name", ["item-knn", "ease", "ease-decayed", "recent-popularity"])
def test_the_best_on_valid_of_all_that_was_tried_is_chosen(name, caplog):
    caplog.set_level(logging.INFO)
    found = baselines.choose(name, FACTS, VALID)
    scores = [VALID.selection_score(model) for model in started(name)]
    assert found.note.valid >= max(scores)
    assert found.note.valid == VALID.selection_score(found.model)
    assert found.note.valid_users == len(WORLD.members)
    assert found.note.parameters == parameters(found.model)
    lines = [
        line for line in caplog.messages if re.match(rf"{name} .*: valid [01]\.\d{{4}} \(", line)
    ]
    assert len(lines) == found.note.tried >= len(scores)
    values = [float(re.search(r"valid (\S+)", line)[1]) for line in lines]
    assert values[: len(scores)] == pytest.approx(scores, abs=6e-5)
    assert max(values) == pytest.approx(found.note.valid, abs=6e-5)


def test_a_line_of_the_log_says_the_point_its_value_and_its_time(caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(als, "START", als.START[:1])
    monkeypatch.setattr(search, "MOST", 1)
    baselines.choose("als", FACTS, VALID)
    assert re.fullmatch(
        r"als factors=64 regularization=30 alpha=8: valid [01]\.\d{4} \(\d+\.\d s\)",
        caplog.messages[0],
    )
    caplog.clear()
    baselines.choose("popularity", FACTS, VALID)
    (line,) = caplog.messages
    assert re.fullmatch(r"popularity: valid [01]\.\d{4} \(\d+\.\d s\)", line)
    caplog.clear()
    baselines.choose("ease", FACTS, VALID)
    assert re.fullmatch(
        r"ease: a dense matrix of the 25 items: about 0\.1 s a fit on an idle machine and 0\.0 GiB",
        caplog.messages[0],
    )


def test_a_search_climbs_beyond_the_first_points(monkeypatch):
    monkeypatch.setattr(
        EvaluationSet, "selection_score", lambda _, model: -abs(np.log(model.model.regularization))
    )
    note = baselines.choose("ease", FACTS, VALID).note
    # 100, 50, 200, 300, 500, then 25, 12.5, … down to 0.78125, and one that is worse
    assert note.parameters == {"regularization": pytest.approx(0.78125)}
    assert (note.tried, note.edge) == (5 + 6 + 1, ())


def test_a_point_whose_scores_are_no_numbers_is_passed_over(monkeypatch, caplog):
    steady = EvaluationSet.selection_score

    def broken(evaluation_set, model):
        if model.model.regularization == 100:
            raise BrokenModel("7 scores are NaN.")
        return steady(evaluation_set, model)

    monkeypatch.setattr(EvaluationSet, "selection_score", broken)
    assert baselines.choose("ease", FACTS, VALID).note.parameters["regularization"] != 100
    assert "ease regularization=100: no value, because 7 scores are NaN." in caplog.text

    def always(evaluation_set, model):
        raise BrokenModel("all scores are NaN.")

    monkeypatch.setattr(EvaluationSet, "selection_score", always)
    with pytest.raises(CannotFit, match="all 5 points of its grid give NaN scores"):
        baselines.choose("ease", FACTS, VALID)


def test_another_valid_part_makes_another_choice():
    # items 0 and 1 were met lately, item 2 often and long ago
    day = 86_400
    train = Interactions(
        users=np.zeros(22, int),
        items=np.array([2] * 20 + [1, 0]),
        times=np.array([0] * 20 + [300, 330]) * day,
        n_users=7,
        n_items=60,
    )
    facts = Facts(train=train, attributes=sp.csr_matrix((60, 0)), seed=0)

    def days(target: int) -> float:
        one = EvaluationSet(
            Queries(np.array([6]), Ragged.empty(1)),
            Ragged(np.array([target]), np.array([0, 1])),
            None,
            np.ones(60, bool),
            np.array([False]),
        )
        return baselines.choose("recent-popularity", facts, one).note.parameters["days"]

    assert days(1) == 7.0  # item 0 comes first in any case, then 1 before 2: the first of the grid
    assert days(2) == 120.0  # the longest memory still knows item 2


def test_without_a_valid_part_the_first_of_the_grid_is_taken():
    found = baselines.choose("ease", FACTS, None)
    assert found.note.parameters == {"regularization": ease.REGULARIZATIONS[0]}
    assert (found.note.tried, found.note.valid, found.note.valid_users) == (1, None, None)


def test_choosing_asks_some_of_many_users(monkeypatch):
    monkeypatch.setattr(baselines, "MAX_USERS", 11)
    notes = [dict(baselines.fit_baselines(["ease"], FACTS, VALID))["ease"].note for _ in range(2)]
    assert [note.valid_users for note in notes] == [11, 11]
    assert notes[0].valid == notes[1].valid  # the same users


# ── users without a history ──


def test_history_models_fall_back_to_popularity():
    for name in BY_HISTORY:
        model = started(name)[0]
        popular = Popularity().fit(WORLD.train).top_k(WORLD.cold_queries, 5)
        got = model.top_k(WORLD.cold_queries, 5)
        np.testing.assert_array_equal(got.items, popular.items)
        np.testing.assert_array_equal(got.scores, popular.scores)
        assert finds_the_withheld(model, WORLD)


def test_a_history_of_items_of_no_table_is_none():
    queries = Queries(np.array([-1, -1]), Ragged(np.array([-1, 0, -1]), np.array([0, 1, 3])))
    knn, popular = ItemKNN().fit(WORLD.train), Popularity().fit(WORLD.train)
    got = Fallback(knn, popular, without_history).top_k(queries, 4, exclude=queries.histories)
    expected = popular.top_k(queries, 4), knn.top_k(queries, 4, exclude=queries.histories)
    assert got.items.tolist() == [expected[0].items[0].tolist(), expected[1].items[1].tolist()]


def test_a_stranger_is_of_no_table_and_has_no_history():
    # known with and without a history; of no table with one, with an unknown item, with nothing
    users = np.array([0, 1, -1, -1, -1])
    queries = Queries(users, Ragged(np.array([5, 2, -1]), np.array([0, 1, 1, 2, 3, 3])))
    assert unknown_users(queries).tolist() == [False, False, False, True, True]
    assert without_history(queries).tolist() == [False, True, False, True, True]


def test_popularity_is_as_of_the_cut_and_what_was_learnt_is_not():
    later = dataclasses.replace(
        WORLD.train,
        users=np.append(WORLD.train.users, [0] * 50),
        items=np.append(WORLD.train.items, [7] * 49 + [-1]),  # of no table: counts for nobody
        times=np.append(WORLD.train.times, WORLD.train.times[-1] + np.arange(50)),
    )
    for name in BASELINES:
        model = started(name)[0]
        moved = as_of(model, later)
        first = moved.top_k(WORLD.cold_queries, 1).items[:, 0].tolist()
        assert (first == [7, 7]) == (name != "random")
        if name not in ("popularity", "recent-popularity"):
            before, after = (m.top_k(WORLD.queries, 5).items for m in (model, moved))
            np.testing.assert_array_equal(before, after)


# ── attributes ──


def test_attributes_stand_side_by_side_without_the_codes_that_say_nothing():
    year = np.array([3, 1, 5, 2], np.int32)  # missing is 1, unseen is 2
    genres = Ragged(np.array([4, 6, 6, 1, 5, 3]), np.array([0, 2, 4, 4, 6]))  # two unseen codes
    got = multi_hot([year, genres], [3, 4])
    assert got.dtype == np.float32
    # years 3, 4, 5 | genres 4, 5, 6
    assert got.toarray().tolist() == [
        [1, 0, 0, 1, 0, 1],
        [0, 0, 0, 0, 0, 1],
        [0, 0, 1, 0, 0, 0],
        [0, 0, 0, 0, 1, 0],
    ]


def test_content_of_the_grid_uses_them():
    model = content.grid(FACTS).fit(())
    assert (model.attributes != WORLD.attributes).nnz == 0
