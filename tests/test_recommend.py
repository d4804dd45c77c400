"""Lists from the export alone, beside what evaluate ranks and beside naive loops."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tiny_run import CPU, Run, Tiny

import workflows.exported as module
from models.two_tower import TwoTower
from workflows.artifacts import load_model
from workflows.errors import DataError, MissingStage
from workflows.exported import Export, Wish
from workflows.prepared import Prepared
from workflows.recommend import FILE, RecommendResult, recommend

K = 5


@pytest.fixture(scope="module")
def run(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("recommend") / "run"
    return tiny.exported.branch(root, stages=("etl", "train", "export"))


@pytest.fixture(scope="module")
def everybody(run: Run) -> RecommendResult:
    return recommend(run.recipe, run.store, CPU, wish=Wish(k=K))


def lists_of(rows: list[dict]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in sorted(rows, key=lambda row: row["rank"]):
        found.setdefault(row["user_id"], []).append(row["item_id"])
    return found


def asked(run: Run, *users: str, **wish) -> list[dict]:
    return recommend(run.recipe, run.store, CPU, wish=Wish(**wish), users=users).lists


def test_everybodys_lists_are_those_of_evaluate(run, everybody):
    prepared = Prepared.open(run.store, run.recipe)
    trial = prepared.trial("test", run.recipe.evaluate)
    model = TwoTower.of(load_model(run.store, run.recipe, prepared), prepared.users, prepared.items)
    top = trial.ask(model, K)
    users = prepared.raw_users["user_id"].to_pylist()
    items = prepared.raw_items["item_id"].to_pylist()
    rows = pq.read_table(everybody.folder / FILE).to_pylist()
    found = lists_of(rows)
    for user, best in zip(trial.queries.users, top.items, strict=True):
        if user >= 0:
            assert found[users[user]] == [items[i] for i in best if i >= 0]
    assert everybody.users == len(found) == len(users) - 1
    assert everybody.answered_by == {"two-tower": everybody.users}
    titles = {film["item_id"]: film["title"] for film in run.world.films}
    assert all(row["title"] == titles.get(row["item_id"]) for row in rows)
    manifest = run.store.read("recommend", run.recipe)
    assert manifest.rows == {"users": everybody.users, "recommendations": len(rows)}
    assert manifest.options["as_of"] == "test"


def test_nobody_is_shown_what_he_has_seen_unless_asked(run, everybody):
    seen = run.histories(withheld=1)
    found = lists_of(pq.read_table(everybody.folder / FILE).to_pylist())
    assert all(not set(found[user]) & set(seen.get(user, [])) for user in found)
    again = lists_of(asked(run, "u6", k=100, keep_seen=True))["u6"]
    assert set(again) == run.items  # longer than the catalogue: all of it, each once
    assert len(again) == len(run.items)
    without = lists_of(asked(run, "u6", k=100))["u6"]
    assert set(without) == run.items - set(seen["u6"])
    assert [item for item in again if item in without] == without


def test_the_size_of_a_shard_changes_nothing(run, everybody, monkeypatch, tmp_path):
    before = pq.read_table(everybody.folder / FILE)
    monkeypatch.setattr(module, "SHARD", 3)
    copy = run.branch(tmp_path / "run", stages=("etl", "train", "export"))
    result = recommend(copy.recipe, copy.store, CPU, wish=Wish(k=K))
    assert pq.read_table(result.folder / FILE).equals(before)


def test_a_stranger_gets_the_fallback_and_is_told(run):
    rows = asked(run, "nobody knows", "u6", k=3)
    prepared = Prepared.open(run.store, run.recipe)
    known = [i for of in run.histories(withheld=1).values() for i in of]
    counts = {item: known.count(item) for item in prepared.raw_items["item_id"].to_pylist()}
    best = sorted(counts, key=lambda item: -counts[item])[:3]  # stable: ties by item row
    assert lists_of(rows)["nobody knows"] == best
    by = {row["user_id"]: row["answered_by"] for row in rows}
    assert by == {"nobody knows": "popularity", "u6": "two-tower"}
    assert [row["score"] for row in rows[:3]] == [counts[item] for item in best]


def test_where_the_recipe_says_so_the_tower_answers_strangers(run):
    recipe = run.world.recipe("fallback=tower")
    rows = recommend(recipe, run.store, CPU, wish=Wish(k=3), users=["nobody knows"]).lists
    assert {row["answered_by"] for row in rows} == {"unknown-user tower"}
    nobody = np.load(run.store.folder("export") / "unknown_user.npy")
    scores = Export.open(run.store, recipe).item_vectors @ nobody
    np.testing.assert_allclose([r["score"] for r in rows], np.sort(scores)[::-1][:3], rtol=1e-5)


def test_lists_hold_only_what_is_wished(run):
    films = {film["item_id"]: film for film in run.world.films}
    everything = lists_of(asked(run, "u7", k=100))["u7"]
    with_b = lists_of(asked(run, "u7", k=100, only=("genres=b",)))["u7"]
    assert with_b == [
        i for i in everything if "b" in (films.get(i, {}).get("genres") or "").split("|")
    ]
    assert with_b
    both = ("title=Film 7", "genres=b")
    assert lists_of(asked(run, "u7", k=100, keep_seen=True, only=both)) == {"u7": ["007"]}
    denied = lists_of(asked(run, "u7", k=100, deny=tuple(everything[:2])))["u7"]
    assert denied == everything[2:]


def test_rules_and_ids_that_fit_nothing_are_refused(run):
    with pytest.raises(DataError, match=r"--only 'colour=red': expected column=value, with one of"):
        asked(run, "u6", only=("colour=red",))
    with pytest.raises(DataError, match="There is no item 'xyz' in 'item_id'"):
        asked(run, "u6", deny=("001", "xyz"))


def test_similar_items_leave_the_item_itself_out(run):
    export = Export.open(run.store, run.recipe)
    rows = export.similar("003", Wish(k=100))
    vectors = export.item_vectors[:, :-1].astype(np.float64)  # the last dimension is the bias
    ids = export.item_ids.to_pylist()
    mine = vectors[ids.index("003")]
    cosine = vectors @ mine / np.linalg.norm(vectors, axis=1) / np.linalg.norm(mine)
    expected = sorted((i for i in ids if i != "003"), key=lambda i: -cosine[ids.index(i)])
    assert [row["item_id"] for row in rows] == expected
    assert list(rows[0]) == ["rank", "item_id", "score", "title"]
    np.testing.assert_allclose(rows[0]["score"], np.sort(cosine)[-2], rtol=1e-5)


def test_without_an_export_there_is_nothing_to_recommend(tiny: Tiny, tmp_path: Path):
    run = tiny.trained.branch(tmp_path / "run", stages=("etl", "train"))
    with pytest.raises(MissingStage, match="Run `two-tower export`"):
        recommend(run.recipe, run.store, CPU, users=["u6"])


def test_it_needs_neither_tensorflow_nor_merlin():
    heavy = ("tensorflow", "merlin", "nvtabular", "dask")
    code = (
        f"import sys, workflows.recommend; sys.exit([m for m in {heavy} if m in sys.modules] or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
