"""The fast training step against its formulas put down as they are read: loss and gradients."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
import tensorflow as tf
import toy_offers as toy

from models.core.columns import take
from models.offers.config import OfferModel
from models.offers.model import InferenceModel, Model
from models.offers.negatives import PairLoss

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from restated_offers import Restated

ROWS = 20


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Model:
    """A model without dropout or OR, whose every grouping is by kind."""
    config = msgspec.structs.replace(toy.CONFIG, dropout=0.0, or_share=0.0, augmentations=1, l1=0.1)
    made = toy.model(OfferModel(), config)
    keys = InferenceModel(made).towers[1].keys
    assert keys is not None
    monkeypatch.setattr(keys, "subsets", tf.constant([[False, True]]))
    return made


def batch() -> dict[str, tf.Tensor]:
    columns = {**toy.events(ROWS), "user_row": np.arange(ROWS, dtype=np.int32) * 2 // 3}
    return {k: tf.constant(v) for k, v in take(columns, np.arange(ROWS)).items()}


def fast(made: Model) -> tuple[float, list[np.ndarray]]:
    """Return the loss of the step that trains, and the gradient of each weight."""
    with tf.GradientTape() as tape:
        prediction = made(batch(), training=True)
        cross = PairLoss()(prediction.targets, prediction.outputs)
        loss = cross + tf.add_n(made.losses)
    return float(loss), dense(tape.gradient(loss, made.trainable_variables))


def slow(made: Model, chosen: list[bool]) -> tuple[float, list[np.ndarray]]:
    """Return the same of the restatement that groups by the chosen attributes."""
    restated = Restated(made, tf.constant([chosen]), size=5, versions=1)
    with tf.GradientTape() as tape:
        made(batch(), training=True)  # the penalties are those of the last call
        loss = restated.loss(batch())
    return float(loss), dense(tape.gradient(loss, made.trainable_variables))


def dense(gradients: list[tf.Tensor]) -> list[np.ndarray]:
    return [tf.convert_to_tensor(gradient).numpy() for gradient in gradients]


def tolerances(slopes: list[np.ndarray]) -> list[float]:
    """Return how far each gradient may be off by rounding.

    A sum is off by what enters it, not by what comes out: the bias before a batch normalisation has
    a gradient of zero, the rest that is left of terms as large as the largest gradient here. Five
    pairs of factors enter for each row.
    """
    largest = max(np.abs(slope).max() for slope in slopes)
    rounding = 5 * ROWS * np.finfo(np.float32).eps * largest
    return [float(1e-4 * np.abs(slope).max() + rounding) for slope in slopes]


def gaps(slopes: list[np.ndarray], others: list[np.ndarray]) -> list[float]:
    return [float(np.abs(a - b).max()) for a, b in zip(slopes, others, strict=True)]


def test_the_step_has_the_loss_and_the_gradients_of_the_formulas(made: Model) -> None:
    (ours, slopes), (hand, by_hand) = fast(made), slow(made, [False, True])
    assert ours == pytest.approx(hand, rel=1e-5)
    found = zip(made.trainable_variables, gaps(slopes, by_hand), tolerances(by_hand), strict=True)
    assert {weight.name: gap for weight, gap, allowed in found if gap > allowed} == {}


def test_another_grouping_has_others(made: Model) -> None:
    """The control of the first test: almost every weight's gradient is told from a wrong one."""
    (ours, slopes), (hand, by_hand) = fast(made), slow(made, [True, False])
    assert abs(ours - hand) > 1e-4
    found = zip(gaps(slopes, by_hand), tolerances(by_hand), strict=True)
    told_apart = [gap > 2 * allowed for gap, allowed in found]
    assert np.mean(told_apart) > 0.9
