"""Everything that a fit needs to go on as if it had never stopped, as npz and JSON; no pickle.

The order of rows comes from the seed and the epoch, and every random draw comes from a counter
among the weights. So the weights, the optimiser's variables and the epochs so far are the whole
state. A checkpoint that cannot be read whole is not used: the fit begins anew.
"""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from models.core import atomic
from models.training.callbacks import Clock, Epoch, KeepBest, Logs

log = logging.getLogger(__name__)

Arrays = list[npt.NDArray[np.generic]]

_ARRAYS = ("weights", "optimizer", "best")


class State(msgspec.Struct, frozen=True, kw_only=True):
    """The small part of a checkpoint.

    Attributes:
        identity: says what is being fitted on what; a checkpoint of another fit is not taken.
        epochs: measured so far.
        best_epoch: the epoch whose weights `best.npz` holds; -1 for none.
        sha256: name of each array file, without its ending → hash.
    """

    identity: str
    epochs: list[Epoch]
    best_epoch: int
    sha256: dict[str, str]


class Damaged(Exception):
    """A checkpoint does not hold what it should; the message says what is wrong."""


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
        """Write aside and put in place: a kill leaves the previous checkpoint or this one."""
        with atomic.new_folder(self.folder) as new:
            optimizer = [variable.numpy() for variable in model.optimizer.variables]
            arrays = (model.get_weights(), optimizer, keep.weights)
            state = State(
                identity=self.identity,
                epochs=clock.epochs,
                best_epoch=keep.epoch,
                sha256={
                    name: _write(new / f"{name}.npz", values)
                    for name, values in zip(_ARRAYS, arrays, strict=True)
                },
            )
            (new / "state.json").write_bytes(msgspec.json.encode(state))

    def read(self, model: tf.keras.Model, clock: Clock, keep: KeepBest) -> int:
        """Bring a compiled model, clock and best epoch to where the checkpoint stopped.

        Returns:
            The epoch to go on with; 0 if there is no checkpoint of this fit, or a damaged one.
        """
        atomic.recover(self.folder)
        if not (self.folder / "state.json").is_file():
            return 0
        try:
            state = self._state()
            if state.identity != self.identity:
                return 0
            model.optimizer.build(model.trainable_variables)
            wanted = (model.get_weights(), [v.numpy() for v in model.optimizer.variables])
            weights, optimizer, best = (self._arrays(name, state) for name in _ARRAYS)
            _refuse_unlike(weights, wanted[0])
            _refuse_unlike(optimizer, wanted[1])
            if state.best_epoch >= 0:
                _refuse_unlike(best, wanted[0])
                keep.value = state.epochs[state.best_epoch].metrics[keep.monitor]
        except (Damaged, OSError, KeyError, IndexError) as error:
            log.warning(
                "The checkpoint %s cannot be used (%s); the fit begins anew.", self.folder, error
            )
            return 0
        model.set_weights(weights)
        for variable, value in zip(model.optimizer.variables, optimizer, strict=True):
            variable.assign(value)
        clock.epochs = list(state.epochs)
        keep.epoch, keep.weights = state.best_epoch, best
        return len(state.epochs)

    def _state(self) -> State:
        try:
            return msgspec.json.decode((self.folder / "state.json").read_bytes(), type=State)
        except msgspec.DecodeError as error:
            raise Damaged(f"state.json: {error}") from None

    def _arrays(self, name: str, state: State) -> Arrays:
        path = self.folder / f"{name}.npz"
        if atomic.sha256(path) != state.sha256.get(name):
            raise Damaged(f"{name}.npz is not the file that was written")
        try:
            with np.load(path, allow_pickle=False) as stored:
                return [stored[key] for key in sorted(stored.files)]
        except (ValueError, zipfile.BadZipFile) as error:
            raise Damaged(f"{name}.npz: {error}") from None

    def remove(self) -> None:
        """Forget the fit: it is finished."""
        for folder in (self.folder, atomic.beside(self.folder), atomic.older(self.folder)):
            atomic.remove(folder)


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


def _write(path: Path, arrays: Sequence[npt.NDArray[np.generic]]) -> str:
    """Write arrays and return the SHA-256 of the file."""
    # np.savez leaves its archive open if the disk is full, and Python then complains at its end
    with zipfile.ZipFile(path, "w") as archive:
        for number, array in enumerate(arrays):
            with archive.open(f"{number:04d}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)
    return atomic.sha256(path)


def _refuse_unlike(found: Arrays, wanted: Arrays) -> None:
    """Refuse arrays of other shapes than the model's."""
    shapes = [array.shape for array in found], [array.shape for array in wanted]
    if shapes[0] != shapes[1]:
        raise Damaged("its arrays have other shapes than the model's")
