"""The run that campaigns use: the tiny world of the tests with its etl, train and export stages.

`branch` makes a copy for a campaign. `words` returns the command line of a verb.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from forked import Ended, child, two_tower
from judge import PATIENCE

#: Settings of a small FAISS graph; its recall does not matter here.
_INDEX = ("index.kind=hnsw", "index.recall=0.01", "index.at=3", "index.queries=4")
#: Settings of a hyper-parameter search with two short fits.
_TUNE = ("tune.trials=2",)


@dataclass(frozen=True)
class Scene:
    """A run and its raw data.

    Attributes:
        folder: it has `raw` with tables and recipe, and `run` with stages.
    """

    folder: Path

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def recipe(self) -> Path:
        return self.folder / "raw" / "tiny.yaml"

    def words(self, verb: str, *more: str, recipe: Path | None = None) -> list[str]:
        """Return a command line for this run."""
        words = [verb, "--recipe", str(recipe or self.recipe), "--run", str(self.run)]
        settings = [word for setting in (*_INDEX, *_TUNE) for word in ("--set", setting)]
        return [*words, "--device", "cpu", *settings, *more]

    def call(self, verb: str, *more: str, **options: object) -> Ended:
        """Call a verb on this run in a child; options: see `forked.child`."""
        words = self.words(verb, *more)
        return two_tower(words, **{"folder": self.folder, "seconds": PATIENCE, **options})

    def branch(self, folder: Path, *stages: str) -> Scene:
        """Return another scene with the same raw data and copies of these stages."""
        shutil.copytree(self.folder / "raw", folder / "raw")
        (folder / "run").mkdir()
        for stage in stages:
            shutil.copytree(self.run / stage, folder / "run" / stage)
        return Scene(folder)


def made(folder: Path) -> Scene:
    """Return the scene in a folder; train and export first if it does not exist."""
    folder.mkdir(parents=True, exist_ok=True)
    scene = Scene(folder.resolve())
    if not (scene.run / "export").is_dir():
        ended = child(lambda: _make(scene.folder), folder=scene.folder, seconds=600)
        if ended.code:
            raise RuntimeError(f"the scene could not be made: {ended.err}")
    if not (scene.run / "index").is_dir():
        ended = scene.call("index", seconds=300)
        if ended.code:
            raise RuntimeError(f"the scene's index could not be made: {ended.err}")
    return scene


def _make(folder: Path) -> None:
    from tiny_run import Tiny

    assert Tiny(folder).exported
