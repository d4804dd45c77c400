"""Trackers against what they wrote: a file store of MLflow, an event file of TensorBoard.

And what becomes of a fit whose tracker is down, dies, or has no room: nothing but one warning.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from tiny_run import CPU, Run, Tiny

from models.training import tracking
from models.training.config import TrackingConfig
from models.training.tracking import Tracker, tracker
from workflows.ground.errors import RecipeError
from workflows.stages.train_files import TrainFiles
from workflows.train import _trackers, train


@pytest.mark.filterwarnings("ignore")  # MLflow's own
@pytest.mark.usefixtures("eagerly")
def test_t09_mlflow_holds_parameters_every_epoch_and_the_stage(tiny: Tiny, tmp_path):
    run = tiny.prepared.branch(
        tmp_path / "run",
        "tracking={kind: mlflow, experiment: tiny}",
        "train.epochs=2",
        "train.batch_size=512",
    )
    train(run.recipe, run.store, CPU)
    (logged,) = runs(run.store.root, "tiny")
    assert logged.info.status == "FINISHED"
    assert logged.info.run_name == "run"
    assert logged.data.params["train.epochs"] == "2"
    assert logged.data.params["loss.temperature"] == "1.0"
    assert not {"loss_batch", "regularization_loss"} & set(logged.data.metrics)
    history = TrainFiles(run.store.folder("train")).read_history()
    client = client_of(run.store.root)
    recalls = client.get_metric_history(logged.info.run_id, "val_recall_at_10")
    assert [m.value for m in sorted(recalls, key=lambda m: m.step)] == [
        epoch.metrics["val_recall@10"] for epoch in history
    ]
    names = {artifact.path for artifact in client.list_artifacts(logged.info.run_id)}
    assert {"model.history.json", "model.weights.h5"} <= names


def client_of(root: Path) -> Any:
    import mlflow  # it takes a second and a half, which other files' tests need not wait for

    return mlflow.MlflowClient((root / "mlruns").as_uri())


def runs(root: Path, experiment: str) -> list[Any]:
    """Return the runs of an experiment in a file store."""
    client = client_of(root)
    found = client.get_experiment_by_name(experiment)
    return list(client.search_runs([found.experiment_id]))


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


def test_a_tracker_that_need_not_be_there_is_done_without(tiny: Tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    run = tiny.prepared.branch(tmp_path / "run", "tracking={kind: mlflow, required: false}")
    assert _trackers(run.recipe, run.store) == []


# ── trackers that fail ──────────────────────────────────────────────────────────────────


class Answers(BaseHTTPRequestHandler):
    """MLflow's REST interface, as far as a fit asks for it; it dies after the second epoch."""

    server: Server

    def do_GET(self) -> None:
        self.answer({"experiment": {"experiment_id": "1", "name": "tiny"}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(self.path.rpartition("mlflow/")[2])
        info = {"run_id": "r", "experiment_id": "1", "artifact_uri": "/nowhere"}
        self.answer({"run": {"info": info, "data": {}}, "run_info": info})
        if any(metric["step"] == 1 for metric in body.get("metrics", [])):
            self.server.die()

    def answer(self, what: dict[str, Any]) -> None:
        body = json.dumps(what).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.asked: list[str] = []
        self.uri = f"http://127.0.0.1:{self.server_port}"

    def die(self) -> None:
        self.shutdown()
        self.server_close()


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.die()
        thread.join()


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings, but those of the data: the tiny world has users who come back."""
    found = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    return [text for text in found if "exclude_seen" not in text]


@pytest.fixture
def epochs(tiny: Tiny, tmp_path) -> Run:
    """A fit of four epochs that is about to begin."""
    return tiny.prepared.branch(tmp_path / "run", "train.epochs=4", "train.patience=9")


def tracked(run: Run, **where: str) -> None:
    settings = ", ".join(f"{name}: '{value}'" for name, value in where.items())
    overrides = ["train.epochs=4", "train.patience=9", f"tracking={{{settings}}}"]
    train(run.world.recipe(*overrides), run.store, CPU)


@pytest.mark.filterwarnings("ignore")  # MLflow's own
@pytest.mark.usefixtures("eagerly")
def test_a_server_that_dies_in_epoch_2_costs_one_warning(epochs: Run, caplog):
    with serving() as server:
        start = time.monotonic()
        tracked(epochs, kind="mlflow", uri=server.uri, experiment="tiny")
        took = time.monotonic() - start
    assert len(TrainFiles(epochs.store.folder("train")).read_history()) == 4
    (warning,) = told(caplog)
    assert warning.startswith(f"MLflow at {server.uri} cannot be written to, and the fit goes on ")
    assert server.asked[0] == "runs/create"
    assert set(server.asked[1:]) == {"runs/log-batch"}
    assert took < 60


@pytest.mark.filterwarnings("ignore")  # MLflow's own
@pytest.mark.usefixtures("eagerly")
def test_a_server_that_is_down_at_the_start_costs_one_warning(epochs: Run, caplog):
    start = time.monotonic()
    tracked(epochs, kind="mlflow", uri="http://127.0.0.1:1", experiment="tiny")
    assert time.monotonic() - start < 60  # MLflow's own patience is minutes
    assert epochs.store.folder("train").is_dir()
    assert len(told(caplog)) == 1
    assert "Connection refused" in told(caplog)[0]


@pytest.mark.filterwarnings("ignore")  # MLflow's own
@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("kind", ["tensorboard", pytest.param("mlflow", marks=pytest.mark.quality)])
def test_a_place_that_cannot_be_written_costs_one_warning(epochs: Run, caplog, kind):
    in_the_way = epochs.store.root / {"mlflow": "mlruns", "tensorboard": "tensorboard"}[kind]
    in_the_way.write_text("a file", encoding="utf-8")
    tracked(epochs, kind=kind)
    assert epochs.store.folder("train").is_dir()
    (warning,) = told(caplog)
    assert "cannot be written to, and the fit goes on without it: " in warning


class Full:
    """A book whose disk is full from some call on."""

    def __init__(self, until: int) -> None:
        self.calls: list[object] = []
        self.until = until

    def _write(self, what: object) -> None:
        self.calls.append(what)
        if len(self.calls) > self.until:
            raise OSError(28, "No space left on device")

    def begin(self, model: object) -> None:
        self._write("begin")

    def record(self, epoch: int, metrics: object) -> None:
        self._write(epoch)

    def add(self, folder: Path) -> None:
        self._write("add")

    def end(self, status: str) -> None:
        self._write(status)


def follow(book: Full, *, error: type[BaseException] | None = None) -> None:
    track = Tracker("a book", book)
    with track.following():
        track.on_train_begin()
        for epoch in range(3):
            track.on_epoch_end(epoch, {"loss": 1.0})
        if error:
            raise error
        track.add(Path())


@pytest.mark.parametrize("until", range(6))
def test_after_its_first_fault_a_tracker_is_left_alone(until: int, caplog):
    book = Full(until)
    follow(book)
    calls = ["begin", 0, 1, 2, "add", "FINISHED"]
    assert book.calls == calls[: until + 1]
    (warning,) = told(caplog)
    assert warning.endswith("the fit goes on without it: [Errno 28] No space left on device")


@pytest.mark.parametrize(
    ("error", "status"), [(ZeroDivisionError, "FAILED"), (KeyboardInterrupt, "KILLED")]
)
def test_a_run_ends_as_its_fit_does(error: type[BaseException], status: str, caplog):
    book = Full(until=99)
    with pytest.raises(error):
        follow(book, error=error)
    assert book.calls == ["begin", 0, 1, 2, status]
    assert told(caplog) == []


@pytest.mark.filterwarnings("ignore")  # MLflow's own
@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize(
    ("error", "status"), [(RuntimeError, "FAILED"), (KeyboardInterrupt, "KILLED")]
)
def test_mlflow_knows_how_a_fit_ended(epochs: Run, error: type[BaseException], status: str):
    class Stop(tf.keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
            if epoch == 1:
                raise error("in the second epoch")

    recipe = epochs.world.recipe("train.epochs=4", "tracking={kind: mlflow, experiment: tiny}")
    with pytest.raises(error):
        train(recipe, epochs.store, CPU, callbacks=[Stop()])
    (logged,) = runs(epochs.store.root, "tiny")
    assert logged.info.status == status
    assert "val_recall_at_10" in logged.data.metrics  # of the first epoch


def test_patience_that_the_user_chose_is_kept(monkeypatch, tmp_path):
    for name in tracking._PATIENCE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    tracker(TrackingConfig(kind="mlflow"), run="x", params={}, folder=tmp_path)
    from mlflow import environment_variables as chosen

    assert chosen.MLFLOW_HTTP_REQUEST_TIMEOUT.get() == 77
    assert chosen.MLFLOW_HTTP_REQUEST_MAX_RETRIES.get() == 1
