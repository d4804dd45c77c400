"""kill -9 at random moments: the old or the new result is complete, and the next run succeeds."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from judge import PATIENCE, bulk, damaged_run, digest, ended_badly, left_over, name
from scene import Scene
from tally import Tally


@dataclass(frozen=True)
class Victim:
    """A verb that writes two different results alternately.

    Attributes:
        verb: name of the verb.
        stages: stages that it needs.
        turns: options of the command for the first and for the second result.
        held: returns a hash of the present result; "" if there is none.
        resume: options of the command when it runs again after an interruption.
    """

    verb: str
    stages: tuple[str, ...]
    turns: tuple[tuple[str, ...], tuple[str, ...]]
    held: Callable[[Path], str]
    resume: tuple[str, ...] = ()


VICTIMS = (
    Victim("etl", (), ((), ("--set", "vocabulary.oov_buckets=2")),
           lambda run: digest(run / "etl")),
    Victim("recommend", ("etl", "train", "export", "index"), (("-k", "3"), ("-k", "5")),
           lambda run: digest(run / "recommend")),
    Victim("index", ("etl", "train", "export"), ((), ("--set", "index.kind=exact")),
           lambda run: digest(run / "index")),
    Victim("load", ("etl", "train", "export", "index"),
           (("--to", "opensearch", "--name", "a"), ("--to", "opensearch", "--name", "b")),
           lambda run: bulk(run / "opensearch")),
)  # fmt: skip
_SEEDS = (("--set", "train.seed=1"), ("--set", "train.seed=2"))
#: Verbs that import Merlin models, or start a process that does; a case takes seconds.
SLOW = (
    Victim("train", ("etl",), _SEEDS, lambda run: digest(run / "train"), ("--resume",)),
    Victim("tune", ("etl",), _SEEDS, lambda run: digest(run / "tune")),
    Victim("export", ("etl", "train"), (("--set", "name=a"), ("--set", "name=b")),
           lambda run: name(run / "export")),
)  # fmt: skip


def victims(n: int) -> tuple[Victim, ...]:
    """Return all verbs, or for few cases only the first two, as each takes time to set up."""
    return VICTIMS if n >= 20 else VICTIMS[:2]


def patience(victim: Victim) -> float:
    """Return the seconds after which a verb counts as hung."""
    return 10 * PATIENCE if victim in SLOW else PATIENCE


def shares(n: int) -> list[tuple[Victim, int]]:
    """Return how often each verb is tried: slow ones once in twenty, the others alike."""
    slow = [(victim, n // 20) for victim in SLOW if n >= 20]
    quick, rest = victims(n), n - sum(share for _, share in slow)
    return [
        *slow,
        *((v, rest // len(quick) + (i < rest % len(quick))) for i, v in enumerate(quick)),
    ]


def run(n: int, seed: int, folder: Path, scene: Scene) -> Tally:
    """Make `n` kills of all verbs."""
    rng, tally = random.Random(seed), Tally("kills")
    for victim, share in shares(n):
        _kill(victim, share, rng, scene.branch(folder / victim.verb, *victim.stages), tally)
    return tally.finished()


def _kill(victim: Victim, n: int, rng: random.Random, scene: Scene, tally: Tally) -> None:
    known, took, seconds = [], 0.0, patience(victim)
    for turn in (1, 0):
        ended = scene.call(victim.verb, *victim.turns[turn], seconds=seconds)
        if faults := ended_badly(ended, 0) or left_over(scene.folder):
            tally.count(f"{victim.verb} before any kill", faults)
            return
        known, took = [victim.held(scene.run), *known], max(took, ended.seconds)
    for number in range(n):
        turn = 1 - number % 2
        words = victim.turns[turn]
        moment = rng.uniform(0.1, 1) * took
        if victim.verb == "tune":  # what its journal holds would not be searched again
            (scene.run / ".tune.journal").unlink()
        killed = scene.call(victim.verb, *words, kill_after=moment)
        faults = [] if killed.killed else ended_badly(killed, 0)
        faults += damaged_run(scene.run)
        held = victim.held(scene.run)
        if held not in known:
            faults.append("neither the old result nor the new one is there")
        what = "new result" if held == known[turn] else "old result"
        if victim in SLOW:  # a process that is killed cannot empty its temporary folder
            shutil.rmtree(scene.folder / "tmp")
        after = scene.call(victim.verb, *words, *victim.resume, seconds=seconds)
        faults += [f"next run: {fault}" for fault in ended_badly(after, 0)]
        if victim.held(scene.run) != known[turn]:
            faults.append("the next run's result is another one")
        faults += [f"next run: {fault}" for fault in left_over(scene.folder)]
        case = f"{victim.verb} killed after {moment:.3f} of {took:.3f} s"
        tally.count(case, faults, what if killed.killed else "ended before")
        took = (took + after.seconds) / 2
