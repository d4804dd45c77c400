"""Run folders of strangers: links, pipes, foreign manifests, damaged and planted files, re-signed.

The hashes of a run help against damage, not against whoever can write the run. So each verb that
reads such a run ends in one paragraph, or does what it should; it runs nothing of the run, and it
changes no file outside of the run.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from faults_of_files import FILES
from faults_of_links import LINKS
from faults_of_models import MODELS
from forked import memory_limit
from judge import ended_badly
from scene import Scene
from tally import Tally

MEMORY = 16
SECRET = "a file of somebody else\n"
#: What each verb is asked beside the run, and the stages that it needs.
VERBS: dict[str, tuple[str, ...]] = {
    "etl": (),
    "recommend": (),
    "recommend --users": ("--users", "users.csv"),
    "index": (),
    "index --add": ("--add", "items.csv"),
    "load": ("--to", "opensearch"),
    "triton": (),
    "export": (),
    "evaluate": ("--set", "evaluate.baselines=[popularity]"),
    "similar-items": ("--item", "001"),
}


@dataclass(frozen=True)
class Stranger:
    """One thing that is wrong with a run.

    Attributes:
        what: in words.
        plant: changes the run; it is given the folder of the run and a victim outside of it.
        verbs: that are called then, keys of `VERBS`.
        codes: exit codes that are right.
    """

    what: str
    plant: Callable[[Path, Path], object]
    verbs: tuple[str, ...]
    codes: tuple[int, ...] = (2,)


def strangers() -> list[Stranger]:
    """Return all of them; those that need TensorFlow come last."""
    return [Stranger(*each) for each in (*LINKS, *FILES, *MODELS)]


def run(n: int, seed: int, folder: Path, scene: Scene) -> Tally:
    """Plant `n` of the faults, or all if there are fewer, and call verbs."""
    dice, tally = random.Random(seed), Tally("hostile folders")
    every = strangers()
    chosen = every if n >= len(every) else dice.sample(every, n)
    for number, stranger in enumerate(chosen):
        own = scene.branch(folder / f"{number:03}", "etl", "train", "export", "index")
        faults, codes = _tried(stranger, own)
        tally.count(stranger.what, faults, *(f"exit code {code}" for code in codes))
    return tally.finished()


def _tried(stranger: Stranger, scene: Scene) -> tuple[list[str], list[int]]:
    """Return what was lost, and the exit code of each verb."""
    victim = scene.folder / "victim"
    (victim / "inside").mkdir(parents=True)
    (victim / "precious").write_text(SECRET)
    (victim / "inside" / "deep").write_text(SECRET)
    (scene.folder / "users.csv").write_text("user_id,age\nu6,30\nnobody,41\n")
    (scene.folder / "items.csv").write_text("item_id,title,price\nnew,New,2.5\n")
    stranger.plant(scene.run, victim)
    faults, codes = [], []
    for name in stranger.verbs:
        ended = scene.call(name.split()[0], *VERBS[name], before=memory_limit(MEMORY), seconds=60)
        faults += [f"{name}: {fault}" for fault in ended_badly(ended, *stranger.codes)]
        codes.append(ended.code)
    there = {str(p.relative_to(victim)): p.read_text() for p in victim.rglob("*") if p.is_file()}
    if there != {"precious": SECRET, "inside/deep": SECRET}:
        faults.append("a file outside of the run was changed")
    if (scene.folder / "pwned").exists():
        faults.append("what the run holds was run")
    return faults, codes
