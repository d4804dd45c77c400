"""Hostile run folders: links, pipes, foreign manifests, damaged and planted files, signed again.

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
#: Verb → its options besides the run.
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
class PlantedFault:
    """A fault of a run that an attacker or an accident may have made.

    Attributes:
        what: description.
        plant: changes the run; its arguments are the folder of the run and a folder outside of it,
            which must not be changed.
        verbs: verbs that are called then, keys of `VERBS`.
        codes: exit codes that are right.
    """

    what: str
    plant: Callable[[Path, Path], object]
    verbs: tuple[str, ...]
    codes: tuple[int, ...] = (2,)


def planted_faults() -> list[PlantedFault]:
    """Return all faults; those that need TensorFlow are last."""
    return [PlantedFault(*each) for each in (*LINKS, *FILES, *MODELS)]


def run(n: int, seed: int, folder: Path, scene: Scene) -> Tally:
    """Plant `n` of the faults, or all if there are fewer, and call verbs on the runs."""
    rng, tally = random.Random(seed), Tally("hostile folders")
    known = planted_faults()
    chosen = known if n >= len(known) else rng.sample(known, n)
    for number, planted in enumerate(chosen):
        own = scene.branch(folder / f"{number:03}", "etl", "train", "export", "index")
        faults, codes = _call_verbs(planted, own)
        tally.count(planted.what, faults, *(f"exit code {code}" for code in codes))
    return tally.finished()


def _call_verbs(planted: PlantedFault, scene: Scene) -> tuple[list[str], list[int]]:
    """Plant a fault and call verbs; return the losses, and the exit code of each verb."""
    victim = scene.folder / "victim"
    (victim / "inside").mkdir(parents=True)
    (victim / "precious").write_text(SECRET)
    (victim / "inside" / "deep").write_text(SECRET)
    (scene.folder / "users.csv").write_text("user_id,age\nu6,30\nnobody,41\n")
    (scene.folder / "items.csv").write_text("item_id,title,price\nnew,New,2.5\n")
    planted.plant(scene.run, victim)
    faults, codes = [], []
    for name in planted.verbs:
        ended = scene.call(name.split()[0], *VERBS[name], before=memory_limit(MEMORY), seconds=60)
        faults += [f"{name}: {fault}" for fault in ended_badly(ended, *planted.codes)]
        codes.append(ended.code)
    there = {str(p.relative_to(victim)): p.read_text() for p in victim.rglob("*") if p.is_file()}
    if there != {"precious": SECRET, "inside/deep": SECRET}:
        faults.append("a file outside of the run was changed")
    if (scene.folder / "pwned").exists():
        faults.append("what the run holds was run")
    return faults, codes
