"""Users of whom raw values are told, beside the raw tower asked directly and naive ranking."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from tiny_run import Run, Tiny

from workflows.ground.errors import ArtifactError, DataError
from workflows.stages.embedding import RawTower
from workflows.stages.export import Export, ExportFiles
from workflows.stages.recommender import ListOptions, Recommender


@pytest.fixture(scope="module")
def run(tiny: Tiny) -> Run:
    return tiny.exported


@pytest.fixture(scope="module")
def export(run: Run) -> Recommender:
    return Recommender.open(run.store, run.recipe)


def user(folder: Path, name: str) -> dict:
    rows = pq.read_table(folder / "user_features.parquet").to_pylist()
    return next(row for row in rows if row["user_id"] == name)


load = cache(tf.saved_model.load)


def embedded(folder: Path, **raw) -> np.ndarray:
    """Ask the SavedModel itself about one user."""
    encode = load(str(folder / "query_tower_raw")).signatures["serving_default"]
    missing = {"age": np.nan, "history_item_id": [""]}
    inputs = {}
    for name, spec in encode.structured_input_signature[1].items():
        value = raw.get(name)
        inputs[name] = tf.constant([missing.get(name, "") if value is None else value], spec.dtype)
    return encode(**inputs)["embedding"].numpy()[0]


def ranked(export: Recommender, vector: np.ndarray, without: list[str]) -> list[str]:
    scores = export.catalogue.vectors.astype(np.float64) @ vector
    ids = export.catalogue.ids.to_pylist()
    order = sorted(range(len(ids)), key=lambda row: (-np.float32(scores[row]), row))
    return [ids[row] for row in order if ids[row] not in without]


def asked(export: Recommender, users: list, told: dict, **wish) -> dict:
    table = export.lists(np.array(users, object), ListOptions(k=100, **wish), pa.table(told))
    found: dict = {}
    for row in table.to_pylist():
        found.setdefault((row["user_id"], row["answered_by"]), []).append(row["item_id"])
    return found


def test_q01_another_occasion_than_the_last_one(run, export):
    folder = run.store.folder("export")
    seen = run.histories(withheld=1)["u6"]
    row = user(folder, "u6")
    orders = []
    for shop in ("web", "app"):
        vector = embedded(folder, **{**row, "shop": shop})
        expected = ranked(export, vector, seen)
        assert asked(export, ["u6"], {"shop": [shop]}) == {("u6", "two-tower"): expected}
        orders.append(vector)
    assert np.abs(orders[0] - orders[1]).max() > 1e-4  # the occasion matters


def test_what_is_not_told_is_as_the_table_says(run, export):
    told = {
        "age": pa.array([None, 80.0], pa.float32()),
        "city": pa.array([None, None], pa.string()),
    }
    found = asked(export, ["u6", "u7"], told)
    plain = export.lists(np.array(["u6"], object), ListOptions(k=100))["item_id"].to_pylist()
    assert found["u6", "two-tower"] == plain
    row = {**user(run.store.folder("export"), "u7"), "age": 80.0}
    vector = embedded(run.store.folder("export"), **row)
    assert found["u7", "two-tower"] == ranked(export, vector, run.histories(withheld=1)["u7"])


def test_somebody_new_is_known_by_what_is_told(run, export):
    history = ["001", "no such", "003", "002", "-1", "004"]
    told = {
        "city": ["Oslo", None, None],
        "history_item_id": pa.array([history, None, None]),
        "shop": [None, "web", None],
    }
    found = asked(export, ["new", "other", None], told)
    latest = history[-4:]  # history.max_len
    vector = embedded(
        run.store.folder("export"), user_id="new", city="Oslo", history_item_id=latest
    )
    assert found["new", "raw features"] == ranked(export, vector, history)
    # an occasion alone says nothing about who asks
    assert found["other", "popularity"] == found[None, "popularity"]
    assert len(found) == 3
    kept = asked(export, ["new"], {n: column[:1] for n, column in told.items()}, keep_seen=True)
    assert set(kept["new", "raw features"]) == run.items


def test_where_the_tower_answers_strangers_the_occasion_counts(run):
    export = Recommender.open(run.store, run.world.recipe("fallback=tower"))
    vector = embedded(run.store.folder("export"), user_id="new", shop="app")
    found = asked(export, ["new"], {"shop": ["app"]})
    assert found == {("new", "unknown-user tower"): ranked(export, vector, [])}


def test_what_the_tower_does_not_take_is_refused(export):
    with pytest.raises(DataError, match=r"The query tower takes no 'colour'\. It takes .*city"):
        asked(export, ["u6"], {"colour": ["red"]})
    with pytest.raises(DataError, match="column 'age': expected numbers"):
        RawTower.open(export.export.files.folder / "query_tower_raw").embed(
            pa.table({"age": ["old"]})
        )


@pytest.mark.parametrize(
    ("item_rows", "said"),
    [
        ([[0]], "it has other users"),
        ([[10**6]], "histories name rows beyond the items"),
        ([[-1]], "histories name rows beyond the items"),
        ([[0.5]], "item_rows holds no lists of whole numbers"),
        ([7], "item_rows holds no lists of whole numbers"),
        (None, "item_rows"),
    ],
)
def test_histories_of_another_form_are_refused_by_name(run, export, tmp_path, item_rows, said):
    n_users = 1 if said == "it has other users" else len(export.export.user_ids)
    columns = {"item_rows": (item_rows or [[0]]) * n_users} if item_rows else {"x": [1] * n_users}
    files = ExportFiles(tmp_path)
    for name in ("user_embeddings.parquet", "item_features.parquet"):
        shutil.copy(export.export.files.folder / name, tmp_path)
    pq.write_table(pa.table(columns), files.histories)
    broken = Export(files, run.recipe, "test")
    with pytest.raises(ArtifactError, match=rf"histories\.parquet is not what .* export.*{said}"):
        broken.seen(np.arange(1))


@pytest.mark.parametrize("counts", [np.zeros(3, np.int64), np.zeros(14), np.array([{}], object)])
def test_counts_of_another_form_are_refused_by_name(run, export, tmp_path, counts):
    files = ExportFiles(tmp_path)
    shutil.copy(export.export.files.folder / "item_features.parquet", tmp_path)
    np.save(files.item_counts, counts)
    with pytest.raises(ArtifactError, match=r"item_counts\.npy is not what `two-tower export`"):
        _ = Export(files, run.recipe, "test").item_counts


def test_only_allowed_items_are_shown(export):
    nobody = np.array(["u6"], object)
    shown = export.lists(
        nobody, ListOptions(k=100, keep_seen=True, allow=("003", "-1"), deny=("-1",))
    )
    assert shown["item_id"].to_pylist() == ["003"]
    assert len(export.lists(nobody, ListOptions(k=5, allow=()))) == 0


def test_every_row_of_both_tables_is_embedded_as_in_the_export(export):
    """In batches of three: the batch changes nothing."""
    for side, tower in (("user", export.export.query_tower), ("item", export.export.item_tower)):
        rows = pq.read_table(export.export.files.folder / f"{side}_features.parquet")
        expected = pq.read_table(export.export.files.folder / f"{side}_embeddings.parquet")[
            "embedding"
        ]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("workflows.stages.embedding.BATCH", 3)
            found = tower.embed(rows)
        np.testing.assert_allclose(found, np.stack(expected.to_numpy()), rtol=1e-5, atol=1e-5)
        assert tower.embed(rows.slice(0, 0)).shape == (0, found.shape[1])
