"""Everything a fit needs to go on as if it had never stopped, as npz and JSON; no pickle.

The order of rows comes from seed and epoch, every random draw from a counter among the weights; so
weights, the optimiser's variables and the epochs so far are the whole state.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from models.callbacks import Clock, Epoch, KeepBest, Logs

Arrays = list[npt.NDArray[np.generic]]


class State(msgspec.Struct, frozen=True, kw_only=True):
    """The small part of a checkpoint.

    Attributes:
        identity: says what is being fitted on what; a checkpoint of another fit is not taken.
        epochs: measured so far.
        best_epoch: whose weights `best.npz` holds; -1 for none.
    """

    identity: str
    epochs: list[Epoch]
    best_epoch: int


@dataclass(frozen=True)
class Checkpoint:
    """A folder that holds the last finished epoch.

    Attributes:
        folder: beside the stage, not in it: it lives while the stage does not.
        identity: see `State`.
    """

    folder: Path
    identity: str

    def write(self, model: tf.keras.Model, clock: Clock, keep: KeepBest) -> None:
        """Write aside, then rename: a kill leaves the checkpoint before or this one."""
        new, old = (self.folder.with_name(f"{self.folder.name}.{n}") for n in ("new", "old"))
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        _write(new / "weights.npz", model.get_weights())
        _write(new / "optimizer.npz", [v.numpy() for v in model.optimizer.variables])
        _write(new / "best.npz", keep.weights)
        state = State(identity=self.identity, epochs=clock.epochs, best_epoch=keep.epoch)
        (new / "state.json").write_bytes(msgspec.json.encode(state))
        shutil.rmtree(old, ignore_errors=True)
        if self.folder.exists():
            self.folder.rename(old)
        new.rename(self.folder)
        shutil.rmtree(old, ignore_errors=True)

    def read(self, model: tf.keras.Model, clock: Clock, keep: KeepBest) -> int:
        """Bring a compiled model, clock and best epoch to where the checkpoint stopped.

        Returns:
            The epoch to go on with; 0 if there is no checkpoint of this fit.
        """
        old = self.folder.with_name(f"{self.folder.name}.old")
        if old.exists() and not self.folder.exists():
            old.rename(self.folder)
        if not (self.folder / "state.json").is_file():
            return 0
        state = msgspec.json.decode((self.folder / "state.json").read_bytes(), type=State)
        if state.identity != self.identity:
            return 0
        model.optimizer.build(model.trainable_variables)
        model.set_weights(_read(self.folder / "weights.npz"))
        values = _read(self.folder / "optimizer.npz")
        for variable, value in zip(model.optimizer.variables, values, strict=True):
            variable.assign(value)
        clock.epochs = list(state.epochs)
        keep.epoch, keep.weights = state.best_epoch, _read(self.folder / "best.npz")
        if keep.epoch >= 0:
            keep.value = state.epochs[keep.epoch].metrics[keep.monitor]
        return len(state.epochs)

    def remove(self) -> None:
        """Forget the fit: it is finished."""
        for name in ("", ".new", ".old"):
            shutil.rmtree(self.folder.with_name(self.folder.name + name), ignore_errors=True)


class WriteCheckpoint(tf.keras.callbacks.Callback):
    """Write a checkpoint after each epoch. Put it last."""

    def __init__(self, checkpoint: Checkpoint, clock: Clock, keep: KeepBest) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        self.clock = clock
        self.keep = keep

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Write it."""
        self.checkpoint.write(self.model, self.clock, self.keep)


def _write(path: Path, arrays: Sequence[npt.NDArray[np.generic]]) -> None:
    np.savez(path, **{f"{i:04d}": array for i, array in enumerate(arrays)})


def _read(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as stored:
        return [stored[name] for name in sorted(stored.files)]
