"""The verbs' results on the tiny world (`world.py`), made once a session and changed by no test."""

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
#: Small and quick; a list, a history, numbers and a context feature are all there.
SETTINGS = """
history: {columns: [item_id], max_len: 4}
model: {dim: 8}
train: {epochs: 3, batch_size: 32, patience: 3}
evaluate: {ks: [1, 3, 10], bootstrap: 20}
"""


@dataclass(frozen=True)
class Run:
    """A run with its recipe.

    Attributes:
        world: the raw files.
        recipe: as it was run.
        store: its stages.
    """

    world: World
    recipe: Recipe
    store: Store

    def histories(self, *, withheld: int = 0) -> dict[str, list[str]]:
        """Return each user's positives from the raw log, in order of time, but the last ones."""
        log = [r for r in self.world.log if None not in (r["user_id"], r["item_id"], r["when"])]
        log = sorted((r for r in log if r["rating"] >= 3), key=lambda row: row["when"])
        found: dict[str, list[str]] = {}
        for row in log:
            found.setdefault(row["user_id"], []).append(row["item_id"])
        return {user: items[: len(items) - withheld] for user, items in found.items()}

    @property
    def users(self) -> set[str]:
        """Everybody who has a row in the user table."""
        return {row["user_id"] for row in self.world.people} | set(self.histories(withheld=2))

    @property
    def items(self) -> set[str]:
        """Everything that has a row in the item table."""
        met = (item for of_user in self.histories(withheld=2).values() for item in of_user)
        return {row["item_id"] for row in self.world.films} | set(met)

    def branch(self, folder: Path, *overrides: str, stages: tuple[str, ...] = ("etl",)) -> Run:
        """Return a run of its own that begins with copies of finished stages.

        Args:
            folder: where to.
            overrides: of the recipe; not of what these stages read.
            stages: to copy.
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
    """Let a fit of few steps run them without tracing them first, which takes seconds a model."""
    tf.config.run_functions_eagerly(True)
    try:
        with warnings.catch_warnings():
            # TensorFlow: "does not apply to tf.data functions"
            warnings.filterwarnings("ignore", "Even though the `tf.config", UserWarning)
            yield
    finally:
        tf.config.run_functions_eagerly(False)


def check_here(folder: Path) -> None:
    """Stand in for `checks.check_from_outside`: make the same comparison in this process."""
    assert selfcheck.faults(folder) == []


class Tiny:
    """One run whose stages are made when they are first asked for.

    Args:
        folder: of all processes that run the tests; the first that asks for a stage makes it, and
            others wait for it and read what its verb returned.
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
        told = self.folder / f"{result.__name__}.json"
        with self._alone():
            if not told.exists():
                told.write_bytes(msgspec.json.encode(make(), enc_hook=str))
        # the maker reads it, too: all tests see the same
        return msgspec.json.decode(told.read_bytes(), type=result, dec_hook=lambda _, v: Path(v))

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
