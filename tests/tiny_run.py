"""Results of the verbs on the tiny world (`world.py`), computed once per test session.

Tests must not change them.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import msgspec
import tensorflow as tf
from world import RECIPE, World

from workflows.etl import etl
from workflows.export import ExportResult, export
from workflows.ground.device import Device
from workflows.recipe import Recipe
from workflows.stages.store import Store
from workflows.towers import selfcheck
from workflows.train import TrainResult, train

Result = TypeVar("Result", TrainResult, ExportResult)

CPU = Device("cpu", "tests run on a CPU")
#: Settings for a small and fast model that has lists, a history, numbers and a context feature.
SETTINGS = """
history: {columns: [item_id], max_len: 4}
model: {dim: 8, encoder: {kind: decay_pool}}
train: {epochs: 3, batch_size: 32, patience: 3}
evaluate: {ks: [1, 3, 10], bootstrap: 20}
"""


@dataclass(frozen=True)
class Run:
    """A run with its raw files and its recipe.

    Attributes:
        world: the raw files.
        recipe: recipe of the run.
        store: store with its stages.
    """

    world: World
    recipe: Recipe
    store: Store

    def histories(self, *, withheld: int = 0) -> dict[str, list[str]]:
        """Return each user's positives from the raw log, in order of time.

        Args:
            withheld: number of last positives of each user to leave out.
        """
        log = [r for r in self.world.log if None not in (r["user_id"], r["item_id"], r["when"])]
        log = sorted((r for r in log if r["rating"] >= 3), key=lambda row: row["when"])
        found: dict[str, list[str]] = {}
        for row in log:
            found.setdefault(row["user_id"], []).append(row["item_id"])
        return {user: items[: len(items) - withheld] for user, items in found.items()}

    @property
    def users(self) -> set[str]:
        """The ids that have a row in the user table."""
        return {row["user_id"] for row in self.world.people} | set(self.histories(withheld=2))

    @property
    def items(self) -> set[str]:
        """The ids that have a row in the item table."""
        met = (item for of_user in self.histories(withheld=2).values() for item in of_user)
        return {row["item_id"] for row in self.world.films} | set(met)

    def branch(self, folder: Path, *overrides: str, stages: tuple[str, ...] = ("etl",)) -> Run:
        """Return a new run that begins with copies of finished stages.

        Args:
            folder: folder of the new run.
            overrides: changes of recipe fields that the copied stages do not use.
            stages: stages to copy.
        """
        for stage in stages:
            shutil.copytree(self.store.folder(stage), folder / stage)
        return Run(self.world, self.world.recipe(*overrides), Store(folder))


def prepare(folder: Path, text: str = RECIPE + SETTINGS) -> Run:
    """Write the tiny world and run etl on it."""
    world = World(folder / "raw", text=text).write()
    run = Run(world, world.recipe(), Store(folder / "run"))
    etl(run.recipe, run.store, CPU, data=world.folder)
    return run


@contextlib.contextmanager
def steps_run_eagerly() -> Iterator[None]:
    """Run the steps of a short fit eagerly, because tracing takes seconds per model."""
    tf.config.run_functions_eagerly(True)
    try:
        with warnings.catch_warnings():
            # TensorFlow: "does not apply to tf.data functions"
            warnings.filterwarnings("ignore", "Even though the `tf.config", UserWarning)
            yield
    finally:
        tf.config.run_functions_eagerly(False)


def check_here(folder: Path) -> None:
    """Replace `checks.check_from_outside`: make the same comparison in this process."""
    assert selfcheck.faults(folder) == []


class Tiny:
    """One run whose stages are computed at their first use.

    Args:
        folder: folder that all processes of the test session share. The first process that needs a
            stage runs its verb; others wait for it and read the stored result.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed
            yield

    def _once(self, result: type[Result], make: Callable[[], Result]) -> Result:
        stored = self.folder / f"{result.__name__}.json"
        with self._alone():
            if not stored.exists():
                stored.write_bytes(msgspec.json.encode(make(), enc_hook=str))
        # the first process reads the file, too, so that all tests see the same result
        return msgspec.json.decode(stored.read_bytes(), type=result, dec_hook=lambda _, v: Path(v))

    @cached_property
    def prepared(self) -> Run:
        with self._alone():
            run = self.folder / "run"
            if not (run / "etl").exists():
                return prepare(self.folder)
        world = World(self.folder / "raw", text=RECIPE + SETTINGS)
        return Run(world, world.recipe(), Store(run))

    @cached_property
    def train_result(self) -> TrainResult:
        run = self.prepared
        return self._once(TrainResult, lambda: train(run.recipe, run.store, CPU))

    @property
    def trained(self) -> Run:
        assert self.train_result
        return self.prepared

    @cached_property
    def export_result(self) -> ExportResult:
        run = self.trained
        return self._once(ExportResult, lambda: export(run.recipe, run.store, CPU))

    @property
    def exported(self) -> Run:
        assert self.export_result
        return self.prepared
