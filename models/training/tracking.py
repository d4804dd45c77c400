"""Trackers send parameters, metrics of each epoch and artefacts to MLflow or TensorBoard.

A failing tracker never stops a fit: the first error (such as an unreachable server or a full disk)
is logged as a warning, and the tracker is not used again.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

import tensorflow as tf

from models.training.callbacks import Logs, metrics_in
from models.training.config import TrackingConfig

log = logging.getLogger(__name__)

Status = Literal["FINISHED", "FAILED", "KILLED"]
#: MLflow would try a server that is down for minutes, at every call.
_PATIENCE = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}
#: Largest number of hyper-parameters that MLflow accepts in one call.
_PARAMETERS = 100


class TrackingLibrary(Protocol):
    """The protocol of experiment tracking libraries: MLflow or TensorBoard."""

    def begin(self, model: tf.keras.Model) -> None:
        """Start a tracked training run."""

    def record(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of a training epoch; epochs are numbered from 0."""

    def add(self, folder: Path) -> None:
        """Store the files of a folder as artefacts of the run, if the library has artefacts."""

    def end(self, status: Status) -> None:
        """End the tracked training run."""


class Tracker(tf.keras.callbacks.Callback):
    """A Keras callback that records training in MLflow or TensorBoard, until the first error.

    Args:
        name: the name of the tracker, for the warning.
        library: the tracking library to which the tracker writes.
    """

    def __init__(self, name: str, library: TrackingLibrary) -> None:
        super().__init__()
        self.name = name
        self.library = library
        self.begun = False
        self.lost = False

    def on_train_begin(self, logs: Logs = None) -> None:
        """Start the tracked run when the training begins."""
        self.begun = True
        self._safely(lambda: self.library.begin(self.model))

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Record the metrics of the finished training epoch."""
        metrics = metrics_in(logs)
        self._safely(lambda: self.library.record(epoch, metrics))

    def add(self, folder: Path) -> None:
        """Store the files of a folder as artefacts of the tracked run."""
        if self.begun:
            self._safely(lambda: self.library.add(folder))

    @contextmanager
    def following(self) -> Iterator[None]:
        """Mark the tracked run as finished, failed or interrupted at the end of the context."""
        status: Status = "FAILED"
        try:
            yield
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            if self.begun:
                self._safely(lambda: self.library.end(status))

    def _safely(self, write: Callable[[], None]) -> None:
        if self.lost:
            return
        try:
            write()
        except Exception as error:
            self.lost = True
            log.warning(
                "%s cannot be written to, and the fit goes on without it: %s",
                *(self.name, _reason(error)),
            )


def _reason(error: BaseException) -> str:
    """Return the root cause of an error as a short text."""
    while first := error.__cause__ or error.__context__:
        error = first
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}…"


def tracker(
    config: TrackingConfig, *, run: str, params: Mapping[str, Any], folder: Path, model: str = ""
) -> Tracker:
    """Return the Keras callback that records training in the configured tracking library.

    Args:
        config: the kind of the tracker, and the place to which the tracker writes.
        run: the name of the training run in the tracking library.
        params: nested hyper-parameters of the run; logged under dotted names such as
            `train.epochs`.
        folder: the folder to which a tracker writes its files.
        model: the name of the model if a run trains several models, each of which has its own
            files.

    Raises:
        ModuleNotFoundError: the tracker's library is not installed.
    """
    if config.kind == "tensorboard":
        return Tracker("TensorBoard", TensorBoard(folder / "tensorboard" / model))
    uri = config.uri or (folder / "mlruns").resolve().as_uri()
    return Tracker(f"MLflow at {uri}", MLflow(uri, config.experiment, run, params))


class TensorBoard:
    """Records a training run as event files for TensorBoard.

    Args:
        folder: the folder to which the event files are written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self, model: tf.keras.Model) -> None:
        """Open the event files and write the graph of the model to them."""
        self.callback = tf.keras.callbacks.TensorBoard(str(self.folder))
        self.callback.set_model(model)
        self.callback.on_train_begin()

    def record(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Write the metrics of a training epoch to the event files."""
        self.callback.on_epoch_begin(epoch)
        self.callback.on_epoch_end(epoch, dict(metrics))

    def add(self, folder: Path) -> None:
        """Add nothing: TensorBoard has no artefacts."""

    def end(self, status: Status) -> None:
        """Close the event files of TensorBoard."""
        self.callback.on_train_end()


class MLflow:
    """Records a training run in MLflow: hyper-parameters, metrics of each epoch and artefacts.

    This class uses MlflowClient, because MLflow marks a run of its module-level functions as
    finished when the process ends, even if the training failed.

    Args:
        uri: the URI of an MLflow tracking server, or a folder.
        experiment: the name of the experiment, which is created if it does not exist.
        run: the name of the MLflow run.
        params: nested hyper-parameters of the training run.
    """

    def __init__(self, uri: str, experiment: str, run: str, params: Mapping[str, Any]) -> None:
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow 3 asks for consent
        for name, value in _PATIENCE.items():
            os.environ.setdefault(name, value)
        import mlflow  # the `tracking` extra is needed only if the recipe asks for MLflow

        for chatty in ("mlflow", "urllib3"):  # they tell each attempt; the tracker tells the last
            logging.getLogger(chatty).setLevel(logging.ERROR)
        self.mlflow = mlflow
        self.uri, self.experiment, self.name, self.params = uri, experiment, run, params

    def begin(self, model: tf.keras.Model) -> None:
        """Start an MLflow run and log its hyper-parameters."""
        from mlflow.entities import Param

        self.client = self.mlflow.MlflowClient(tracking_uri=self.uri)
        there = self.client.get_experiment_by_name(self.experiment)
        experiment = (
            there.experiment_id if there else self.client.create_experiment(self.experiment)
        )
        self.run_id = self.client.create_run(experiment, run_name=self.name).info.run_id
        params = [Param(name, str(value)) for name, value in _flat(self.params)]
        for first in range(0, len(params), _PARAMETERS):
            self.client.log_batch(self.run_id, params=params[first : first + _PARAMETERS])

    def record(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of a training epoch, with `_at_` for `@`, which MLflow refuses."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        found = [
            Metric(name.replace("@", "_at_"), value, now, epoch) for name, value in metrics.items()
        ]
        self.client.log_batch(self.run_id, metrics=found)

    def add(self, folder: Path) -> None:
        """Upload the files of a folder as artefacts of the MLflow run."""
        self.client.log_artifacts(self.run_id, str(folder))

    def end(self, status: Status) -> None:
        """End the MLflow run with its final status."""
        self.client.set_terminated(self.run_id, status)


def _flat(nested: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in nested.items():
        if isinstance(value, Mapping) and value:
            pairs += _flat(value, f"{prefix}{key}.")
        else:
            pairs.append((f"{prefix}{key}", value))
    return pairs
