from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reference_pages.files import documented
from tiny_run import CPU, Run, Tiny

import workflows.towers.export as module
from models.core.retriever import Queries
from models.training.two_tower import TwoTower
from workflows.export import export
from workflows.ground.errors import ArtifactError, MissingStage
from workflows.stages.etl import Prepared
from workflows.stages.train import load_model
from workflows.towers import towers

DIM = 9  # 8 and the item bias
MAX_LEN = 4


@pytest.fixture
def folder(tiny: Tiny) -> Path:
    return tiny.exported.store.folder("export")


@pytest.fixture
def branch(tiny: Tiny, tmp_path: Path) -> Run:
    """A trained run of its own, to export badly."""
    return tiny.trained.branch(tmp_path / "run", stages=("etl", "train"))


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the check from outside, which takes a new process and seconds."""
    monkeypatch.setattr(module.checks, "check_from_outside", lambda *told: None)


# --- what is written ---


def test_every_promised_file_is_there_and_no_other(folder):
    saved_model = {
        "fingerprint.pb",
        "inputs.json",
        "saved_model.pb",
        "variables/variables.data-00000-of-00001",
        "variables/variables.index",
    }
    expected = {
        "histories.parquet",
        "item_counts.npy",
        "item_embeddings.parquet",
        "item_features.parquet",
        "manifest.json",
        "schema.pbtxt",
        "unknown_user.npy",
        "user_embeddings.parquet",
        "user_features.parquet",
        *(
            f"{tower}{kind}/{name}"
            for tower in ("query_tower", "item_tower")
            for kind in ("", "_raw")
            for name in saved_model
        ),
        *(f"query_tower_raw/assets/{n}.txt" for n in ("user_id", "city", "item_id", "shop")),
        *(f"item_tower_raw/assets/{n}.txt" for n in ("item_id", "genres")),
        *(f"vocabulary/{n}.parquet" for n in ("user_id", "city", "item_id", "genres", "shop")),
    }
    assert {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} == expected
    assert {path.name for path in folder.iterdir()} <= documented("export")


def test_x07_the_manifest_tells_the_truth(tiny, folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    files = {p for p in folder.rglob("*") if p.is_file() and p.name != "manifest.json"}
    assert {folder / name for name in manifest["files"]} == files
    for name, fact in manifest["files"].items():
        content = (folder / name).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (
            fact["bytes"],
            fact["sha256"],
        )
    counts = {"users": len(tiny.exported.users), "items": len(tiny.exported.items)}
    assert manifest["rows"] == {**counts, "dim": DIM}
    assert manifest["device"] == "cpu"
    assert manifest["metrics"] == tiny.train_result.first.best.metrics
    assert manifest["recipe_hash"] == tiny.exported.recipe.digest()


def test_the_result_says_what_was_written(tiny, folder):
    result = tiny.export_result
    counts = {"users": len(tiny.exported.users), "items": len(tiny.exported.items)}
    assert (result.folder, result.rows) == (folder, {**counts, "dim": DIM})
    assert result.metrics == tiny.train_result.first.best.metrics


@pytest.mark.parametrize("side", ["user", "item"])
def test_x03_x04_ids_are_unique_and_as_they_were(tiny, folder, side):
    expected = getattr(tiny.exported, f"{side}s")
    for kind in ("features", "embeddings"):
        table = pq.read_table(folder / f"{side}_{kind}.parquet")
        found = table[f"{side}_id"].to_pylist()
        assert len(set(found)) == len(found)
        assert set(found) == expected
        assert table.column_names[:2] == [f"{side}_id", f"{side}_code"]
        vocabulary = pq.read_table(folder / "vocabulary" / f"{side}_id.parquet").to_pylist()
        codes = {row["value"]: row["code"] for row in vocabulary}
        assert table[f"{side}_code"].to_pylist() == [codes.get(value, 2) for value in found]


@pytest.mark.parametrize("side", ["user", "item"])
def test_embeddings_are_lists_of_fixed_size(folder, side):
    table = pq.read_table(folder / f"{side}_embeddings.parquet")
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), DIM)
    vectors = np.stack(table["embedding"].to_numpy())
    assert np.isfinite(vectors).all()
    assert len(np.unique(vectors, axis=0)) > 5


def test_x03_embeddings_are_the_models(tiny, folder):
    run = tiny.exported
    prepared = Prepared.open(run.store, run.recipe)
    model = TwoTower.of(load_model(run.store, run.recipe, prepared), prepared.users, prepared.items)
    histories = prepared.histories("train", "valid")
    queries = Queries(np.arange(len(histories)), histories)
    for side, expected in (("user", model.embed(queries)), ("item", model.vectors)):
        table = pq.read_table(folder / f"{side}_embeddings.parquet")
        vectors = np.stack(table["embedding"].to_numpy())
        np.testing.assert_allclose(vectors, expected, rtol=1e-5, atol=1e-6)


def test_features_can_be_read_by_people(tiny, folder):
    items = {
        row["item_id"]: row for row in pq.read_table(folder / "item_features.parquet").to_pylist()
    }
    for film in tiny.prepared.world.films:
        row = items[film["item_id"]]
        assert row["title"] == film["title"]
        assert row["price"] == pytest.approx(film["price"])
        genres = [g for g in (film["genres"] or "").split("|") if g]
        assert (row["genres"] or []) == genres
    users = {
        row["user_id"]: row for row in pq.read_table(folder / "user_features.parquet").to_pylist()
    }
    for person in tiny.prepared.world.people:
        row = users[person["user_id"]]
        assert (row["city"], row["age"]) == (person["city"], person["age"])


def test_users_bring_the_history_that_was_evaluated(tiny, folder):
    histories = tiny.exported.histories(withheld=1)
    codes = {
        row["item_id"]: row["item_code"]
        for row in pq.read_table(folder / "item_features.parquet").to_pylist()
    }
    users = pq.read_table(folder / "user_features.parquet").to_pylist()
    for row in users:
        latest = histories[row["user_id"]][-MAX_LEN:]
        assert row["history_item_id"] == latest
        assert row["history_item_id_input"] == [codes[item] for item in latest]


def whole_histories(folder: Path) -> tuple[dict[str, list[str]], Counter[str]]:
    """Return each user's items and how often each item was met, as an export says."""
    items = pq.read_table(folder / "item_features.parquet")["item_id"].to_pylist()
    users = pq.read_table(folder / "user_features.parquet")["user_id"].to_pylist()
    rows = pq.read_table(folder / "histories.parquet")
    assert rows.column_names == ["item_rows"]
    counts = np.load(folder / "item_counts.npy")
    lists = [[items[row] for row in mine] for mine in rows["item_rows"].to_pylist()]
    met = Counter(dict(zip(items, counts.tolist(), strict=True)))
    return dict(zip(users, lists, strict=True)), +met


def test_histories_are_whole_and_counts_are_those_before_the_cut(tiny, folder):
    expected = tiny.exported.histories(withheld=1)
    histories, met = whole_histories(folder)
    assert histories == expected
    assert max(map(len, histories.values())) > MAX_LEN
    assert met == Counter(item for items in expected.values() for item in items)


def test_as_of_latest_they_bring_everything(branch, unchecked):
    result = export(branch.recipe, branch.store, CPU, as_of="latest")
    histories = branch.histories()
    users = pq.read_table(result.folder / "user_features.parquet").to_pylist()
    assert all(u["history_item_id"] == histories[u["user_id"]][-MAX_LEN:] for u in users)
    whole, met = whole_histories(result.folder)
    assert whole == histories
    assert met == Counter(item for items in histories.values() for item in items)


# --- a stranger's process ---

UNKNOWN_USER = """
import importlib.abc, json, sys

FORBIDDEN = ("merlin", "nvtabular", "models", "workflows", "dask", "pandas")

class Guard(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in FORBIDDEN:
            raise ImportError(name + " is not to be had here")

sys.meta_path.insert(0, Guard())
import numpy as np
import pyarrow.parquet as pq
import tensorflow as tf

folder = sys.argv[1]

def rows(name):
    return pq.read_table(folder + "/" + name).to_pylist()

def encode(tower, rows):
    signature = tf.saved_model.load(folder + "/" + tower).signatures["serving_default"]
    tensors = {}
    for name, spec in signature.structured_input_signature[1].items():
        values = [row[name + "_input"] for row in rows]
        if spec.shape.rank == 2:
            width = max(1, *map(len, values))
            values = [v + [0] * (width - len(v)) for v in values]
        tensors[name] = tf.constant(values, spec.dtype)
    return signature(**tensors)["embedding"].numpy()

items = rows("item_features.parquet")
users = {row["user_id"]: row for row in rows("user_features.parquet")}
vectors = encode("item_tower", items)
found = {}
for user in json.loads(sys.argv[2]):
    scores = (vectors.astype(float) @ encode("query_tower", [users[user]])[0]).astype("float32")
    best = np.argsort(-scores, kind="stable")[:10]
    found[user] = [[items[i]["item_id"], items[i]["title"], float(scores[i])] for i in best]
assert not {name.partition(".")[0] for name in sys.modules} & set(FORBIDDEN)
print(json.dumps(found))
"""


@pytest.mark.quality
def test_x01_a_stranger_goes_from_a_raw_user_to_ten_titles(tiny, folder, tmp_path):
    script = tmp_path / "stranger.py"
    script.write_text(UNKNOWN_USER, encoding="utf-8")
    asked = ["Ж", "-8200171396217105230", "0108775015"]
    done = subprocess.run(
        [sys.executable, "-I", str(script), str(folder), json.dumps(asked)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)

    run = tiny.exported
    prepared = Prepared.open(run.store, run.recipe)
    model = TwoTower.of(load_model(run.store, run.recipe, prepared), prepared.users, prepared.items)
    ids = prepared.raw_users[run.recipe.user_id].to_pylist()
    rows = np.array([ids.index(user) for user in asked])
    top = model.top_k(Queries(rows, prepared.histories("train", "valid").take(rows)), 10)
    titles = {film["item_id"]: film["title"] for film in run.world.films}
    raw_items = prepared.raw_items[run.recipe.item_id].to_pylist()
    for user, items, scores in zip(asked, top.items, top.scores, strict=True):
        expected = [raw_items[i] for i in items]
        assert [item for item, _, _ in found[user]] == expected
        assert [title for _, title, _ in found[user]] == [titles.get(item) for item in expected]
        np.testing.assert_allclose([score for *_, score in found[user]], scores, rtol=1e-4)
    assert len({json.dumps(of_user) for of_user in found.values()}) == 3


# --- what is refused ---


def assert_nothing_left(run: Run) -> None:
    there = {p.name for p in run.store.root.iterdir()}
    assert there == {"etl", "train", ".lock"}
    with pytest.raises(MissingStage, match="Run `two-tower export`"):
        run.store.read("export", run.recipe)


def test_towers_and_embeddings_that_are_not_the_models_are_not_exported(branch, monkeypatch):
    save, embed = towers.save, module.embed

    def other_tower(tower, path):
        weight = tower.trainable_weights[0]
        kept = weight.numpy()
        weight.assign(kept + (0.01 if path.name == "item_tower" else 0))
        save(tower, path)
        weight.assign(kept)

    def other_embeddings(tower, columns):
        vectors = embed(tower, columns)
        vectors[-1, 0] += 1e-3 if "history_item_id" in columns else 0  # of users
        return vectors

    monkeypatch.setattr(towers, "save", other_tower)
    monkeypatch.setattr(module, "embed", other_embeddings)
    with pytest.raises(
        ArtifactError,
        match=r"loaded in a fresh process, do not give the model's embeddings: "
        r"query_tower: embeddings differ by 0.001 \(at most 1e-05 allowed\); "
        r"query_tower_raw: embeddings differ by 0.001 \(at most 1e-05 allowed\); "
        r"item_tower: embeddings differ by 0.0\d+ \(at most 1e-05 allowed\). Nothing was exported",
    ):
        export(branch.recipe, branch.store, CPU)
    assert_nothing_left(branch)


@pytest.mark.parametrize(("side", "broken"), [("user", np.nan), ("item", np.inf)])
def test_embeddings_that_are_no_numbers_are_refused(branch, unchecked, monkeypatch, side, broken):
    embed = module.embed

    def spoilt(tower, columns):
        vectors = embed(tower, columns)
        if ("history_item_id" in columns) == (side == "user"):
            vectors[-1, 0] = broken
        return vectors

    monkeypatch.setattr(module, "embed", spoilt)
    with pytest.raises(ArtifactError, match=f"{side} embeddings hold NaN or infinity; train again"):
        export(branch.recipe, branch.store, CPU)
    assert_nothing_left(branch)


def test_embeddings_that_are_all_the_same_are_refused(branch, unchecked, monkeypatch):
    embed = module.embed

    def constant(tower, columns):
        vectors = embed(tower, columns)
        return vectors if "history_item_id" in columns else np.ones_like(vectors)

    monkeypatch.setattr(module, "embed", constant)
    with pytest.raises(
        ArtifactError, match=r"all \d+ item embeddings are the same: the item tower learnt nothing"
    ):
        export(branch.recipe, branch.store, CPU)
    assert_nothing_left(branch)


@pytest.mark.quality
def test_a_failed_export_leaves_the_one_before(branch, unchecked, monkeypatch):
    before = export(branch.recipe, branch.store, CPU).folder / "manifest.json"
    signed = before.read_bytes()
    monkeypatch.setattr(module, "embed", lambda tower, columns: np.full((2, 2), np.nan))
    with pytest.raises(ArtifactError, match="NaN"):
        export(branch.recipe, branch.store, CPU)
    assert before.read_bytes() == signed
    assert branch.store.read("export", branch.recipe).rows["dim"] == DIM


def test_without_a_trained_model_there_is_nothing_to_export(tiny, tmp_path):
    run = tiny.prepared.branch(tmp_path)
    with pytest.raises(MissingStage, match=r"train is not there yet. Run `two-tower train`"):
        export(run.recipe, run.store, CPU)
