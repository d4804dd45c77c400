"""Models of other kinds, and towers with one-hots, go the way of any two-tower, stage by stage."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from tiny_run import CPU, SETTINGS, Run, World, steps_run_eagerly
from world import RECIPE

from models.baselines.popularity import Popularity
from workflows.cli import VERBS
from workflows.etl import etl
from workflows.evaluate import evaluate
from workflows.export import export
from workflows.model_kinds import KINDS
from workflows.recipe import Recipe
from workflows.report import report
from workflows.stages.etl import Prepared
from workflows.stages.recommender import ListOptions, Recommender
from workflows.stages.store import Store
from workflows.stages.train_files import TrainFiles
from workflows.train import train

pytestmark = pytest.mark.usefixtures("checked_here")

CONTENT = ("model={kind: content}", "history.columns=[genres]", "features.genres={role: item}")
POPULARITY = ("model={kind: popularity}",)
ONE_HOT = (
    "train.epochs=1",
    "model={dim: 8, combine: concat, item_bias: false, item_layers: [6], query_layers: [6], "
    "dims: {genres: one_hot, city: one_hot, shop: one_hot, item_id: 5}}",
)

#: Model → metric → mean.
Figures = dict[str, dict[str, float]]


def whole(folder: Path, *overrides: str) -> tuple[Run, Figures]:
    """Run the four stages on the tiny world; return the run and the headline's means."""
    folder.mkdir(exist_ok=True)
    world = World(folder / "raw", text=RECIPE + SETTINGS).write()
    recipe = world.recipe(*overrides, "evaluate.baselines=[popularity, content]")
    run = Run(world, recipe, Store(folder / "run"))
    etl(recipe, run.store, CPU, data=world.folder)
    with steps_run_eagerly():
        train(recipe, run.store, CPU)
    found = evaluate(recipe, run.store, CPU).report.headline.metrics
    export(recipe, run.store, CPU)  # which checks the towers
    return run, {model: {n: f.mean for n, f in of.items()} for model, of in found.items()}


def test_m04_popularity_goes_the_whole_way(tmp_path: Path):
    run, found = whole(tmp_path, *POPULARITY)
    assert sorted(found) == ["content", "popularity"]  # once, as the recipe's own
    prepared = Prepared.open(run.store, run.recipe)
    evaluation_set = prepared.evaluation_set("test", run.recipe.evaluate)
    assert evaluation_set is not None
    counts = Popularity().fit(prepared.interactions("train", "valid"))
    for name, values in evaluation_set.per_user(counts, run.recipe.evaluate.ks).items():
        assert found["popularity"][name] == pytest.approx(values.mean())
    (epoch,) = TrainFiles(run.store.folder("train")).read_history()
    assert "loss" not in epoch.metrics
    lists = Recommender.open(run.store, run.recipe).lists(
        np.array(["u6", "u7"]), ListOptions(keep_seen=True)
    )
    by_user = lists.to_pandas().groupby("user_id")["item_id"].agg(list)
    assert by_user["u6"] == by_user["u7"]
    vectors = np.stack(
        pq.read_table(run.store.folder("export") / "item_embeddings.parquet")[
            "embedding"
        ].to_numpy()
    )
    assert vectors.shape[1] == 1
    page = report(run.recipe, run.store, CPU).page.read_text(encoding="utf-8")
    assert "popularity minus it" in page


@pytest.mark.quality
def test_m05_content_goes_the_whole_way(tmp_path: Path):
    _, found = whole(tmp_path, *CONTENT)
    assert sorted(found) == ["content", "popularity"]
    assert found["content"] != found["popularity"]


@pytest.mark.quality
def test_m02_one_hots_are_exported_for_codes_and_raw_values(tmp_path: Path):
    run, _ = whole(tmp_path, *ONE_HOT)
    table = pq.read_table(run.store.folder("export") / "item_embeddings.parquet")
    vectors = np.stack(table["embedding"].to_numpy())
    assert vectors.shape[1] == 6
    assert np.ptp(vectors, axis=0).min() > 0


def test_every_kind_of_model_has_an_entry_and_every_asking_verb_a_kind() -> None:
    (field,) = [f for f in msgspec.inspect.type_info(Recipe).fields if f.name == "model"]
    assert {kind.tag for kind in field.type.types} == set(KINDS)
    asking = {verb for kind in KINDS.values() for verb in kind.answers}
    verbs = {verb.__name__.replace("_", "-") for verb in VERBS}
    assert asking <= verbs
    assert not asking & {"etl", "train", "tune", "evaluate", "export", "report"}
