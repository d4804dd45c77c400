"""Checkpoints: the state from which an interrupted fit resumes exactly, as npz and JSON.

The seed and the epoch determine the order of rows, and a counter among the weights determines every
random draw. So the weights, the optimiser's variables and the finished epochs are the whole state
of a fit. If a checkpoint is damaged, the fit starts from the beginning.
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
from models.core.collectives import Collectives
from models.training.callbacks import Clock, Epoch, KeepBest, Logs

log = logging.getLogger(__name__)

Arrays = list[npt.NDArray[np.generic]]

_ARRAYS = ("weights", "optimizer", "best")


class State(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a checkpoint's JSON file; weights and optimiser state are in npz files.

    Attributes:
        identity: a text that identifies the model and its training data.
        epochs: metrics and durations of the finished epochs.
        best_epoch: the epoch whose weights are in `best.npz`; -1 for none.
        sha256: name of an array file, without its suffix → SHA-256 of the file.
    """

    identity: str
    epochs: list[Epoch]
    best_epoch: int
    sha256: dict[str, str]


class Damaged(Exception):
    """The files of a training checkpoint are damaged; the message describes the damage."""


@dataclass(frozen=True)
class Checkpoint:
    """A folder with the state of a training run after its last finished epoch.

    Attributes:
        folder: the folder of the checkpoint, beside the folder of the train stage.
        identity: a text that identifies the model and its training data; a checkpoint with another
            identity is not used.
    """

    folder: Path
    identity: str

    def write(self, model: tf.keras.Model, clock: Clock, keep: KeepBest) -> None:
        """Write the training checkpoint atomically: a kill leaves the old or the new checkpoint."""
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
        """Restore weights, optimiser, past epochs and best epoch from the checkpoint.

        Returns:
            The next epoch; 0 if there is no checkpoint of this fit, or if it is damaged.
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
            _refuse_other_shapes(weights, wanted[0])
            _refuse_other_shapes(optimizer, wanted[1])
            if state.best_epoch >= 0:
                _refuse_other_shapes(best, wanted[0])
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
        """Remove the checkpoint of a finished fit."""
        for folder in (
            self.folder,
            atomic.temporary_path(self.folder),
            atomic.older_path(self.folder),
        ):
            atomic.remove(folder)


def share_state(
    collectives: Collectives, model: tf.keras.Model, clock: Clock, keep: KeepBest, epoch: int
) -> int:
    """Copy the state of process 0 to all processes: its weights, or all state if it resumes.

    Args:
        collectives: the exchange between the processes of the training.
        model: the model, whose optimiser has been built.
        clock: the callback that records the finished epochs.
        keep: the callback that keeps the best epoch.
        epoch: the number of finished epochs, which only process 0 knows.

    Returns:
        The number of finished epochs, from process 0.
    """
    if collectives.share.size == 1:
        return epoch
    model.set_weights([collectives.share_out(weight) for weight in model.get_weights()])
    text = np.frombuffer(msgspec.json.encode(clock.epochs), np.uint8)
    numbers = np.array([epoch, keep.epoch, len(text)], np.int64)
    epoch, best, size = (int(number) for number in collectives.share_out(numbers))
    if not epoch:
        return 0
    for variable in model.optimizer.variables:
        variable.assign(collectives.share_out(variable.numpy()))
    text = collectives.share_out(np.resize(text, size))
    clock.epochs = msgspec.json.decode(text.tobytes(), type=list[Epoch])
    keep.epoch = best
    if best >= 0:
        keep.value = clock.epochs[best].metrics[keep.monitor]
        own = keep.weights or model.get_weights()
        keep.weights = [collectives.share_out(weight) for weight in own]
    return epoch


class WriteCheckpoint(tf.keras.callbacks.Callback):
    """A Keras callback that writes a checkpoint after each epoch; it must be the last callback."""

    def __init__(self, checkpoint: Checkpoint, clock: Clock, keep: KeepBest) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        self.clock = clock
        self.keep = keep

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Write the checkpoint of the finished epoch."""
        self.checkpoint.write(self.model, self.clock, self.keep)


def _write(path: Path, arrays: Sequence[npt.NDArray[np.generic]]) -> str:
    """Write a checkpoint's arrays to an npz file, and return the SHA-256 hash of the file."""
    # np.savez leaves its archive open if the disk is full, and Python then complains at its end
    with zipfile.ZipFile(path, "w") as archive:
        for number, array in enumerate(arrays):
            with archive.open(f"{number:04d}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)
    return atomic.sha256(path)


def _refuse_other_shapes(found: Arrays, wanted: Arrays) -> None:
    """Raise an error if arrays of a checkpoint differ in shape from those of the model."""
    shapes = [array.shape for array in found], [array.shape for array in wanted]
    if shapes[0] != shapes[1]:
        raise Damaged("its arrays have other shapes than the model's")
