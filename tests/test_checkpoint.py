"""A fit that is stopped and taken up again ends where one that was not stopped ends."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from tiny_run import CPU, Run, Tiny, steps_run_eagerly

from models.core.columns import USER_ROW
from models.core.partitions import ParquetPartitions
from models.training.batches import Batches
from models.training.callbacks import Clock, Epoch, KeepBest
from models.training.checkpoint import Checkpoint
from workflows.ground.errors import ArtifactError
from workflows.stages.etl import EtlFiles, Prepared
from workflows.stages.train_files import TrainFiles
from workflows.train import train


class Stopped(Exception):
    """What stands for a kill: the fit ends without a word to anybody."""


class StopIn(tf.keras.callbacks.Callback):
    """Die in the middle of an epoch."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.dies_in = epoch
        self.now = -1

    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.now == self.dies_in:
            raise Stopped


def weights(run: Run) -> dict[str, np.ndarray]:
    """Return every weight by its name in the file."""
    found: dict[str, np.ndarray] = {}
    with h5py.File(TrainFiles(run.store.folder("train")).weights) as file:
        file.visititems(
            lambda name, node: (
                found.update({name: node[...]}) if isinstance(node, h5py.Dataset) else None
            )
        )
    return found


def figures(run: Run) -> list[dict[str, float]]:
    return [epoch.metrics for epoch in TrainFiles(run.store.folder("train")).read_history()]


@pytest.fixture(scope="module")
def stopped(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A fit with every random draw that there is, stopped in its third epoch."""
    run = tiny.prepared.branch(tmp_path_factory.mktemp("stopped"), *RANDOM)
    with steps_run_eagerly(), pytest.raises(Stopped):
        train(run.recipe, run.store, CPU, callbacks=[StopIn(2)])
    return run


RANDOM = (
    "model.dropout=0.3",
    "model.id_dropout=0.3",
    "loss.kind=mixed",
    "loss.negatives=5",
    "train.max_rows_per_user=3",
    "train.epochs=4",
    "train.patience=9",
    "optimizer.schedule=cosine",
)


def test_a_stopped_fit_leaves_its_last_epoch_and_no_stage(stopped: Run):
    assert not stopped.store.folder("train").exists()
    folder = stopped.store.root / ".train.checkpoint" / "model"
    assert (folder / "state.json").is_file()
    assert {p.suffix for p in folder.iterdir()} == {".npz", ".json"}


@pytest.mark.usefixtures("eagerly")
def test_resumed_equals_uninterrupted(stopped: Run, tiny: Tiny, tmp_path):
    whole = tiny.prepared.branch(tmp_path / "whole", *RANDOM)
    train(whole.recipe, whole.store, CPU)
    resumed = train(stopped.recipe, stopped.store, CPU, resume=True)
    assert resumed.first.epochs == 4
    assert figures(stopped) == figures(whole)
    ours, theirs = weights(stopped), weights(whole)
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    assert not (stopped.store.root / ".train.checkpoint").exists()


@pytest.fixture
def divided(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let training read its rows from six partitions by user, one or two at a time."""
    files = EtlFiles(tmp_path)
    files.table("train").mkdir()
    rows = pq.read_table(EtlFiles(tiny.prepared.store.folder("etl")).parts("train"))
    for number in range(6):
        mine = np.flatnonzero(rows[USER_ROW].to_numpy() % 6 == number)
        pq.write_table(rows.take(pa.array(mine)), files.part("train", number))
    files.partition_sizes("train").write_text("[1, 1, 1, 1, 1, 1]")
    monkeypatch.setattr(
        Prepared,
        "partitions",
        lambda self, name, columns: ParquetPartitions(files.partitions(name), columns),
    )
    size = ParquetPartitions(files.partitions("train"), rows.column_names).n_bytes.mean()
    monkeypatch.setitem(Batches.__init__.__kwdefaults__, "window_bytes", int(size))


@pytest.mark.usefixtures("eagerly", "divided")
def test_a_fit_that_reads_windows_resumes_exactly_too(tiny: Tiny, tmp_path, monkeypatch):
    opened = []
    read = ParquetPartitions.read
    monkeypatch.setattr(
        ParquetPartitions, "read", lambda self, n: opened.append(len(n)) or read(self, n)
    )
    settings = ("train.epochs=3", "train.patience=9", "model.dropout=0.3", "loss.mask=user")
    whole = tiny.prepared.branch(tmp_path / "whole", *settings)
    train(whole.recipe, whole.store, CPU)
    assert len(opened) > 9, "an epoch reads several windows"
    part = tiny.prepared.branch(tmp_path / "part", *settings)
    with pytest.raises(Stopped):
        train(part.recipe, part.store, CPU, callbacks=[StopIn(2)])
    train(part.recipe, part.store, CPU, resume=True)
    assert figures(part) == figures(whole)
    ours, theirs = weights(part), weights(whole)
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.usefixtures("eagerly", "divided")
def test_a_partition_that_cannot_be_read_ends_the_fit_with_its_own_error(
    tiny: Tiny, tmp_path, monkeypatch
):
    read, count = ParquetPartitions.read, []

    def fails(self, numbers):
        count.append(numbers)
        if len(count) == 3:
            raise ArtifactError("part-3.parquet is damaged")
        return read(self, numbers)

    monkeypatch.setattr(ParquetPartitions, "read", fails)
    run = tiny.prepared.branch(tmp_path / "run", "train.epochs=1")
    with pytest.raises(ArtifactError, match=r"^part-3\.parquet is damaged$"):
        train(run.recipe, run.store, CPU)


def test_the_weights_are_saved_without_the_running_loss(tiny: Tiny):
    """A fit that resumes after its last epoch has none, and its file must not be another one."""
    groups = {name.partition("/")[0] for name in weights(tiny.trained)}
    assert "optimizer" in groups
    assert "metrics" not in groups


@pytest.mark.quality
@pytest.mark.usefixtures("eagerly")
def test_another_fit_is_not_taken_up(tiny: Tiny, tmp_path):
    quick = ("train.epochs=2", "train.batch_size=512")
    run = tiny.prepared.branch(tmp_path / "run", *quick)
    with pytest.raises(Stopped):
        train(run.recipe, run.store, CPU, callbacks=[StopIn(1)])
    other = run.world.recipe(*quick, "train.seed=5")
    result = train(other, run.store, CPU, resume=True)
    assert result.first.epochs == 2
    assert [epoch.epoch for epoch in TrainFiles(run.store.folder("train")).read_history()] == [0, 1]


def test_a_kill_between_the_renames_keeps_the_old_checkpoint(tmp_path):
    old = tmp_path / ".checkpoint.old"
    old.mkdir()
    (old / "state.json").write_text(
        '{"identity": "another", "epochs": [], "best_epoch": -1, "sha256": {}}'
    )
    assert Checkpoint(tmp_path / "checkpoint", "mine").read(None, None, None) == 0
    assert (tmp_path / "checkpoint" / "state.json").is_file()


# ── damage ──────────────────────────────────────────────────────────────────────────────


def small_fit() -> tuple[tf.keras.Model, Clock, KeepBest]:
    """Return a compiled model with one step of Adam behind it, and what a fit remembers."""
    model = tf.keras.Sequential([tf.keras.layers.Dense(2, input_shape=(3,))])
    model.compile(optimizer="adam", loss="mse")
    model.optimizer.build(model.trainable_variables)
    clock, keep = Clock(), KeepBest("val_mean", patience=3)
    return model, clock, keep


def state_of(model: tf.keras.Model) -> list[np.ndarray]:
    return [*model.get_weights(), *(v.numpy() for v in model.optimizer.variables)]


DAMAGES = {
    **{
        f"{name} {how}": (name, how)
        for name in ("weights.npz", "optimizer.npz", "best.npz", "state.json")
        for how in ("halved", "zeroed", "emptied", "missing")
    },
    "another best epoch": ("state.json", "best_epoch"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_a_fresh_start_and_never_half_loaded(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    model, clock, keep = small_fit()
    keep.epoch, keep.value, keep.weights = 0, 0.5, model.get_weights()
    clock.epochs = [Epoch(0, {"val_mean": 0.5})]
    checkpoint = Checkpoint(tmp_path / ".checkpoint", "mine")
    checkpoint.write(model, clock, keep)
    name, how = DAMAGES[damage]
    path = tmp_path / ".checkpoint" / name
    content = path.read_bytes()
    path.unlink()
    if how == "best_epoch":
        path.write_bytes(content.replace(b'"best_epoch":0', b'"best_epoch":5'))
    elif how != "missing":
        cut = {
            "halved": content[: len(content) // 2],
            "zeroed": bytes(len(content)),
            "emptied": b"",
        }
        path.write_bytes(cut[how])
    other, its_clock, its_keep = small_fit()
    before = state_of(other)
    assert checkpoint.read(other, its_clock, its_keep) == 0
    assert all(np.array_equal(a, b) for a, b in zip(before, state_of(other), strict=True))
    assert (its_clock.epochs, its_keep.epoch) == ([], -1)
    told = [m for m in caplog.messages if "cannot be used" in m]
    assert len(told) == (damage != "state.json missing")


def test_a_sound_checkpoint_is_taken_up(tmp_path: Path) -> None:
    model, clock, keep = small_fit()
    keep.epoch, keep.value, keep.weights = 0, 0.5, model.get_weights()
    clock.epochs = [Epoch(0, {"val_mean": 0.5}, 1.5)]
    Checkpoint(tmp_path / ".checkpoint", "mine").write(model, clock, keep)
    other, its_clock, its_keep = small_fit()
    assert Checkpoint(tmp_path / ".checkpoint", "mine").read(other, its_clock, its_keep) == 1
    assert all(np.array_equal(a, b) for a, b in zip(state_of(model), state_of(other), strict=True))
    assert its_clock.epochs == clock.epochs
    assert (its_keep.epoch, its_keep.value) == (0, 0.5)
    assert Checkpoint(tmp_path / ".checkpoint", "another's").read(other, its_clock, its_keep) == 0
