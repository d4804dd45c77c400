"""Trackers against what they wrote: a file store of MLflow, an event file of TensorBoard."""

from __future__ import annotations

import sys

import mlflow
import pytest
from tiny_run import CPU, Tiny

from workflows.artifacts import TrainFiles
from workflows.errors import RecipeError
from workflows.train import train


@pytest.mark.filterwarnings("ignore")  # MLflow's own
@pytest.mark.usefixtures("eagerly")
def test_mlflow_holds_parameters_every_epoch_and_the_stage(tiny: Tiny, tmp_path):
    run = tiny.prepared.branch(
        tmp_path / "run",
        "tracking={kind: mlflow, experiment: tiny}",
        "train.epochs=2",
        "train.batch_size=512",
    )
    train(run.recipe, run.store, CPU)
    client = mlflow.MlflowClient((run.store.root / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("tiny")
    (logged,) = client.search_runs([experiment.experiment_id])
    assert logged.info.status == "FINISHED"
    assert logged.data.params["train.epochs"] == "2"
    assert logged.data.params["loss.temperature"] == "1.0"
    history = TrainFiles(run.store.folder("train")).read_history()
    recalls = client.get_metric_history(logged.info.run_id, "val_recall_at_10")
    assert [m.value for m in sorted(recalls, key=lambda m: m.step)] == [
        epoch.metrics["val_recall@10"] for epoch in history
    ]
    names = {artifact.path for artifact in client.list_artifacts(logged.info.run_id)}
    assert {"history.json", "model.weights.h5"} <= names


@pytest.mark.usefixtures("eagerly")
def test_tensorboard_writes_events(tiny: Tiny, tmp_path):
    run = tiny.prepared.branch(
        tmp_path / "run", "tracking={kind: tensorboard}", "train.epochs=1", "train.batch_size=512"
    )
    train(run.recipe, run.store, CPU)
    (events,) = (run.store.root / "tensorboard" / "train").glob("events.*")
    assert b"epoch_recall@10" in b"".join(
        path.read_bytes() for path in (run.store.root / "tensorboard").rglob("events.*")
    )
    assert events.stat().st_size > 0


def test_a_tracker_that_is_not_installed_is_named(tiny: Tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    run = tiny.prepared.branch(tmp_path / "run", "tracking={kind: mlflow}")
    with pytest.raises(RecipeError, match=r"field tracking: .*not installed.*extra `tracking`"):
        train(run.recipe, run.store, CPU)
    assert not run.store.folder("train").exists()
