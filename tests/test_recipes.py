"""The recipes of the published systems: what they say, and what a model cannot be."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from tiny_run import CPU, check_here, steps_run_eagerly

from models.towers.config import ContentConfig, PopularityConfig, TwoTowerConfig
from models.training.config import TrackingConfig
from samples import learning_marks, sample
from workflows import recipe as recipes
from workflows.etl import etl
from workflows.export import export
from workflows.ground.errors import RecipeError
from workflows.recipe import Recipe
from workflows.recommend.request import RecommendRequest, read_users
from workflows.stages.recommender import ListOptions, Recommender
from workflows.stages.store import Store
from workflows.towers import checks
from workflows.train import train

FOLDER = Path(__file__).parents[1] / "recipes"
FILES = sorted(FOLDER.glob("*.yaml"))


def load(name: str, variant: str = "", *overrides: str) -> Recipe:
    return recipes.load(FOLDER / f"{name}.yaml", overrides, variant=variant)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_head_says_what_to_download_and_type(path: Path):
    text = path.read_text(encoding="utf-8")
    head = re.match(r"(#.*\n)+", text)
    assert head
    told = " ".join(line.removeprefix("#").strip() for line in head[0].splitlines())
    if "\nfetch:" not in text:
        assert f"data/{path.stem}" in told
        assert f"make etl train evaluate export RECIPE={path.stem}" in told
        assert f"two-tower sample --recipe {path.stem}" in told


def test_kinds_of_models():
    assert load("babyshop", "popularity").model == PopularityConfig()
    assert load("babyshop", "content").model == ContentConfig()
    assert isinstance(load("babyshop", "hybrid").model, TwoTowerConfig)


def test_t01_the_published_losses():
    """Of TensorFlow Recommenders and of Merlin, as models.losses.config says they are."""
    tfrs, merlin = load("hm-joined").loss, load("aliccp").loss
    assert (tfrs.kind, tfrs.logq, tfrs.mask, tfrs.reduction) == ("in_batch", False, "none", "sum")
    assert (merlin.kind, merlin.logq, merlin.mask) == ("in_batch", False, "item")
    assert (merlin.reduction, merlin.temperature) == ("mean", 1.0)


def test_the_published_settings_have_names():
    seed = load("babyshop", "seed")
    assert isinstance(seed.model, TwoTowerConfig)
    assert (seed.train.batch_size, seed.train.epochs, seed.loss.logq) == (4096, 3, False)
    assert (seed.optimizer.kind, seed.optimizer.lr) == ("adagrad", 0.1)
    widths = seed.model.dims
    assert (widths["item_no"], widths["known_brand"], widths["known_group"]) == (16, 8, 5)
    # three values of gender, and places for a missing and an unseen one
    assert widths["gender_description"] == "one_hot"
    assert widths["user_no"] == 16 + (3 + 2) + 8 + 5
    assert load("hm").tracking == TrackingConfig(kind="mlflow", required=False)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.kind=content", "unknown field `dim`"),
        ("model={kind: tensor}", "Expected one of: two_tower, popularity, content"),
        ("model={kind: popularity, days: 0}", "Expected `float` > 0.0"),
        ("model.dims={brand: 8}", "dims gives columns widths of their own: it needs combine conc"),
        (
            "model={combine: concat, dims: {brand: 8}}",
            "model.dims names 'brand', which is no input of kind category or categories",
        ),
        ("model={combine: concat, dims: {item_no: two}}", "Invalid enum value 'two'"),
        (
            "model={kind: popularity} --set tracking={kind: mlflow}",
            "a model of kind popularity does not read tracking: leave tracking out",
        ),
        ("tasks={top: 3}", "a model of kind two_tower does not read tasks: leave tasks out"),
        ("prior={}", "prior is a part of the item bias: it needs a model of kind two_tower"),
    ],
)
def test_a_model_that_cannot_be_is_refused(override: str, message: str):
    with pytest.raises(RecipeError, match=re.escape(message)):
        load("babyshop", "", *override.split(" --set "))


@pytest.mark.parametrize("block", ["loss={logq: false}", "fallback=tower", "index={kind: exact}"])
def test_models_of_offers_refuse_what_they_do_not_read(block: str):
    name = block.partition("=")[0]
    with pytest.raises(RecipeError, match=f"a model of kind offers does not read {name}"):
        load("movielens-offers", "", block)


@pytest.mark.parametrize(
    ("name", "variant"), [("hm", ""), ("hm-joined", "fixed"), ("babyshop", "seed")]
)
def test_a_published_recipe_takes_its_sample_from_raw_files_to_towers_that_take_raw_columns(
    name: str, variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What it learns is measured by test_learning.py, and aliccp's way is in test_aliccp.py."""
    monkeypatch.setattr(checks, "check_from_outside", check_here)
    raw = sample(name, "tiny", tmp_path / "raw").folder
    recipe = load(name, variant, "train.epochs=1", "train.batch_size=4096")
    store = Store(tmp_path / "run")
    etl(recipe, store, CPU, data=raw)
    with steps_run_eagerly():
        fit = train(recipe, store, CPU)
    assert np.isfinite(fit.first.best.metrics["loss"])
    marks = learning_marks(raw, k=10)
    assert 0 <= marks.popularity < marks.oracle <= 1
    export(recipe, store, CPU)  # it compares the embeddings of raw values with those of codes
    if name.startswith("hm"):
        recommender = Recommender.open(store, recipe)
        december, june = (_scores(recommender, month) for month in ("month=12", "month=6"))
        assert (december != june).any()
        np.testing.assert_array_equal(december, _scores(recommender, "t_dat=2020-12-24"))


def _scores(recommender: Recommender, rule: str) -> np.ndarray:
    """Return the scores of all users' lists for a rule of context."""
    users, given = read_users(RecommendRequest(context=(rule,)), recommender)
    ids = users.to_numpy(zero_copy_only=False)
    return recommender.rank(ids, ListOptions(), given).top.scores
