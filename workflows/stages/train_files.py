"""Files of the train stage, and the metrics of its epochs; reading them loads no TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from models.core.prior import Prior
from models.training.epoch import Epoch
from workflows.ground.stage_content import read_json, reading
from workflows.stages.manifest import TIMES


@dataclass(frozen=True)
class TrainFiles:
    """The file names of one fit in the train stage.

    Attributes:
        folder: the folder of the stage.
        name: the name of the model; kinds that fit a single model leave the default.
    """

    folder: Path
    name: str = "model"

    @property
    def weights(self) -> Path:
        """The file with the weights of the best epoch, HDF5."""
        return self.folder / f"{self.name}.weights.h5"

    @property
    def history(self) -> Path:
        """The file with the metrics of the epochs, JSON."""
        return self.folder / f"{self.name}.history.json"

    @property
    def prior(self) -> Path:
        """The file with the chosen prior, JSON; absent if the recipe asks for none."""
        return self.folder / "prior.json"

    def read_prior(self) -> Prior | None:
        """Return the chosen prior."""
        if not self.prior.is_file():
            return None
        return read_json(self.prior, Prior, "train")

    def read_history(self) -> list[Epoch]:
        """Return the metrics of the epochs, and the seconds that each took."""
        epochs, seconds = read_json(self.history, list[Epoch], "train"), self._read_seconds()
        with reading(self.folder / TIMES, "train"):
            took = zip(epochs, seconds[self.name], strict=True)
            return [Epoch(epoch.epoch, epoch.metrics, each) for epoch, each in took]

    def write_history(self, epochs: Sequence[Epoch]) -> None:
        """Write the metrics and, to another file, the seconds, which differ between equal fits."""
        timeless = [Epoch(epoch.epoch, epoch.metrics) for epoch in epochs]
        self.history.write_bytes(msgspec.json.format(msgspec.json.encode(timeless), indent=2))
        seconds = {**self._read_seconds(), self.name: [epoch.seconds for epoch in epochs]}
        (self.folder / TIMES).write_bytes(msgspec.json.encode(seconds))

    def _read_seconds(self) -> dict[str, list[float]]:
        """Return the seconds of the epochs of all fits so far."""
        path = self.folder / TIMES
        if not path.is_file():
            return {}
        return read_json(path, dict[str, list[float]], "train")
