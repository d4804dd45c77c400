from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.util.event_pb2 import Event
from tiny_run import CPU, SETTINGS, Run, Tiny, prepare
from world import RECIPE, write_csv

from models.core.partitions import ParquetPartitions
from models.training.callbacks import Epoch, Validation
from models.training.two_tower import TwoTower
from workflows import recipe as recipes
from workflows.etl import etl
from workflows.ground.errors import DataError, MissingStage, RecipeError
from workflows.index import index
from workflows.load import load
from workflows.model_kinds import open_models
from workflows.recommend import recommend
from workflows.stages.etl import Prepared
from workflows.stages.store import Store
from workflows.stages.train import load_model
from workflows.stages.train_files import TrainFiles
from workflows.train import train


@pytest.fixture
def trained(tiny: Tiny) -> Run:
    return tiny.trained


def weights(run: Run) -> list[np.ndarray]:
    return load_model(run.store, run.recipe, Prepared.open(run.store, run.recipe)).get_weights()


def history(run: Run) -> list[Epoch]:
    return TrainFiles(run.store.folder("train")).read_history()


def figures(run: Run) -> list[dict[str, float]]:
    return [epoch.metrics for epoch in history(run)]


# --- one fit ---


class Listener(tf.keras.callbacks.Callback):
    """Keep what Keras shows to callbacks that a user brings."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[dict[str, float]] = []
        self.traces = 0

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(dict(logs))
        self.traces = self.model.train_function.experimental_get_tracing_count()


@pytest.fixture(scope="module")
def repeated(tiny, tmp_path_factory) -> tuple[Run, Listener, Path]:
    """The same fit once more, with callbacks of the user."""
    folder = tmp_path_factory.mktemp("repeated")
    run = tiny.trained.branch(folder / "run")
    listener = Listener()
    board = tf.keras.callbacks.TensorBoard(folder / "board", write_graph=False)
    train(run.recipe, run.store, CPU, callbacks=[board, listener])
    return run, listener, folder / "board"


def test_one_seed_gives_the_same_weights_and_figures_to_the_last_digit(trained, repeated):
    again, _, _ = repeated
    assert figures(again) == figures(trained)
    pairs = list(zip(weights(trained), weights(again), strict=True))
    assert all(np.array_equal(a, b) for a, b in pairs)
    files = [TrainFiles(run.store.folder("train")).weights for run in (trained, again)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_trained_again_with_the_same_seed_later_stages_are_fresh(tiny, repeated):
    again, _, _ = repeated
    later, export = again.store, tiny.exported.store.folder("export")
    shutil.copytree(export, later.folder("export"))  # made from the first fit
    index(again.recipe, later, CPU)
    assert recommend(again.recipe, later, CPU).users == len(again.users)
    assert load(again.recipe, later, to="opensearch").items == len(again.items)
    manifest = later.manifest("export")
    assert manifest.inputs["train"] == later.digest("train") == tiny.trained.store.digest("train")


def test_another_seed_gives_others(trained, tmp_path, eagerly):
    other = trained.branch(tmp_path, "train.seed=2", "train.epochs=1", "train.batch_size=512")
    train(other.recipe, other.store, CPU)
    assert figures(other)[0]["loss"] != figures(trained)[0]["loss"]
    tables = [w for w in weights(trained) if w.ndim == 2]
    theirs = [w for w in weights(other) if w.ndim == 2]
    assert not any(np.allclose(a, b, atol=1e-3) for a, b in zip(tables, theirs, strict=True))


def test_callbacks_of_the_user_see_the_catalogue_wide_figures(repeated):
    run, listener, _ = repeated
    assert len(listener.seen) == 3
    for seen, noted in zip(listener.seen, figures(run), strict=True):
        assert seen["val_recall@10"] == noted["val_recall@10"]
        assert {"loss", "val_mean", "val_ndcg@3"} < set(seen)


def test_a_step_is_traced_once_for_batches_of_any_size(repeated):
    run, listener, _ = repeated
    n_rows = run.store.read("train", run.recipe).rows["train"]
    assert n_rows % run.recipe.train.batch_size, "the last batch is smaller"
    assert listener.traces == 1


def test_tensorboard_gets_them_too(repeated):
    run, _, board = repeated
    (file,) = (board / "validation").glob("events.out.*")
    found: dict[str, list[float]] = {}
    for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
        for value in Event.FromString(record).summary.value:
            found.setdefault(value.tag, []).append(float(tf.make_ndarray(value.tensor)))
    expected = [epoch["val_recall@10"] for epoch in figures(run)]
    assert found["epoch_recall@10"] == pytest.approx(expected)


def test_t09_the_result_is_the_best_epoch_of_the_history(trained, tiny):
    epochs = history(trained)
    best = max(epochs, key=lambda epoch: epoch.metrics["val_mean"])
    assert tiny.train_result.first.best == best
    assert tiny.train_result.first.epochs == len(epochs) == 3
    assert tiny.train_result.folder == trained.store.folder("train")
    assert tiny.train_result.first.rows_per_second > 0
    manifest = json.loads((tiny.train_result.folder / "manifest.json").read_text())
    assert manifest["metrics"] == best.metrics
    n_rows = sum(map(len, trained.histories(withheld=2).values()))
    assert manifest["rows"] == {"train": n_rows, "epochs": 3}
    assert {"loss", "val_mean", "val_recall@10"} < set(best.metrics)
    assert not {"loss_batch", "regularization_loss"} & set(best.metrics)


def test_the_kept_weights_give_the_figures_of_the_best_epoch(trained, tiny):
    prepared = Prepared.open(trained.store, trained.recipe)
    model = load_model(trained.store, trained.recipe, prepared)
    evaluation_set = prepared.evaluation_set("valid", trained.recipe.evaluate)
    retriever = TwoTower.of(model, prepared.users, prepared.items)
    for name, values in evaluation_set.per_user(retriever, (1, 3, 10)).items():
        assert values.mean() == pytest.approx(
            tiny.train_result.first.best.metrics[f"val_{name}"]
        ), name


def test_a_fit_that_gets_worse_keeps_what_it_had(trained, tmp_path, eagerly, monkeypatch):
    stopped = trained.branch(tmp_path / "stopped", "train.epochs=1", "train.batch_size=512")
    worse = trained.branch(tmp_path / "worse", "train.epochs=2", "train.batch_size=512")
    train(stopped.recipe, stopped.store, CPU)
    measure = Validation.on_epoch_end

    def fall(self, epoch, logs=None):
        measure(self, epoch, logs)
        logs["val_mean"] = 0.5 - epoch / 10

    monkeypatch.setattr(Validation, "on_epoch_end", fall)
    result = train(worse.recipe, worse.store, CPU)
    assert (result.first.best.epoch, result.first.epochs) == (0, 2)
    for kept, expected in zip(weights(worse), weights(stopped), strict=True):
        np.testing.assert_array_equal(kept, expected)


def test_training_learns(trained):
    losses = [epoch["loss"] for epoch in figures(trained)]
    assert losses[0] > losses[1] > losses[2]


# --- other recipes ---


def test_an_unknown_metric_is_refused_with_those_that_are_measured(trained, tmp_path):
    run = trained.branch(tmp_path, "train.monitor=val_recall@7")
    with pytest.raises(
        RecipeError,
        match=r"recipe tiny, field train.monitor: 'val_recall@7' is not measured; expected one of "
        r"val_mean, val_recall@1, .*val_precision@10",
    ):
        train(run.recipe, run.store, CPU)
    assert not run.store.folder("train").exists()


def test_batches_that_compare_an_item_with_itself_alone_are_refused(trained, tmp_path):
    run = trained.branch(tmp_path, "train.batch_size=1", "loss.kind=in_batch")
    with pytest.raises(
        RecipeError, match=r"field train.batch_size: .* a batch of 1 has nothing to compare\. Take"
    ):
        train(run.recipe, run.store, CPU)


def test_towers_that_do_not_fit_are_refused(trained, tmp_path):
    run = trained.branch(tmp_path, "model.query_layers=[4]")
    with pytest.raises(
        RecipeError, match=r"recipe tiny, field model: the query tower ends in 5 and"
    ):
        train(run.recipe, run.store, CPU)
    assert not run.store.folder("train").exists()


def test_without_the_etl_stage_there_is_nothing_to_train_on(trained, tmp_path):
    run = trained.branch(tmp_path, stages=())
    with pytest.raises(MissingStage, match=r"etl is not there yet. Run `two-tower etl`"):
        train(run.recipe, run.store, CPU)


def test_a_learning_rate_that_blows_up_is_explained(trained, tmp_path, eagerly):
    run = trained.branch(tmp_path, "optimizer.lr=1e18", "model.item_bias=false")
    with pytest.raises(
        DataError,
        match=r"Training failed: the loss became (nan|inf) in epoch 1, step \d\. "
        r"Lower optimizer.lr, raise loss.temperature, or look for extreme numbers",
    ):
        train(run.recipe, run.store, CPU)
    assert not run.store.folder("train").exists()


def test_a_last_step_that_blows_up_is_explained(trained, tmp_path, eagerly):
    """What it spoils is in no loss any more, but in the validation."""
    run = trained.branch(tmp_path, "optimizer.lr=1e18", "train.batch_size=1000")
    with pytest.raises(DataError, match=r"Training failed: after epoch 1: .*NaN or infinity"):
        train(run.recipe, run.store, CPU)


def test_a_number_that_is_none_is_explained(trained, tmp_path, eagerly, monkeypatch):
    run = trained.branch(tmp_path)
    read = ParquetPartitions.read

    def spoilt(self, numbers):
        columns = read(self, numbers)
        columns["age"] = columns["age"].copy()
        columns["age"][50] = np.nan
        return columns

    monkeypatch.setattr(ParquetPartitions, "read", spoilt)
    with pytest.raises(DataError, match=r"the loss became nan in epoch 1, step \d"):
        train(run.recipe, run.store, CPU)


def test_without_a_valid_part_the_last_epoch_is_kept_with_a_warning(tmp_path, eagerly, caplog):
    text = RECIPE.replace(
        "{kind: leave_last, valid: 1, test: 1}", "{kind: time, valid: 0, test: 0.1}"
    )
    settings = SETTINGS.replace("epochs: 3, batch_size: 32", "epochs: 2, batch_size: 512")
    run = prepare(tmp_path, text + settings)
    with caplog.at_level(logging.WARNING):
        result = train(run.recipe, run.store, CPU)
    assert "the split has no valid part: the last epoch is kept, not the best" in caplog.text
    assert result.first.best == history(run)[-1]
    assert result.first.best.epoch == 1
    assert set(result.first.best.metrics) == {"loss"}


@pytest.mark.parametrize("kind", ["full", "mixed", "in_batch"])
@pytest.mark.usefixtures("eagerly")
def test_towers_with_layers_train_with_every_kind_of_loss(tiny: Tiny, tmp_path, kind):
    run = tiny.prepared.branch(
        tmp_path,
        f"loss.kind={kind}",
        "model.combine=concat",
        "model.query_layers=[8]",
        "model.item_layers=[8]",
        "train.epochs=1",
        "train.batch_size=64",
    )
    result = train(run.recipe, run.store, CPU)
    assert np.isfinite(result.first.best.metrics["loss"])


PAIRS = """\
name: pairs
sources: {log: {files: log.csv}}
interactions: log
split: {kind: random, valid: 0.1, test: 0.1}
history: {columns: [item]}
features:
  user: {role: user, id: true, input: false}
  item: {role: item, id: true}
"""


@pytest.mark.usefixtures("eagerly")
def test_two_columns_without_time_train_on_bags(tmp_path):
    """Two tastes of ten items: who has seven of one gets the other three of it."""
    rng = np.random.default_rng(3)
    log = [
        {"user": f"u{user}", "item": f"i{item + 10 * (user % 2)}"}
        for user in range(40)
        for item in rng.permutation(10)[:8]
    ]
    write_csv(tmp_path / "log.csv", log)
    (tmp_path / "pairs.yaml").write_text(PAIRS)
    fast = ("model.dim=8", "train.epochs=8", "train.batch_size=32", "optimizer.lr=0.02")
    recipe, store = recipes.load(tmp_path / "pairs.yaml", fast), Store(tmp_path / "run")
    etl(recipe, store, CPU, data=tmp_path)
    result = train(recipe, store, CPU)
    # three unseen items of 20 are of the user's taste; popularity would find one in four
    assert result.first.best.metrics["val_recall@10"] == 1.0
    assert result.first.best.metrics["val_ndcg@10"] > 0.5
    model = load_model(store, recipe, Prepared.open(store, recipe))
    assert not [weight.name for weight in model.weights if "position" in weight.name]


def test_validation_may_measure_a_sample_of_users(trained):
    recipe = trained.world.recipe("train.validate_users=4", "train.seed=3")
    models = open_models(trained.store, recipe)
    judges = [models.judge(), models.judge(), open_models(trained.store, trained.recipe).judge()]
    first, again, all_users = ([*judge.evaluation_set.queries.users] for judge in judges)
    assert len(first) == 4
    assert first == again, "every epoch measures the same users"
    assert set(first) < set(all_users)
    assert judges[0].evaluation_set.sampled_from == len(all_users)
