"""The verbs' results on the tiny world (`world.py`), made once a process and changed by no test."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from world import RECIPE, World

from workflows.device import Device
from workflows.etl import etl
from workflows.export import ExportResult, export
from workflows.recipe import Recipe
from workflows.store import Store
from workflows.train import TrainResult, train

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


class Tiny:
    """One run whose stages are made when they are first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def prepared(self) -> Run:
        return prepare(self.folder)

    @cached_property
    def train_result(self) -> TrainResult:
        return train(self.prepared.recipe, self.prepared.store, CPU)

    @property
    def trained(self) -> Run:
        assert self.train_result
        return self.prepared

    @cached_property
    def export_result(self) -> ExportResult:
        return export(self.trained.recipe, self.trained.store, CPU)

    @property
    def exported(self) -> Run:
        assert self.export_result
        return self.prepared
