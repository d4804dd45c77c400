"""Files of the train stage, and the figures of its epochs; reading them loads no TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from models.core.prior import Prior
from models.training.epoch import Epoch
from workflows.stages.store import TIMES


@dataclass(frozen=True)
class TrainFiles:
    """File names of the train stage."""

    folder: Path

    @property
    def weights(self) -> Path:
        """Weights of the best epoch, HDF5."""
        return self.folder / "model.weights.h5"

    @property
    def history(self) -> Path:
        """Epochs, JSON."""
        return self.folder / "history.json"

    @property
    def prior(self) -> Path:
        """The chosen prior, JSON; absent if the recipe asks for none."""
        return self.folder / "prior.json"

    def read_prior(self) -> Prior | None:
        """Return the chosen prior."""
        if not self.prior.is_file():
            return None
        return msgspec.json.decode(self.prior.read_bytes(), type=Prior)

    def read_history(self) -> list[Epoch]:
        """Return what was measured, epoch by epoch."""
        return read_epochs(self.history, self.folder / TIMES)

    def write_history(self, epochs: Sequence[Epoch]) -> None:
        """Write what was measured, epoch by epoch."""
        write_epochs(epochs, self.history)
        write_times({self.history.name: epochs}, self.folder / TIMES)


def write_epochs(epochs: Sequence[Epoch], path: Path) -> None:
    """Write what a fit measured, without its seconds: equal fits give equal files."""
    timeless = [Epoch(epoch.epoch, epoch.metrics) for epoch in epochs]
    path.write_bytes(msgspec.json.format(msgspec.json.encode(timeless), indent=2))


def write_times(epochs: Mapping[str, Sequence[Epoch]], path: Path) -> None:
    """Write the seconds of the epochs of one or several fits: name of the fit's file → seconds."""
    times = {name: [epoch.seconds for epoch in each] for name, each in epochs.items()}
    path.write_bytes(msgspec.json.encode(times))


def read_epochs(path: Path, times: Path) -> list[Epoch]:
    """Return the epochs that `write_epochs` wrote, with the seconds that `write_times` wrote."""
    epochs = msgspec.json.decode(path.read_bytes(), type=list[Epoch])
    seconds = msgspec.json.decode(times.read_bytes(), type=dict[str, list[float]])[path.name]
    return [Epoch(e.epoch, e.metrics, took) for e, took in zip(epochs, seconds, strict=True)]
