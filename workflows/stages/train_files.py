"""Paths of the train stage's files, and the metrics of its epochs; reads without TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from models.core.prior import Prior
from models.training.epoch import Epoch
from workflows.ground import trust
from workflows.ground.stage_content import read_json, reading
from workflows.stages.manifest import TIMES


class _Model(Protocol):
    """The interface of a Keras model that this module uses."""

    def load_weights(self, filepath: Path) -> object:
        """Read the values of all weights from a file."""


@dataclass(frozen=True)
class TrainFiles:
    """The paths of the files that the train stage keeps for one fitted model.

    Attributes:
        folder: the folder of the train stage.
        name: the name of the model, if the recipe has several models; else empty.
    """

    folder: Path
    name: str = "model"

    @property
    def weights(self) -> Path:
        """The HDF5 file with the model weights of the best epoch."""
        return self.folder / f"{self.name}.weights.h5"

    def load_weights(self, model: _Model) -> None:
        """Read the trained weights into a model that was built from the same recipe.

        Raises:
            ArtifactError: the file of weights is missing, unsafe or of another model.
        """
        trust.refuse_unsafe_weights(self.weights)
        with reading(self.weights, "train"):
            model.load_weights(self.weights)

    @property
    def history(self) -> Path:
        """The JSON file with the loss and the metrics of each training epoch."""
        return self.folder / f"{self.name}.history.json"

    @property
    def prior(self) -> Path:
        """The JSON file with the chosen popularity prior; absent if the recipe has no `prior`."""
        return self.folder / "prior.json"

    def read_prior(self) -> Prior | None:
        """Read the popularity prior that was chosen after training."""
        if not self.prior.is_file():
            return None
        return read_json(self.prior, Prior, "train")

    def read_history(self) -> list[Epoch]:
        """Read the metrics of the training epochs, with the seconds that each epoch took."""
        epochs, seconds = read_json(self.history, list[Epoch], "train"), self._read_seconds()
        with reading(self.folder / TIMES, "train"):
            took = zip(epochs, seconds[self.name], strict=True)
            return [Epoch(epoch.epoch, epoch.metrics, each) for epoch, each in took]

    def write_history(self, epochs: Sequence[Epoch]) -> None:
        """Write the metrics of the training epochs and, to a file of its own, their seconds.

        Seconds are in a file of their own because they differ between otherwise equal fits.
        """
        timeless = [Epoch(epoch.epoch, epoch.metrics) for epoch in epochs]
        self.history.write_bytes(msgspec.json.format(msgspec.json.encode(timeless), indent=2))
        seconds = {**self._read_seconds(), self.name: [epoch.seconds for epoch in epochs]}
        (self.folder / TIMES).write_bytes(msgspec.json.encode(seconds))

    def _read_seconds(self) -> dict[str, list[float]]:
        """Read the seconds of the training epochs of all models that were fitted so far."""
        path = self.folder / TIMES
        if not path.is_file():
            return {}
        return read_json(path, dict[str, list[float]], "train")
