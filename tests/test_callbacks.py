from __future__ import annotations

import io
import logging
import math
import re
import sys

import numpy as np
import pytest
import tensorflow as tf
from toy_towers import toy_towers

import models.core.retriever
from models.core.evaluation_set import EvaluationSet, build_evaluation_set
from models.training import two_tower
from models.training.callbacks import (
    Clock,
    DivergedError,
    KeepBest,
    Progress,
    RefuseNaN,
    Validation,
)
from models.training.epoch import VAL_MEAN
from models.training.judge import CatalogueJudge
from models.training.two_tower import TwoTower
from workflows.recipe.protocol import EvaluateConfig

TOY = toy_towers()
N_ITEMS = TOY.world.train.n_items
KS = (1, 3, 10)


@pytest.fixture(scope="module")
def model():
    # fresh weights are as good as any here; a large spread leaves no ties
    return TOY.build("history_item_id", "shop", "item_id", init_stddev=0.7)


@pytest.fixture(scope="module")
def valid() -> EvaluationSet:
    """Members with one to three targets each: the withheld, any other, one of no table."""
    draw = np.random.default_rng(0)
    users = np.concatenate([TOY.world.members, draw.choice(TOY.world.members, 30)])
    items = np.concatenate([TOY.world.targets.values, draw.integers(-1, N_ITEMS, size=30)])
    return build_evaluation_set(
        users,
        items,
        history=TOY.world.train,
        item_counts=TOY.facts().item_counts,
        rules=EvaluateConfig(),
    )


def by_hand(model, valid: EvaluationSet) -> dict[str, float]:
    """Score, sort and count in Python: the mean over users of each metric."""
    retriever = TwoTower.of(model, TOY.users, TOY.items)
    queries, items = retriever.embed(valid.queries), retriever.vectors
    per_user: dict[str, list[float]] = {}
    for u, query in enumerate(queries.astype(np.float64)):
        scores = items.astype(np.float64) @ query
        seen = set(valid.queries.histories[u].tolist())
        ranked = sorted((i for i in range(N_ITEMS) if i not in seen), key=lambda i: -scores[i])
        targets = valid.targets[u].tolist()
        wanted = {t for t in targets if t >= 0}
        n = len(wanted) + targets.count(-1)
        for k in (1, 3, 10, 20, 50):
            hits = [i + 1 for i, item in enumerate(ranked[:k]) if item in wanted]
            best = sum(1 / math.log2(i + 1) for i in range(1, min(n, k) + 1))
            values = {
                "recall": len(hits) / n,
                "ndcg": sum(1 / math.log2(i + 1) for i in hits) / best,
                "mrr": 1 / hits[0] if hits else 0.0,
                "map": sum((j + 1) / i for j, i in enumerate(hits)) / min(n, k),
                "hit_rate": float(bool(hits)),
                "precision": len(hits) / k,
            }
            for name, value in values.items():
                per_user.setdefault(f"val_{name}@{k}", []).append(value)
    means = {name: sum(values) / len(values) for name, values in per_user.items()}
    steady = ("val_recall@10", "val_recall@20", "val_recall@50", "val_ndcg@10")
    return {**means, "val_mean": sum(means[name] for name in steady) / 4}


def validation(model, valid: EvaluationSet) -> Validation:
    callback = Validation(CatalogueJudge(valid, TOY.users, TOY.items, KS))
    callback.set_model(model)
    return callback


@pytest.mark.parametrize("eval_batch", [1, 7, 10_000])
def test_validation_is_what_a_loop_over_the_whole_catalogue_gives(
    model, valid, monkeypatch, eval_batch
):
    monkeypatch.setattr(models.core.retriever, "BLOCK_SCORES", eval_batch * N_ITEMS)
    # a name that is not there would be ignored
    assert "batch_size" in two_tower.embed.__kwdefaults__
    monkeypatch.setitem(two_tower.embed.__kwdefaults__, "batch_size", eval_batch)
    logs = {"loss": 1.5}
    validation(model, valid).on_epoch_end(0, logs)
    expected = by_hand(model, valid)
    assert logs.pop("loss") == 1.5
    assert logs == {name: pytest.approx(value) for name, value in expected.items()}
    assert 0 < logs["val_recall@1"] < logs["val_recall@10"] < 1


def test_it_names_what_it_will_add(model, valid):
    callback = validation(model, valid)
    logs: dict[str, float] = {}
    callback.on_epoch_end(0, logs)
    assert callback.judge is not None
    assert set(callback.judge.names) == {n for n in logs if not n.endswith(("@20", "@50"))}
    assert callback.judge.names[0] == VAL_MEAN
    callback.on_epoch_end(0)  # nobody listens


def test_the_steady_mean_of_a_model_is_its_val_mean(model, valid):
    logs: dict[str, float] = {}
    validation(model, valid).on_epoch_end(0, logs)
    assert valid.selection_score(TwoTower.of(model, TOY.users, TOY.items)) == logs["val_mean"]


class Scripted(tf.keras.callbacks.Callback):
    """Write given figures into the logs, and the epoch's number into the only weight."""

    def __init__(self, values: list[float]) -> None:
        super().__init__()
        self.values = values

    def on_epoch_end(self, epoch, logs=None):
        logs["val_recall@10"] = self.values[epoch]
        self.model.set_weights([np.array([[float(epoch)]])])


def fit(values: list[float], *callbacks) -> tf.keras.Model:
    """Run Keras' fit over as many epochs as there are values."""
    model = tf.keras.Sequential([tf.keras.layers.Dense(1, use_bias=False, input_shape=(1,))])
    model.compile("sgd", "mse", run_eagerly=True)
    model.fit(
        np.ones((1, 1)),
        np.ones(1),
        epochs=len(values),
        verbose=0,
        callbacks=[Scripted(values), *callbacks],
    )
    return model


def test_the_best_epoch_is_kept_although_the_fit_runs_to_its_end():
    keep = KeepBest("val_recall@10", patience=10)
    model = fit([0.1, 0.5, 0.4, 0.5], keep)
    assert (keep.epoch, keep.value) == (1, 0.5)  # the first of two equals
    assert keep.weights[0].item() == 1
    assert model.get_weights()[0].item() == 3  # the fit itself went on


@pytest.mark.parametrize(
    ("values", "ran"),
    [
        ([0.3, 0.2, 0.1, 0.4, 0.0], 3),  # two epochs without a better one
        ([0.1, 0.2, 0.1, 0.3, 0.1, 0.1, 0.9], 6),
        ([0.0, 0.1, 0.2, 0.3], 4),
    ],
)
def test_the_fit_stops_when_no_better_epoch_comes(values, ran):
    keep, clock = KeepBest("val_recall@10", patience=2), Clock()
    fit(values, keep, clock)
    assert len(clock.epochs) == ran
    assert keep.value == max(values[:ran])
    assert keep.finished(ran - 1) == (ran < len(values))


def test_a_keeper_that_has_seen_nothing_is_not_finished():
    assert not KeepBest("val_recall@10", patience=1).finished(-1)


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), -float("inf")])
def test_t08_a_loss_that_is_no_number_is_refused_with_its_place(loss):
    refuse = RefuseNaN()
    refuse.on_epoch_begin(2)
    refuse.on_train_batch_end(5, {"loss_batch": 1e30})
    with pytest.raises(DivergedError, match=f"the loss became {loss} in epoch 3, step 7"):
        refuse.on_train_batch_end(6, {"loss": 0.5, "loss_batch": loss})


def test_the_clock_notes_each_epoch_and_what_was_measured():
    clock = Clock()
    fit([0.25, 0.75], clock)
    assert [(e.epoch, e.metrics["val_recall@10"]) for e in clock.epochs] == [(0, 0.25), (1, 0.75)]
    assert all(0 < e.seconds < 60 for e in clock.epochs)
    assert set(clock.epochs[0].metrics) == {"loss", "val_recall@10"}
    clock.on_epoch_end(2, {"loss": 1.0, "loss_batch": 2.0, "regularization_loss": 0.0})
    assert clock.epochs[2].metrics == {"loss": 1.0}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
def test_progress_is_a_bar_on_a_terminal_and_a_line_an_epoch_elsewhere(monkeypatch, caplog, stream):
    screen, clock = stream(), Clock()
    monkeypatch.setattr(sys, "stderr", screen)
    with caplog.at_level(logging.INFO):
        fit([0.25, 0.75], clock, Progress(2, ("loss", "val_recall@10"), clock))
    shown = screen.getvalue()
    if stream is Terminal:
        assert "2/2" in shown
        assert "val_recall@10=0.7500" in shown
        assert caplog.messages == []
    else:
        assert shown == ""
        told = r"epoch {} of 2: loss \d+\.\d{{4}}, val_recall@10 0\.{}, \d+\.\d s"
        for line, epoch, value in zip(caplog.messages, (1, 2), ("2500", "7500"), strict=True):
            assert re.fullmatch(told.format(epoch, value), line), line


def test_progress_of_a_trial_tells_no_epochs(monkeypatch, caplog):
    clock = Clock()
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with caplog.at_level(logging.INFO):
        fit([0.25, 0.75], clock, Progress(2, ("loss",), clock, lines=False))
    assert caplog.messages == []


def test_seen_items_are_left_out(model, valid):
    """The control of the first test: leaving the seen items in gives other figures."""
    whole, cut = ({}, {})
    validation(model, valid).on_epoch_end(0, whole)
    everybody = EvaluationSet(
        valid.queries,
        valid.targets,
        None,
        np.ones(N_ITEMS, bool),
        np.ones(len(valid.queries), bool),
    )
    validation(model, everybody).on_epoch_end(0, cut)
    assert cut["val_recall@10"] < whole["val_recall@10"]
