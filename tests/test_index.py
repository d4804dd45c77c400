"""The index stage: what it proves, what it refuses, and items that are added to it."""

from __future__ import annotations

import json
import logging
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from tiny_run import CPU, Run, Tiny

import workflows.index as module
from models.core.ann import KINDS
from workflows.cli import main
from workflows.ground.errors import ArtifactError, DataError, MissingStage, StaleInput
from workflows.index import index
from workflows.stages.recommender import ListOptions, Recommender

N_ITEMS, N_USERS, WIDTH = 3000, 200, 9
NEW = "item_id,title,price,genres\nnew 1,First,2.5,a|b\n-8200171396217105230,Second,,\n"


@pytest.fixture
def run(tiny: Tiny, tmp_path: Path) -> Run:
    return tiny.exported.branch(tmp_path / "run", stages=("etl", "train", "export"))


def vectors(draw: np.random.Generator, n: int) -> pa.Array:
    centres = np.random.default_rng(1).normal(size=(30, WIDTH))
    made = centres[draw.integers(0, 30, n)] + 0.3 * draw.normal(size=(n, WIDTH))
    return pa.FixedSizeListArray.from_arrays(pa.array(made.ravel().astype(np.float32)), WIDTH)


def copied(stage: Path, folder: Path) -> None:
    shutil.copytree(
        stage, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json")
    )


@pytest.fixture(scope="module")
def large(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The tiny run with an export of many items and users of our making."""
    folder = tmp_path_factory.mktemp("large") / "run"
    run = tiny.exported.branch(folder, stages=("etl", "train"))
    draw = np.random.default_rng(2)
    ids = {"user": [f"u{n}" for n in range(N_USERS)], "item": [f"{n:05d}" for n in range(N_ITEMS)]}
    with run.store.write("export", run.recipe, CPU) as draft:
        copied(tiny.exported.store.folder("export"), draft.folder)
        for side, names in ids.items():
            made = {f"{side}_id": names, "embedding": vectors(draw, len(names))}
            pq.write_table(pa.table(made), draft.folder / f"{side}_embeddings.parquet")
        items = {
            "item_id": ids["item"],
            "title": [f"Film {n}" for n in range(N_ITEMS)],
            "price": pa.array(np.arange(N_ITEMS), pa.float32()),
            "genres": [["a", "b"] if n % 3 else ["c"] for n in range(N_ITEMS)],
            "train_count": np.arange(N_ITEMS),
        }
        pq.write_table(pa.table(items), draft.folder / "item_features.parquet")
        np.save(draft.folder / "unknown_user.npy", np.zeros(WIDTH, np.float32))
        np.save(draft.folder / "item_counts.npy", np.arange(N_ITEMS))
        seen = {"item_rows": pa.array([[n, n + 1] for n in range(N_USERS)], pa.list_(pa.int32()))}
        pq.write_table(pa.table(seen), draft.folder / "histories.parquet")
        draft.options = {"as_of": "test"}
    return run


def branch(large: Run, folder: Path, *settings: str) -> Run:
    return large.branch(folder, *settings, stages=("etl", "train", "export"))


def lists(run: Run, users: list[str], **wish) -> dict[str, list[str]]:
    table = Recommender.open(run.store, run.recipe).lists(
        np.array(users, object), ListOptions(**wish)
    )
    found: dict[str, list[str]] = {}
    for row in table.to_pylist():
        found.setdefault(row["user_id"], []).append(row["item_id"])
    return found


@pytest.mark.parametrize("kind", ["exact", *KINDS])
def test_x05_each_kind_finds_what_the_export_ranks_exactly(large, tmp_path, kind):
    run = branch(large, tmp_path / "run", f"index.kind={kind}", "index.at=20", "index.recall=0.95")
    users = [f"u{n}" for n in range(0, N_USERS, 16)]
    wishes = [{"k": 20}, {"k": 7, "only": ("genres=c",), "deny": ("00003", "00300")}, {"k": 1500}]
    before = [lists(run, users, **wish) for wish in wishes]
    result = index(run.recipe, run.store, CPU)
    manifest = run.store.read("index", run.recipe)
    assert result.kind == manifest.options["kind"] == kind
    assert manifest.metrics["recall@20"] == result.measured.recall >= 0.95
    assert 0 < manifest.metrics["p50_ms"] <= manifest.metrics["p99_ms"]
    assert manifest.rows == {"items": N_ITEMS, "added": 0}
    assert Recommender.open(run.store, run.recipe).catalogue.kind == kind
    for wish, expected in zip(wishes, before, strict=True):
        found = lists(run, users, **wish)
        assert {u: len(i) for u, i in found.items()} == {u: len(i) for u, i in expected.items()}
        hits = [len(set(found[u]) & set(expected[u])) / len(expected[u]) for u in users]
        assert np.mean(hits) >= (0.95 if kind in ("hnsw", "ivf") else 1.0)
        if kind in ("exact", "flat"):
            assert found == expected


def test_auto_is_exact_until_there_are_many_items(large, tmp_path):
    few = branch(large, tmp_path / "few")
    assert index(few.recipe, few.store, CPU).kind == "exact"
    assert not (few.store.folder("index") / "index.faiss").exists()
    many = branch(large, tmp_path / "many", "index.exact_up_to=1000", "index.recall=0.9")
    assert index(many.recipe, many.store, CPU).kind == "ivf"


def test_an_index_that_finds_too_little_is_refused(large, tmp_path, monkeypatch):
    run = branch(large, tmp_path / "run", "index.kind=ivf", "index.at=5")
    monkeypatch.setattr(
        module, "tune_effort", lambda index, *_, **__: replace(index, effort=1, at=5)
    )
    with pytest.raises(
        ArtifactError, match=r"ivf index finds 0\.\d+ of the 5 best .*asks for 0.99"
    ):
        index(run.recipe, run.store, CPU)
    assert not run.store.folder("index").exists()


def test_faiss_that_is_not_there_is_named(large, tmp_path, monkeypatch):
    run = branch(large, tmp_path / "run", "index.kind=flat")
    index(run.recipe, run.store, CPU)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ArtifactError, match=r"pip install 'merlin-two-tower\[index\]'.*index.kind"):
        index(run.recipe, run.store, CPU)
    with pytest.raises(ArtifactError, match=r"index.faiss cannot be used: .*pip install"):
        Recommender.open(run.store, run.recipe)


# ── items that are added ──


def write(folder: Path, text: str = NEW) -> Path:
    path = folder / "new.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_added_items_are_embedded_from_their_attributes_and_shown(run, tmp_path):
    before = lists(run, ["u6"], k=100)["u6"]
    result = index(run.recipe, run.store, CPU, add=write(tmp_path))
    assert (result.added, result.items) == (2, len(run.items) + 2)
    export = Recommender.open(run.store, run.recipe)
    tower = tf.saved_model.load(str(run.store.folder("export") / "item_tower_raw"))
    expected = tower.signatures["serving_default"](
        item_id=tf.constant(["new 1", "-8200171396217105230"]),
        price=tf.constant([2.5, np.nan], tf.float32),
        genres=tf.constant([["a", "b"], ["", ""]]),
    )["embedding"].numpy()
    np.testing.assert_allclose(export.catalogue.vectors[-2:], expected, rtol=1e-5, atol=1e-6)
    after = lists(run, ["u6"], k=100)["u6"]
    assert set(after) - set(before) == {"new 1", "-8200171396217105230"}
    assert [item for item in after if item in before] == before
    assert lists(run, ["u6"], only=("title=First",)) == {"u6": ["new 1"]}
    assert lists(run, ["u6"], only=("genres=b",), k=100)["u6"].count("new 1") == 1
    # a stranger's list ends with what nobody has met
    assert set(lists(run, ["nobody"], k=100)["nobody"][-2:]) <= set(after)
    assert export.similar("new 1", ListOptions(k=3))[0]["item_id"] != "new 1"


def test_more_can_be_added_and_a_new_index_begins_again(run, tmp_path):
    index(run.recipe, run.store, CPU, add=write(tmp_path))
    vectors = Recommender.open(run.store, run.recipe).catalogue.vectors
    more = pa.table({"item_id": [77], "price": [1.0], "genres": [["z"]]})
    pq.write_table(more, tmp_path / "more.parquet")
    result = index(run.recipe, run.store, CPU, add=tmp_path / "more.parquet")
    export = Recommender.open(run.store, run.recipe)
    assert result.added == 3
    assert export.catalogue.ids.to_pylist()[-3:] == ["new 1", "-8200171396217105230", "77"]
    np.testing.assert_array_equal(export.catalogue.vectors[:-1], vectors)
    assert export.catalogue.items["title"].to_pylist()[-3:] == ["First", "Second", None]
    assert index(run.recipe, run.store, CPU).added == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("item_id,title,price,genres\n003,x,1,a\n", "item_id '003' is in the catalogue already"),
        ("item_id,title,price,genres\nx,,,\nx,,,\n", "item_id 'x' occurs 2 times"),
        ("item_id,price,genre\nx,1,a\n", "there is no column 'genres'"),
        ("item_id,price\nx,1\n", "there is no column 'genres', which the item tower takes"),
    ],
)
def test_new_items_that_do_not_fit_are_refused(run, tmp_path, text, said):
    with pytest.raises(DataError) as caught:
        index(run.recipe, run.store, CPU, add=write(tmp_path, text))
    assert said in str(caught.value)
    assert not run.store.folder("index").exists()


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_an_index_grows_without_being_built_again(large, tmp_path, monkeypatch, kind):
    run = branch(large, tmp_path / "run", f"index.kind={kind}", "index.at=20", "index.recall=0.95")
    index(run.recipe, run.store, CPU)
    new = np.random.default_rng(5).normal(size=(2, WIDTH)).astype(np.float32) * 3
    monkeypatch.setattr("workflows.stages.embedding.RawTower.embed", lambda *_: new)
    monkeypatch.setattr("models.core.ann.Index.build", None)
    result = index(run.recipe, run.store, CPU, add=write(tmp_path))
    assert (result.kind, result.added) == (kind, 2)
    catalogue = Recommender.open(run.store, run.recipe).catalogue
    found = catalogue.index.search(new, 1)
    assert found.items[:, 0].tolist() == [N_ITEMS, N_ITEMS + 1]


# ── stages ──


def test_an_index_of_another_export_is_left_aside(run, tmp_path, caplog):
    index(run.recipe, run.store, CPU, add=write(tmp_path))
    with run.store.write("export", run.recipe, CPU) as draft:
        copied(run.store.folder("export"), draft.folder)
        np.save(draft.folder / "unknown_user.npy", np.ones(9, np.float32))
        draft.options = {"as_of": "test"}
    with pytest.raises(StaleInput, match="made from an earlier export"):
        run.store.read("index", run.recipe)
    with caplog.at_level(logging.WARNING):
        export = Recommender.open(run.store, run.recipe)
    assert len(export.catalogue.items) == len(run.items)
    assert "Until then it is left aside, with what was added to it" in caplog.text


def test_a_damaged_index_is_not_left_aside(run, tmp_path):
    index(run.recipe, run.store, CPU, add=write(tmp_path))
    (run.store.folder("index") / "search.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"search\.json is not the file that its manifest"):
        Recommender.open(run.store, run.recipe)


def test_without_an_export_there_is_nothing_to_index(tiny: Tiny, tmp_path):
    run = tiny.trained.branch(tmp_path / "run", stages=("etl", "train"))
    with pytest.raises(MissingStage, match="Run `two-tower export`"):
        index(run.recipe, run.store, CPU)


def test_nothing_is_added_where_that_would_lose_what_was_added_before(run, tmp_path):
    index(run.recipe, run.store, CPU, add=write(tmp_path))
    more = pa.table({"item_id": ["77"], "price": [1.0], "genres": [["z"]]})
    pq.write_table(more, tmp_path / "more.parquet")
    other = run.world.recipe("index.at=7")
    with pytest.raises(StaleInput, match=r"index was made from another.*would lose the 2 items"):
        index(other, run.store, CPU, add=tmp_path / "more.parquet")
    assert Recommender.open(run.store, run.recipe).catalogue.ids.to_pylist()[-2] == "new 1"
    assert index(other, run.store, CPU).added == 0
    assert index(other, run.store, CPU, add=tmp_path / "more.parquet").added == 1
    index(run.recipe, run.store, CPU)


def test_a_change_of_the_index_makes_nothing_before_it_stale(run):
    for stage in ("etl", "train", "export"):
        other = run.store.read(stage, run.world.recipe("index.kind=ivf"))
        assert other == run.store.read(stage, run.recipe)


def test_the_command_line_adds_an_item_and_shows_it(run, tmp_path, monkeypatch, capsys):
    def two_tower(*words: str) -> str:
        where = ("--recipe", str(run.world.recipe_file), "--run", str(run.store.root))
        monkeypatch.setattr(sys, "argv", ["two-tower", *words, *where, "--device", "cpu"])
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        assert not caught.value.code, err
        return out

    told = two_tower("index", "--add", str(write(tmp_path)))
    assert re.search(r"recall@100\W+1\.0000", told)
    assert f"{len(run.items) + 2:,}, of which 2 added" in told
    shown = two_tower("recommend", "--user", "u6", "--only", "title=First", "--show-history")
    assert "new 1" in shown
    assert "u6 did" in shown
    found = json.loads(two_tower("recommend", "--user", "u6", "-k", "2", "--json"))
    assert [row["rank"] for row in found["lists"]] == [1, 2]
    assert "First" not in two_tower("similar-items", "--item", "new 1", "-k", "1")
