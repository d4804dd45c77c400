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
from models.core.user_sample import UserSample


class OptimizerConfig(Part, frozen=True):
    """Settings of the optimiser and of its learning rate schedule.

    Attributes:
        kind: `adagrad` and `adamw` are the optimisers of Keras 2.12; `adam` changes only those rows
            of an embedding table, and their moments, that are in the batch.
        lr: the learning rate after the warm-up.
        weight_decay: the weight decay of adamw.
        decay: what a step of adamw subtracts from a weight w: lr·weight_decay·w for `keras`,
            weight_decay·w for `tfa`. The latter is the rule of TensorFlow Addons, which however
            applies it only to the rows in the batch.
        warmup_steps: the number of steps in which the learning rate rises from 0.
        schedule: the learning rate after the warm-up, until the last epoch: constant, or falling
            to 0 linearly or along a cosine.
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
    """Settings of the training loop: batches, epochs, early stopping and the random seed.

    Attributes:
        batch_size: number of training rows in a training step; their items are the in-batch
            negatives. If a model trains on sequences, a batch consists of whole sequences and has a
            few rows more or fewer; the batch size must be at least `history.max_len` + 1.
        epochs: the largest number of epochs.
        monitor: the metric that chooses the epoch to keep: `val_recall@k`, `val_ndcg@k`, …;
            `val_mean` is the mean of recall at 10, 20, 50 and ndcg at 10, and is less noisy than
            each of them.
        patience: number of epochs without a better one after which training stops.
        max_rows_per_user: largest number of training rows of a user in an epoch, drawn anew for
            each epoch; null for all rows. If a model trains on sequences (encoder attention), these
            rows are consecutive. The default is 50 for a recipe with a history and without times.
        validate_users: largest number of users of the valid part on whom each epoch is measured. Of
            more users, a random sample is measured, the same in every epoch; null measures all
            users.
        seed: the seed of the initial weights, the order of rows and all random numbers.
    """

    batch_size: Rows = 512
    epochs: Times = 40
    monitor: str = "val_mean"
    patience: Times = 4
    max_rows_per_user: Positive | None = None
    validate_users: Positive | None = None
    seed: NonNegative = 1

    @property
    def validation_sample(self) -> UserSample:
        """The random sample of users on whom each epoch is measured."""
        return UserSample(self.validate_users, self.seed)


class TrackingConfig(Part, frozen=True):
    """The experiment tracker that records a fit, in addition to the metrics in the train stage.

    Attributes:
        kind: the name of the tracker, which needs the `tracking` extra of this package.
        required: whether training stops with an error if the tracker is not installed.
        uri: the URI of an MLflow server, or a folder; empty for a folder in the run's folder.
        experiment: the name of the MLflow experiment.
    """

    kind: Literal["mlflow", "tensorboard"]
    required: bool = True
    uri: str = ""
    experiment: str = "two-tower"
