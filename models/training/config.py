"""Hyper-parameters of the optimiser and the training loop, and where a fit is recorded."""

from __future__ import annotations

from typing import Literal

from models.core.fields import (
    NonNegative,
    NonNegativeFloat,
    Part,
    Positive,
    PositiveFloat,
    Rows,
    Times,
)


class OptimizerConfig(Part, frozen=True):
    """The optimiser.

    Attributes:
        kind: adagrad and adamw as in Keras 2.12, and adam, which leaves the rows of a table (and
            their moments) alone that a batch does not touch.
        lr: learning rate.
        weight_decay: the weight decay of adamw.
        decay: what a step of adamw takes off a weight w: `keras` lr·weight_decay·w,
            `tfa` weight_decay·w, as TensorFlow Addons meant it (there of touched rows only, here of
            all).
        warmup_steps: the learning rate rises from 0 over so many steps.
        schedule: what it does after that, until the last epoch: stay, or fall to 0 in a line or
            along a cosine.
    """

    kind: Literal["adam", "adamw", "adagrad"] = "adam"
    lr: PositiveFloat = 0.003
    weight_decay: NonNegativeFloat = 0.0
    decay: Literal["keras", "tfa"] = "keras"
    warmup_steps: NonNegative = 0
    schedule: Literal["constant", "linear", "cosine"] = "constant"

    def __post_init__(self) -> None:
        if self.weight_decay and self.kind != "adamw":
            raise ValueError(f"weight_decay is for kind adamw; {self.kind} would not look at it")


class TrainConfig(Part, frozen=True):
    """The training loop.

    Attributes:
        batch_size: rows of a step. In-batch softmax draws its negatives from them.
        epochs: at most this many.
        monitor: the metric whose best epoch is kept, of `val_recall@k`, `val_ndcg@k`, …;
            `val_mean` is the mean of recall at 10, 20, 50 and ndcg at 10, steadier than any one.
        patience: stop after this many epochs without a better one.
        max_rows_per_user: rows of a user in one epoch, drawn anew each epoch; null for all. 50 is
            the default of a recipe whose history has no time.
        seed: the seed of initial weights, order of rows and draws.
    """

    batch_size: Rows = 512
    epochs: Times = 40
    monitor: str = "val_mean"
    patience: Times = 4
    max_rows_per_user: Positive | None = None
    seed: NonNegative = 1


class TrackingConfig(Part, frozen=True):
    """Where a fit is recorded beside the figures in the train stage.

    Attributes:
        kind: the tracker; it needs the `tracking` extra.
        required: training stops where the tracker is not installed; otherwise it goes on without.
        uri: the URI of an MLflow server, or a folder; empty for one in the run's folder.
        experiment: the experiment of MLflow.
    """

    kind: Literal["mlflow", "tensorboard"]
    required: bool = True
    uri: str = ""
    experiment: str = "two-tower"
