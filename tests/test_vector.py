"""Vectors go the whole way: parquet lists and text, etl, both towers, raw rows and questions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from live import served
from tiny_run import CPU, SETTINGS, Run, World, steps_run_eagerly
from world import RECIPE

from models.towers.tower import embed
from models.towers.vectors import ItemVectors, Vectors
from workflows.etl import etl
from workflows.export import export
from workflows.ground.errors import DataError, RecipeError
from workflows.index import index
from workflows.serve.app import build
from workflows.serve.current_export import CurrentExport
from workflows.serve.loaded_export import LoadedExport, stamps
from workflows.stages.embedding import RawTower
from workflows.stages.etl import Prepared
from workflows.stages.index import IndexFiles
from workflows.stages.store import Store
from workflows.stages.train import load_model
from workflows.towers import raw_towers
from workflows.train import train
from workflows.triton import triton

pytestmark = pytest.mark.usefixtures("checked_here")

FEATURES = """\
  look: {role: item, kind: vector, dim: 3, dropout: 0.25}
  taste: {role: user, kind: vector, dim: 2, separator: " ", normalize: true}
"""
TEXT = RECIPE.replace("films.csv", "films.parquet") + FEATURES + SETTINGS
TASTES = ["0.5 -1", None, "1e-3 2", " 3  4 ".strip(), "[5, 6]", "0 0", "7 8", ""]


def looks(n: int) -> list[list[float] | None]:
    return [None if i == 2 else [i / 4, -i, 1.0] for i in range(n)]


def world(
    folder: Path, *, kind: pa.DataType | None = None, gap: list[float] | None = None
) -> World:
    """Write the tiny world with films in parquet that have a look, and people who have a taste."""
    found = World(folder / "raw", text=TEXT)
    for row, taste in zip(found.people, [t and t.replace("  ", " ") for t in TASTES], strict=True):
        row["taste"] = taste
    found.write()
    films = {name: [row[name] for row in found.films] for name in found.films[0]}
    looks_of = pa.array([v or gap for v in looks(len(found.films))], kind or pa.list_(pa.float64()))
    pq.write_table(pa.table({**films, "look": looks_of}), found.folder / "films.parquet")
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("vector")
    made = world(folder)
    run = Run(made, made.recipe("model.history_content=true"), Store(folder / "run"))
    etl(run.recipe, run.store, CPU, data=made.folder)
    return run


@pytest.fixture(scope="module")
def exported(run: Run) -> Run:
    with steps_run_eagerly():
        train(run.recipe, run.store, CPU)
    export(run.recipe, run.store, CPU)
    return run


def test_etl_writes_the_vectors_of_the_raw_files(run: Run) -> None:
    prepared = Prepared.open(run.store, run.recipe)
    ids = [row["item_id"] for row in run.world.films]
    expected = dict(zip(ids, looks(len(ids)), strict=True))
    found = dict(
        zip(*(prepared.raw_items[c].to_pylist() for c in ("item_id", "look")), strict=True)
    )
    assert {i: found[i] for i in ids} == expected
    assert found["ghost"] is None  # a film of the log that no table has
    column = prepared.items["look"]
    encoded = [column[row] for row in range(len(column))]
    assert [list(v) for v in encoded] == [v or [] for v in prepared.raw_items["look"].to_pylist()]
    users = dict(
        zip(*(prepared.raw_users[c].to_pylist() for c in ("user_id", "taste")), strict=True)
    )
    assert users["0108775015"] == [0.5, -1.0]
    assert users['say "hi"'] == [5.0, 6.0]
    assert users["-8200171396217105230"] is None
    assert users["u8"] is None


KINDS = [pa.list_(pa.float64()), pa.list_(pa.float32()), pa.list_(pa.float32(), 3)]


def test_lists_of_any_arrow_type_give_the_same_bytes(tmp_path: Path) -> None:
    found = set()
    for number, kind in enumerate(KINDS):
        folder = tmp_path / str(number)
        folder.mkdir()
        made = world(folder, kind=kind, gap=[0.0, 0.0, 0.0])  # parquet has no gaps of fixed lists
        store = Store(folder / "run")
        etl(made.recipe(), store, CPU, data=made.folder)
        names = ("items/part-0.parquet", "items/schema.pbtxt", "train/part-0.parquet")
        found.add(tuple((store.folder("etl") / name).read_bytes() for name in names))
    assert len(found) == 1


@pytest.mark.parametrize(
    ("taste", "message"),
    [
        ("1", r"people\.csv, column 'taste', row 3: 1 numbers, where features\.taste\.dim says 2"),
        ("1 2 3", "row 3: 3 numbers, where"),
        ("1 inf", "row 3: the vector holds inf"),
        ("1 x", "row 3"),
    ],
)
def test_a_wrong_vector_is_refused_with_its_row(tmp_path: Path, taste: str, message: str) -> None:
    made = world(tmp_path)
    made.people[2]["taste"] = taste
    made.write()
    with pytest.raises(DataError, match=message):
        etl(made.recipe(), Store(tmp_path / "run"), CPU, data=made.folder)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("features.look={role: item, kind: vector}", "kind vector needs dim"),
        ("features.look={role: item, kind: number, dim: 3}", "dim is for kind vector"),
        ("features.look={role: item, kind: vector, dim: 3, vocabulary: {}}", "vocabulary is for"),
        ("features.look={role: item, kind: vector, dim: 3, id: true}", "an id has role"),
        ("features.look={role: item, kind: vector, dim: 0}", "dim"),
        ("features.look={role: item, kind: vector, dim: 3, dropout: 1}", "dropout"),
        ("features.look={role: item, dropout: 0.1}", "dropout is for kind vector"),
    ],
)
def test_a_wrong_feature_is_refused(tmp_path: Path, override: str, message: str) -> None:
    made = world(tmp_path)
    if message == "vocabulary is for":
        override = override.replace("{}}", "{min_count: 2}}")
    with pytest.raises(RecipeError, match=message):
        made.recipe(override)


def test_the_vector_is_an_input_of_its_tower(exported: Run) -> None:
    prepared = Prepared.open(exported.store, exported.recipe)
    model = load_model(exported.store, exported.recipe, prepared)
    tower = model.candidate_encoder
    inputs = {name: prepared.items[name] for name in tower.schema.column_names}
    assert "look" in inputs
    before = embed(tower, inputs)
    values = inputs["look"]
    changed = {**inputs, "look": type(values)(values.values * 3, values.offsets)}
    moved = np.abs(embed(tower, changed) - before).max(axis=1)
    is_zero = np.array([not any(v or [0]) for v in prepared.raw_items["look"].to_pylist()])
    assert (moved[is_zero] == 0).all()
    assert (moved[~is_zero] > 1e-6).all()


def test_training_alone_drops_numbers_of_a_vector(exported: Run) -> None:
    prepared = Prepared.open(exported.store, exported.recipe)
    model = load_model(exported.store, exported.recipe, prepared)
    (vectors,) = (m for m in model.candidate_encoder.submodules if isinstance(m, Vectors))
    (kept,) = (m for m in model.query_encoder.submodules if isinstance(m, ItemVectors))
    vectors.kernels["look"].assign(np.eye(3, vectors.project))
    given = tf.constant(np.random.default_rng(0).uniform(1, 2, (4000, 3)), tf.float32)
    np.testing.assert_array_equal(vectors.encode("look", given, False)[:, :3], given)
    drawn = vectors.encode("look", given, True).numpy()[:, :3]
    is_zero = drawn == 0
    assert is_zero.mean() == pytest.approx(0.25, abs=0.02)
    np.testing.assert_allclose(drawn[~is_zero], given.numpy()[~is_zero] / 0.75, rtol=1e-6)
    codes = tf.fill([200], int(np.argmax(np.abs(kept.tables["look"]).sum(axis=1))))
    assert len(np.unique(kept(codes, training=True), axis=0)) > 1
    assert len(np.unique(kept(codes, training=False), axis=0)) == 1


def test_raw_rows_have_the_embeddings_of_the_tables(exported: Run) -> None:
    folder = exported.store.folder("export")
    tower = RawTower.open(folder / "item_tower_raw")
    loaded = tf.saved_model.load(str(folder / "item_tower_raw"))
    spec = loaded.signatures["serving_default"].structured_input_signature[1]["look"]
    assert (spec.shape.as_list(), spec.dtype) == ([None, 3], tf.float32)
    features = pq.read_table(folder / "item_features.parquet")
    expected = np.stack(pq.read_table(folder / "item_embeddings.parquet")["embedding"].to_numpy())
    np.testing.assert_allclose(tower.embed(features), expected, atol=1e-5)
    bare = tower.embed(features.drop(["look"]))
    assert np.abs(bare - expected).max() > 1e-4  # the control
    short = pa.table({"look": pa.array([[1.0, 2.0]], pa.list_(pa.float32()))})
    with pytest.raises(DataError, match=r"column 'look': expected lists of 3 numbers, got .*of 2"):
        tower.embed(short)


def test_a_question_brings_a_vector(exported: Run) -> None:
    current = CurrentExport(
        lambda: LoadedExport.open(exported.store, exported.recipe), lambda: stamps(exported.store)
    )
    tower = RawTower.open(exported.store.folder("export") / "query_tower_raw")
    with served(build(current)) as client:
        body = {"users": [{"taste": [1, 2.5]}, {"taste": None}]}
        answer = client.post("/embed", json=body)
        assert answer.status_code == 200, answer.text
        found = np.array(answer.json()["users"])
        rows = pa.table({"taste": pa.array([[1, 2.5], None], pa.list_(pa.float32()))})
        np.testing.assert_allclose(found, tower.embed(rows), atol=1e-5)
        assert np.abs(found[0] - found[1]).max() > 1e-6
        longer = client.post("/embed", json={"users": [{"taste": [4, 10]}]}).json()["users"]
        np.testing.assert_allclose(longer[0], found[0], atol=1e-6)  # normalize: true
        for wrong in ([1], [1, "x"], 3, "1 2", [1, 1e300]):
            answer = client.post("/embed", json={"users": [{"taste": wrong}]})
            assert answer.status_code == 422, wrong
        assert (
            "a list of 2 numbers, or null"
            in client.post("/embed", json={"users": [{"taste": [1]}]}).text
        )


def test_a_query_brings_a_history_whose_items_have_vectors(exported: Run) -> None:
    """The exported query tower looks the vectors up by the raw ids of the history."""
    prepared = Prepared.open(exported.store, exported.recipe)
    model = load_model(exported.store, exported.recipe, prepared)
    content = next(b for b in model.query_encoder.submodules if isinstance(b, ItemVectors))
    assert set(content.tables) == {"look"}
    folder = exported.store.folder("export")
    tower = RawTower.open(folder / "query_tower_raw")
    items = exported.world.films[1]["item_id"], exported.world.films[3]["item_id"]
    rows = pa.table({"history_item_id": [[items[0]], [items[1]], ["nowhere"]]})
    before = tower.embed(rows)
    codes = prepared.vocabularies["item_id"].encode(pa.array([items[0]]))
    table = content.tables["look"]
    rises = content(tf.constant(codes)).numpy()[0]
    table.scatter_nd_update([[int(codes[0])]], [np.zeros(3)])
    assert np.abs(rises).max() > 1e-4
    raw_towers.save(
        model.query_encoder,
        folder.parent / "bare",
        recipe=exported.recipe,
        vocabularies=prepared.vocabularies,
        numbers=prepared.numbers,
        states=prepared.states,
    )
    moved = before - RawTower.open(folder.parent / "bare").embed(rows)
    np.testing.assert_allclose(moved[0], [*rises, 0], atol=1e-5)  # its bias dimension is 1
    np.testing.assert_allclose(moved[1:], 0, atol=1e-6)


def test_triton_takes_vectors(exported: Run, tmp_path: Path) -> None:
    folder = triton(exported.recipe, exported.store, to=tmp_path / "models").folder
    text = (folder / "two_tower" / "config.pbtxt").read_text(encoding="utf-8")
    assert 'input { name: "taste" data_type: TYPE_FP32 dims: [ -1, 2 ] }' in text
    saved = folder / "two_tower_query" / "1" / "model.savedmodel"
    tower = RawTower.open(saved)
    rows = pa.table({"taste": pa.array([[1, 2.5], None], pa.list_(pa.float32()))})
    expected = RawTower.open(exported.store.folder("export") / "query_tower_raw").embed(rows)
    np.testing.assert_array_equal(tower.embed(rows), expected)


def test_new_items_bring_vectors(exported: Run, tmp_path: Path) -> None:
    more = tmp_path / "more.parquet"
    looks_of = [[1.0, 2, 3], None]
    rest = {"genres": [["a"], None], "price": [1.0, None]}
    pq.write_table(pa.table({"item_id": ["n1", "n2"], "look": looks_of, **rest}), more)
    assert index(exported.recipe, exported.store, CPU, add=more).added == 2
    added = pq.read_table(IndexFiles(exported.store.folder("index")).added)
    tower = RawTower.open(exported.store.folder("export") / "item_tower_raw")
    rows = pa.table({"item_id": ["n1", "n2"], "look": looks_of, "genres": [["a"], None]})
    rows = rows.append_column("price", pa.array([1.0, None], pa.float32()))
    found = np.stack(added["embedding"].to_numpy())
    np.testing.assert_allclose(found, tower.embed(rows), atol=1e-5)
    assert np.abs(found - tower.embed(rows.drop(["look"]))).max(axis=1)[0] > 1e-4
