"""Keras callbacks that carry parameters, metrics and artefacts to a tracker."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from models.callbacks import Logs
from models.config import TrackingConfig


def tracker(
    config: TrackingConfig, *, run: str, params: Mapping[str, Any], folder: Path
) -> tf.keras.callbacks.Callback:
    """Return the callback of a tracker.

    Args:
        config: which, and where it lives.
        run: name of the run.
        params: nested; logged as `train.epochs` and the like.
        folder: for trackers that write files here.

    Raises:
        ModuleNotFoundError: the tracker's library is not installed.
    """
    if config.kind == "tensorboard":
        return tf.keras.callbacks.TensorBoard(str(folder / "tensorboard"))
    return MLflow(config, run=run, params=params, folder=folder)


class MLflow(tf.keras.callbacks.Callback):
    """A run of MLflow: parameters, every epoch's metrics; artefacts by `log_folder`.

    Args:
        config: `uri` is a tracking server or a folder; empty for `mlruns` in the run's folder.
        run: name of the run.
        params: nested parameters.
        folder: of the run.
    """

    def __init__(
        self, config: TrackingConfig, *, run: str, params: Mapping[str, Any], folder: Path
    ) -> None:
        super().__init__()
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow 3 asks for consent
        import mlflow  # the `tracking` extra: only who asks for it needs it

        self.mlflow = mlflow
        self.params_to_log = params
        self.run_name = run
        mlflow.set_tracking_uri(config.uri or (folder / "mlruns").resolve().as_uri())
        mlflow.set_experiment(config.experiment)

    def on_train_begin(self, logs: Logs = None) -> None:
        """Open the run."""
        self.run = self.mlflow.start_run(run_name=self.run_name)
        self.mlflow.log_params(dict(_flat(self.params_to_log)))

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Log the epoch. MLflow's names have no `@`."""
        metrics = {name.replace("@", "_at_"): float(v) for name, v in (logs or {}).items()}
        self.mlflow.log_metrics(metrics, step=epoch)

    def on_train_end(self, logs: Logs = None) -> None:
        """Close the run."""
        self.mlflow.end_run()

    def log_folder(self, folder: Path) -> None:
        """Add the files of a folder as artefacts."""
        self.mlflow.MlflowClient().log_artifacts(self.run.info.run_id, str(folder))


def _flat(nested: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in nested.items():
        if isinstance(value, Mapping) and value:
            pairs += _flat(value, f"{prefix}{key}.")
        else:
            pairs.append((f"{prefix}{key}", value))
    return pairs
