"""The verbs of a recipe with offers, on a tiny sample of REES46."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from reference_pages.files import documented
from rich.console import Console
from stages import DEVICE
from tampering import link_weights, plant, resign
from tiny_run import steps_run_eagerly
from typer.testing import CliRunner
from world import UNKNOWN_USER, USERS, World

from models.core.columns import as_array
from models.core.reserved_codes import UNSEEN
from models.core.retriever import Ragged
from models.offers.similarity import cosines
from models.training.epoch import Epoch
from samples import sample
from workflows import recipe as recipes
from workflows.cli import app
from workflows.etl import etl
from workflows.evaluate import evaluate
from workflows.export import export
from workflows.ground.errors import ArtifactError, DataError, RecipeError, StaleInput
from workflows.model_kinds import open_models
from workflows.model_kinds.offers import OfferModels
from workflows.offers import export as offers_export
from workflows.offers.audience import OfferExport, audience, parsed, similar
from workflows.offers.evaluation import task
from workflows.offers.table import protocol, tables
from workflows.recipe import Recipe
from workflows.recipe.search_space import Range
from workflows.report import report
from workflows.stages.dependencies import PARTS
from workflows.stages.offer_data import OfferData
from workflows.stages.offers_report import OffersReport, Score
from workflows.stages.store import Store
from workflows.stages.train_files import TrainFiles
from workflows.train import train

SETTINGS = [
    "vocabulary.min_count=2",
    "model.models={augmented: {}, mono-brand: {attributes: [brand], group_by: false, "
    "mask_net: false, bilinear: false}}",
    "model.dim=8",
    "model.layers=[8, 4]",
    "train.batch_size=220",
    "train.epochs=2",
    "tasks.bands={few: [0, 3]}",
    "tasks.similar=6",
]


class Shop:
    """A run on the tiny sample whose stages are made when they are first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.recipe: Recipe = recipes.load(recipes.find("rees46"), SETTINGS, variant="small")
        self.store = Store(folder / "run")

    @cached_property
    def log(self) -> pd.DataFrame:
        """The raw log in order of time, without views, of users who bought."""
        files = sample("rees46", "tiny", self.folder / "raw").files
        text = {"product_id": str, "user_id": str}
        log = pd.concat(pd.read_csv(self.folder / "raw" / f.name, dtype=text) for f in files)
        log = log[log.event_type != "view"].reset_index(drop=True)
        buyers = log.user_id[log.event_type == "purchase"]
        return log[log.user_id.isin(buyers)].assign(day=log.event_time.str[:10])

    @cached_property
    def prepared(self) -> OfferData:
        assert len(self.log)
        etl(self.recipe, self.store, DEVICE, data=self.folder / "raw")
        return OfferData.open(self.store, self.recipe)

    @cached_property
    def trained(self) -> OfferData:
        offer_data = self.prepared
        with steps_run_eagerly():
            train(self.recipe, self.store, DEVICE)
        return offer_data

    @cached_property
    def exported(self) -> Path:
        assert self.trained
        return export(self.recipe, self.store, DEVICE).folder


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(tmp_path_factory.mktemp("shop"))


# ── etl ─────────────────────────────────────────────────────────────────────────────────


def test_e16_splits_hold_purchases_and_lists_of_strictly_earlier_days(shop: Shop) -> None:
    vocabulary = shop.prepared.prepared.vocabularies["product_id"]
    found = set()
    for part in ("train", "valid", "test"):
        columns = shop.prepared.prepared.part(part)
        lists = {kind: columns[f"history_{kind}_product_id"] for kind in ("cart", "purchase")}
        seconds = as_array(columns["event_time"]).astype("datetime64[s]")
        days = np.datetime_as_string(seconds, unit="D")
        codes = as_array(columns["product_id"])
        for row, (day, code) in enumerate(zip(days, codes, strict=True)):
            of_row = [lists[kind] for kind in lists]
            assert all(isinstance(column, Ragged) for column in of_row)
            found.add((day, int(code), *(tuple(column[row].tolist()) for column in of_row)))
    expected = set()
    for _, mine in shop.log.groupby("user_id"):
        for event in mine[mine.event_type == "purchase"].itertuples():
            earlier = mine[mine.day < event.day]
            of_kind = [earlier[earlier.event_type == kind] for kind in ("cart", "purchase")]
            cut = [tuple(vocabulary.encode(pa.array(e.product_id))[-100:]) for e in of_kind]
            code = vocabulary.encode(pa.array([event.product_id]))[0]
            expected.add((event.day, int(code), *cut))
    assert found == expected
    assert any(carts for _, _, carts, _ in found)


def test_e14_vocabularies_count_carts_and_purchases_of_train(shop: Shop) -> None:
    prepared = shop.prepared.prepared
    users = set(prepared.raw_users[shop.recipe.user_id].to_pylist()) - {None}
    counts = shop.log[shop.log.user_id.isin(users)].product_id.value_counts()
    vocabulary = prepared.vocabularies["product_id"]
    assert dict(zip(vocabulary.values.to_pylist(), vocabulary.counts, strict=True)) == {
        product: n for product, n in counts.items() if n >= 2
    }
    assert vocabulary.oov_buckets == 10


def test_what_is_known_of_each_user_is_all_of_his_log(shop: Shop) -> None:
    offer_data = shop.prepared
    vocabulary = offer_data.prepared.vocabularies["product_id"]
    assert set(offer_data.user_ids.to_pylist()) == set(shop.log.user_id)
    lists = offer_data.latest["history_cart_product_id"]
    for row in (0, 7, len(offer_data.user_ids) - 1):
        mine = shop.log[shop.log.user_id == offer_data.user_ids[row].as_py()]
        carts = mine.product_id[mine.event_type == "cart"]
        assert list(lists[row]) == list(vocabulary.encode(pa.array(carts))[-100:])


def test_e15_no_row_of_test_changes_what_is_learnt(shop: Shop, tmp_path: Path) -> None:
    prepared = shop.prepared.prepared
    known = set(prepared.raw_users[shop.recipe.user_id].to_pylist())
    stranger = next(u for u in shop.log.user_id if u not in known)
    raw = tmp_path / "raw"
    sample("rees46", "tiny", raw)
    for path in raw.glob("*.csv.gz"):
        log = pd.read_csv(path, dtype=str, keep_default_na=False)
        log.loc[log.user_id == stranger, "price"] = "99999.0"
        log.to_csv(path, index=False)
    store = Store(tmp_path / "run")
    etl(shop.recipe, store, DEVICE, data=raw)
    for name in ("vocabulary/product_id.parquet", "vocabulary/price_cluster.parquet"):
        one, other = (s.folder("etl") / name for s in (shop.store, store))
        assert one.read_bytes() == other.read_bytes()


# ── offers ──────────────────────────────────────────────────────────────────────────────


def test_a_task_has_the_offers_of_test_values_that_have_a_code(shop: Shop) -> None:
    offer_data = shop.prepared
    pairs = offer_data.pairs("test", seed=1)
    assert pairs is not None
    made = task(offer_data, "brand", pairs.columns)
    codes = as_array(pairs.columns["brand"])
    first = offer_data.prepared.vocabularies["brand"].first_code
    assert ((made.keys < 0) == (codes < first)).all(), "[UNK] is nobody's offer"
    assert made.n_offers == len(set(codes[codes >= first]))
    assert (
        made.offers["brand"].lists.values[made.keys[codes >= first]] == codes[codes >= first]
    ).all()
    again = offer_data.pairs("test", seed=1)
    assert again is not None
    assert (as_array(again.columns["brand"]) == codes).all(), "the same in each call"


def test_an_offer_is_read_as_it_is_written() -> None:
    names = ["brand", "category1"]
    assert parsed("brand=x", names) == {"brand": "x"}
    assert parsed("brand=a,b=c,category1=d", names) == {"brand": "a,b=c", "category1": "d"}
    for text in ("brand", "color=x", "brand=x,brand=y", ""):
        with pytest.raises(DataError, match="expected attribute=value, each once"):
            parsed(text, names)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.monitor=val_mean", "'val_mean' is not measured; expected one of val_auc"),
        ("train.batch_size=21", "multiple of 5, got 21"),
        ("train.batch_size=5000", "rows make no batch of 5000"),
    ],
)
def test_settings_that_cannot_train_are_refused(shop: Shop, setting: str, message: str) -> None:
    assert shop.prepared
    recipe = recipes.load(recipes.find("rees46"), [*SETTINGS, setting], variant="small")
    with pytest.raises(RecipeError, match=message):
        train(recipe, shop.store, DEVICE)
    assert not list(shop.store.root.glob(".train.new")), "nothing half-written stays behind"


def test_verbs_of_two_towers_say_whom_to_ask(shop: Shop) -> None:
    verbs = ["index", "recommend", "similar-items --item 1", "serve", "load", "triton"]
    for verb in verbs:
        done = CliRunner().invoke(app, [*verb.split(), "--recipe", "rees46"])
        assert isinstance(done.exception, RecipeError)
        assert "Use `audience`, `similar-offers`" in str(done.exception)
    for verb in ("audience", "similar-offers"):
        done = CliRunner().invoke(app, [verb, "--offer", "a=b", "--recipe", "movielens-100k"])
        assert isinstance(done.exception, RecipeError)
        assert f"of kind two_tower, and `{verb}` is for models of kind offers. Use `recom" in str(
            done.exception
        )


def test_a_stage_that_knows_no_offers_is_stale(world: World) -> None:
    store = Store(world.folder.parent / "run")
    settings = ["history.columns=[item_id]", "split={kind: random, valid: 0, test: 0.3}"]
    etl(world.recipe(*settings), store, DEVICE, data=world.folder)
    recipe = world.recipe(*settings, "model={kind: offers}")
    with pytest.raises(StaleInput, match="was made before the recipe had models of offers"):
        OfferData.open(store, recipe)
    etl(recipe, store, DEVICE, data=world.folder)
    assert set(OfferData.open(store, recipe).user_ids.to_pylist()) <= {*USERS, UNKNOWN_USER}


# ── train, evaluate, export, ask ────────────────────────────────────────────────────────


@pytest.mark.quality
def test_v07_every_model_is_scored_on_every_task(shop: Shop) -> None:
    assert shop.trained
    result = evaluate(shop.recipe, shop.store, DEVICE)
    report = result.report
    tasks = shop.prepared.tasks
    cells = {(s.model, s.task, s.band) for s in report.scores}
    models, bands = ("augmented", "mono-brand"), ("all", "few")
    assert cells == {(m, t, b) for m in models for t in tasks for b in bands}
    for score in report.scores:
        assert score.wauc is None or 0 <= score.wauc <= 1
        assert (score.low, score.high) == ((0, None) if score.band == "all" else (0, 3))
    every = {s.task: s for s in report.scores if s.band == "all" and s.model == "augmented"}
    few = {s.task: s for s in report.scores if s.band == "few" and s.model == "augmented"}
    assert all(few[t].positives <= every[t].positives <= report.events for t in tasks)
    assert report.pairs == report.events * 5
    again = evaluate(shop.recipe, shop.store, DEVICE).report
    assert again.scores == report.scores
    assert len(tables(report)) == 3
    assert "in mini-batches of 5" in protocol(report)
    written = json.loads((result.folder / "report.json").read_text())
    assert len(written["scores"]) == len(report.scores)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_every_figure_of_every_task_is_whole(width: int) -> None:
    tasks = ("product_id", "category1", "category2", "category3", "brand", "price_cluster")
    scores = [
        Score(
            model=model,
            task=name,
            band="all",
            low=0,
            high=None,
            wauc=0.5 + m / 10 + t / 100 if t else None,
            offers=7,
            positives=9,
            one_class=2,
        )
        for m, model in enumerate(("augmented", "popularity"))
        for t, name in enumerate(tasks)
    ]
    report = OffersReport(
        pairs=9,
        events=9,
        without_history=0.0,
        negatives=4,
        source="train",
        top=3,
        scores=scores,
        seconds={},
    )
    console = Console(width=width, file=io.StringIO(), record=True)
    for table in tables(report):
        console.print(table)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    expected = [*tasks, *(f"{s.wauc:.3f}" for s in scores if s.wauc is not None)]
    assert [shown for shown in expected if shown not in text] == []


@pytest.mark.quality  # `export` has a fresh process give them in each run
def test_m16_a_fresh_process_gives_the_same_vectors(shop: Shop, tmp_path: Path) -> None:
    offer_data = shop.trained
    here = offer_data.load(shop.store, "augmented").users(offer_data.latest)
    code = f"""
from pathlib import Path
import numpy as np
from workflows.ground import device; device.choose("cpu")
from workflows import recipe as recipes
from workflows.report import report
from workflows.stages.offer_data import OfferData
from workflows.stages.store import Store
recipe = recipes.load(recipes.find("rees46"), {SETTINGS!r}, variant="small")
store = Store(Path({str(shop.store.root)!r}))
data = OfferData.open(store, recipe)
np.save({str(tmp_path / "there.npy")!r}, data.load(store, "augmented").users(data.latest))
"""
    root = Path(recipes.__file__).parents[2]
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    np.testing.assert_allclose(np.load(tmp_path / "there.npy"), here, atol=1e-5)
    assert np.ptp(here, axis=0).max() > 0.01


def test_x06_the_export_holds_offers_and_their_similarities(shop: Shop) -> None:
    folder = shop.exported
    assert {path.name for path in folder.iterdir()} <= documented("export")
    brands = pq.read_table(folder / "offer_embeddings" / "brand.parquet")
    assert brands.schema.metadata[b"shape"] == b"3x8"
    assert brands["value"].to_pylist() == shop.prepared.values("brand")[1]
    similar = pq.read_table(folder / "similarity" / "brand.parquet")
    names = similar["value"].to_pylist()
    assert similar.column_names == ["value", "cosines"]
    matrix = np.stack(similar["cosines"].to_numpy())
    assert matrix.shape == (len(names), len(names))
    np.testing.assert_array_equal(matrix, matrix.T)
    np.testing.assert_array_equal(np.diag(matrix), 1)
    counts = dict(zip(brands["value"].to_pylist(), brands["events"].to_pylist(), strict=True))
    assert min(counts[n] for n in names) >= sorted(counts.values())[-6], "the most frequent"
    if find_spec("matplotlib"):  # the NGC container has none
        assert (folder / "similarity" / "brand.png").read_bytes().startswith(b"\x89PNG")


def test_q06_an_audience_is_ranked_as_the_model_scores_it(shop: Shop, tmp_path: Path) -> None:
    assert shop.exported
    brand = shop.prepared.values("brand")[1][0]
    result = audience(shop.recipe, shop.store, f"brand={brand}", k=5)
    assert [row["rank"] for row in result.users] == [1, 2, 3, 4, 5]
    scores = [row["score"] for row in result.users]
    assert scores == sorted(scores, reverse=True)
    bought = shop.log[(shop.log.event_type == "purchase") & (shop.log.brand == brand)]
    assert result.events == len(bought)
    asked = shop.prepared.load(shop.store, "augmented")
    offers, _ = OfferExport.open(shop.store, shop.recipe).described(f"brand={brand}")
    users = asked.users(shop.prepared.latest)
    found = asked.score(users[None], asked.offers(offers)[None])[0, :, 0]
    best = np.argsort(-found, kind="stable")[:5]
    ids = shop.prepared.user_ids.take(best).to_pylist()
    assert [row["user_id"] for row in result.users] == ids
    alone = Store(shutil.copytree(shop.exported, tmp_path / "my shop"))
    assert audience(shop.recipe, alone, f"brand={brand}", k=5).users == result.users
    there = similar(shop.recipe, shop.store, f"brand={brand}", k=3)
    assert similar(shop.recipe, alone, f"brand={brand}", k=3) == there
    with pytest.raises(DataError, match="is not in the vocabulary"):
        audience(shop.recipe, shop.store, "brand=nobody")
    top = shop.prepared.values("category1")[1][0]
    nothing = f"category1={top},category2={_of_another(shop, top)}"
    with pytest.raises(DataError, match="no event has all of these values"):
        audience(shop.recipe, shop.store, nothing)


def _of_another(shop: Shop, top: str) -> str:
    levels = shop.log.category_code.dropna().str.split(".", expand=True)
    mine = set(levels[1][levels[0] == top])
    known = shop.prepared.values("category2")[1]
    return next(value for value in known if value not in mine)


def test_q05_similar_offers_leave_the_offer_itself_out(shop: Shop) -> None:
    assert shop.exported
    values = shop.prepared.values("category2")[1]
    rows = similar(shop.recipe, shop.store, f"category2={values[0]}", k=100)
    assert {row["category2"] for row in rows} == set(values) - {values[0]}
    cosines = [row["cosine"] for row in rows]
    assert cosines == sorted(cosines, reverse=True)
    with pytest.raises(DataError, match="expected one attribute=value"):
        similar(shop.recipe, shop.store, "brand=a,category2=b")


@pytest.mark.parametrize("tower", ["offer_tower", "scorer"])
def test_an_audience_of_a_planted_tower_is_refused(shop: Shop, tmp_path: Path, tower: str) -> None:
    planted = Store(shutil.copytree(shop.exported.parent, tmp_path / "planted"))
    export = planted.folder("export")
    plant(export / tower, "WriteFile", str(tmp_path / "pwned").encode())
    resign(export)
    brand = f"brand={shop.prepared.values('brand')[1][0]}"
    with pytest.raises(ArtifactError, match=rf"{tower}.*holds the operation WriteFile"):
        audience(shop.recipe, planted, brand)
    assert similar(shop.recipe, planted, brand) == similar(shop.recipe, shop.store, brand)
    assert not (tmp_path / "pwned").exists(), "similar offers need no tower"


def test_a_damaged_etl_stage_of_offers_is_named(shop: Shop, tmp_path: Path) -> None:
    planted = Store(shutil.copytree(shop.prepared.prepared.folder.parent, tmp_path / "planted"))
    etl_folder = planted.folder("etl")
    (etl_folder / "train" / "schema.pbtxt").write_text("feature {")
    for path in (etl_folder / "latest").glob("part-*.parquet"):
        path.write_bytes(b"x")
    resign(etl_folder)
    offer_data = OfferData.open(planted, shop.recipe)
    with pytest.raises(ArtifactError, match=r"etl/train is not what `two-tower etl` writes"):
        offer_data.build("augmented")
    for name in ("latest", "user_ids"):
        with pytest.raises(ArtifactError, match=r"etl/latest is not what `two-tower etl` writes"):
            getattr(offer_data, name)


def test_similar_offers_of_another_form_are_refused(shop: Shop, tmp_path: Path) -> None:
    planted = Store(shutil.copytree(shop.exported.parent, tmp_path / "planted"))
    path = planted.folder("export") / "offer_embeddings" / "brand.parquet"
    pq.write_table(pq.read_table(path).replace_schema_metadata({}), path)
    resign(planted.folder("export"))
    brand = f"brand={shop.prepared.values('brand')[1][0]}"
    with pytest.raises(ArtifactError, match=r"brand\.parquet is not what .*export` writes"):
        similar(shop.recipe, planted, brand)


@pytest.mark.parametrize("verb", [evaluate, export])
def test_planted_weights_of_offers_are_refused(shop: Shop, tmp_path: Path, verb: Any) -> None:
    assert shop.trained
    planted = Store(shutil.copytree(shop.store.root, tmp_path / "planted"))
    link_weights(planted.folder("train") / "augmented.weights.h5", tmp_path / "secret.h5")
    resign(planted.folder("train"))
    with pytest.raises(ArtifactError, match=r"has a link at 'planted'.*It was not loaded"):
        verb(shop.recipe, planted, DEVICE)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("model.models={../evil: {}}", r"Expected `str` matching regex"),
        ("tasks.source=valid", "tasks.source is 'valid', and the split has no such part"),
    ],
)
def test_a_recipe_of_offers_that_cannot_be_is_refused(setting: str, said: str) -> None:
    path = recipes.find("rees46")
    with pytest.raises(RecipeError, match=said):
        recipes.load(path, ["split={kind: by_user, valid: 0, test: 0.2}", setting])


# ── one road: what two towers can, models of offers can ─────────────────────────────────


def branch(shop: Shop, folder: Path, *settings: str) -> tuple[Recipe, Store]:
    """Return a recipe and a run of its own that begins with the etl stage of the shop."""
    assert shop.prepared
    shutil.copytree(shop.store.folder("etl"), folder / "etl")
    recipe = recipes.load(recipes.find("rees46"), [*SETTINGS, *settings], variant="small")
    return recipe, Store(folder)


class StopInSecondModel(tf.keras.callbacks.Callback):
    """End the process, as it were, in the second epoch of the second model."""

    fits = 0

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self.fits += 1

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if self.fits == 2 and epoch == 1:
            raise KeyboardInterrupt


def weights_in(path: Path) -> dict[str, np.ndarray]:
    """Return the weights of a file by their names; Keras' running mean of the loss is none."""
    found: dict[str, np.ndarray] = {}

    def note(name: str, node: object) -> None:
        if isinstance(node, h5py.Dataset) and not name.startswith("metrics"):
            found[name] = node[...]

    with h5py.File(path) as file:
        file.visititems(note)
    assert found
    return found


def test_an_interrupted_training_of_several_models_goes_on(shop: Shop, tmp_path: Path) -> None:
    whole = shop.trained.prepared.folder.parent / "train"
    recipe, store = branch(shop, tmp_path / "run")
    with steps_run_eagerly():
        with pytest.raises(KeyboardInterrupt):
            train(recipe, store, DEVICE, callbacks=[StopInSecondModel()])
        assert {p.name for p in (store.root / ".train.checkpoint").iterdir()} == {
            "augmented",
            "mono-brand",
        }
        again = StopInSecondModel()
        result = train(recipe, store, DEVICE, resume=True, callbacks=[again])
    assert again.fits == 1, "the first model was finished"
    assert list(result.fits) == ["augmented", "mono-brand"]
    assert not (store.root / ".train.checkpoint").exists()
    for name in ("augmented", "mono-brand"):
        ours, theirs = (TrainFiles(f, name) for f in (store.folder("train"), whole))
        assert ours.history.read_bytes() == theirs.history.read_bytes()
        found, expected = weights_in(ours.weights), weights_in(theirs.weights)
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[name], expected[name]) for name in found)


def test_models_of_offers_begin_with_an_earlier_runs_weights(shop: Shop, tmp_path: Path) -> None:
    assert shop.trained
    recipe, store = branch(shop, tmp_path / "run", "train.epochs=1", "optimizer.lr=1e-12")
    with steps_run_eagerly():
        train(recipe, store, DEVICE, warm_start=shop.store)
    for name in ("augmented", "mono-brand"):
        before = shop.prepared.load(shop.store, name).model
        after = OfferData.open(store, recipe).load(store, name).model
        for old, new in zip(before.trainable_weights, after.trainable_weights, strict=True):
            np.testing.assert_allclose(old.numpy(), new.numpy(), atol=1e-6)
    other, place = branch(
        shop, tmp_path / "other", "model.models={simple: {group_by: false, mask_net: false}}"
    )
    with pytest.raises(StaleInput, match="no model 'simple'; it has augmented, mono-brand"):
        train(other, place, DEVICE, warm_start=shop.store)


def test_a_search_fits_the_model_that_is_exported(shop: Shop, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    from workflows.tune import tune

    space = "tune.space={model.dim: [4], optimizer.lr: [0.01]}"
    settings = ("tune.trials=1", "train.epochs=1", space)
    recipe, store = branch(shop, tmp_path / "run", *settings)
    with steps_run_eagerly():
        result = tune(recipe, store, DEVICE)
    assert result.metric == "val_auc"
    assert result.best.settings == {"model.dim": 4, "optimizer.lr": 0.01}
    assert 0 < (result.best.value or 0) < 1
    usual = open_models(store, recipe).space()
    assert {path.partition(".")[0] for path in usual} <= {"model", "optimizer"}
    for path, values in usual.items():  # every value of the usual space makes a recipe
        for value in [values.low, values.high] if isinstance(values, Range) else values:
            recipes.replace_fields(recipe, {path: value})


def test_each_model_of_offers_is_tracked_by_itself(shop: Shop, tmp_path: Path) -> None:
    settings = ("train.epochs=1", "tracking={kind: tensorboard}")
    recipe, store = branch(shop, tmp_path / "run", *settings)
    with steps_run_eagerly():
        train(recipe, store, DEVICE)
    folders = {p.name for p in (store.root / "tensorboard").iterdir()}
    assert folders == {"augmented", "mono-brand"}


def test_the_validation_pairs_depend_on_the_seed_of_training_alone(shop: Shop) -> None:
    """The test part is cut by `evaluate.seed`: the evaluate stage reads it, and train does not."""
    base = shop.prepared.prepared

    def kept(*settings: str) -> tuple[list[int], list[int]]:
        recipe = recipes.load(recipes.find("rees46"), [*SETTINGS, *settings], variant="small")
        models = OfferModels(OfferData(dataclasses.replace(base, recipe=recipe)))
        judge, test = models.judge(), models.offer_data.pairs("test", seed=recipe.evaluate.seed)
        assert judge is not None
        assert test is not None
        return judge.pairs.users.tolist(), test.users.tolist()

    valid, test = kept()
    assert kept("evaluate.seed=5")[0] == valid
    assert kept("evaluate.seed=5")[1] != test
    assert kept("train.seed=5")[0] != valid
    assert kept("train.batch_size=20")[1] != test
    assert {"evaluate", "train.batch_size"} <= set(PARTS["evaluate"])
    assert "evaluate.seed" not in PARTS["train"]


def test_the_report_shows_every_model_and_task(shop: Shop, tmp_path: Path) -> None:
    assert shop.trained
    scores = evaluate(shop.recipe, shop.store, DEVICE).report.scores
    result = report(shop.recipe, shop.store, DEVICE)
    page, card = (p.read_text(encoding="utf-8") for p in (result.page, result.card))
    root = ElementTree.fromstring(page.replace("<!DOCTYPE html>", ""))
    (table,) = [t for t in root.iter("table") if _text(t.find("caption")).startswith("all:")]
    heads = [_text(cell) for cell in table.iter("th")]
    every = [s for s in scores if s.band == "all"]
    assert all(any(h.startswith(f"{s.task} (") for h in heads) for s in every)
    shown = [_text(cell) for cell in table.iter("td")]
    assert shown == ["-" if s.wauc is None else f"{s.wauc:.3f}" for s in every]
    for model in ("augmented", "mono-brand"):
        assert f"{model}: val_auc" in page
        best = max(e.metrics["val_auc"] for e in _epochs(shop, model))
        assert f"val_auc {best:.4f}" in card
    assert "in mini-batches of 5" in page
    assert "stage train" in page
    assert "| model |" in card


def _text(element: ElementTree.Element | None) -> str:
    return "" if element is None else "".join(element.itertext()).strip()


def _epochs(shop: Shop, model: str) -> list[Epoch]:
    return TrainFiles(shop.store.folder("train"), model).read_history()


# ── what cannot be measured or exported ─────────────────────────────────────────────────


def test_a_task_without_a_known_offer_is_refused(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer_data = shop.prepared
    pairs = offer_data.pairs("test", seed=1)
    assert pairs is not None
    unseen = {**pairs.columns, "brand": np.full(len(pairs), UNSEEN)}
    with pytest.raises(DataError, match="no event of test has a value of 'brand' that is in"):
        task(offer_data, "brand", unseen)
    monkeypatch.setattr(OfferData, "values", lambda *_: (np.array([], int), []))
    with pytest.raises(DataError, match="no value of 'brand' is in the vocabulary"):
        offers_export.described(offer_data, "brand")


def test_a_valid_part_that_cannot_judge_is_refused(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = OfferModels(shop.prepared)
    pairs = shop.prepared.pairs("valid", seed=1)
    assert pairs is not None
    of_one_user = dataclasses.replace(pairs, users=np.zeros(len(pairs), int))
    monkeypatch.setattr(OfferData, "pairs", lambda *_, **__: of_one_user)
    with pytest.raises(
        DataError, match=r"the part valid cannot judge a fit: its .* no AUC"
    ) as told:
        models.judge()
    assert "Give valid more users, or raise model.negatives" in str(told.value)


def test_an_offer_may_be_called_value(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(3, 2, 4))
    values = ["value", "cosines", "b"]
    events = np.array([1, 2, 3])
    offers_export.write_similar(tmp_path, 3, "brand", values, events, {"m": vectors})
    table = pq.read_table(tmp_path / "similarity" / "brand.parquet")
    names, matrix = table["value"].to_pylist(), np.stack(table["cosines"].to_numpy())
    assert sorted(names) == sorted(values)
    order = [values.index(name) for name in names]
    np.testing.assert_allclose(matrix, cosines(vectors)[np.ix_(order, order)], atol=1e-6)
