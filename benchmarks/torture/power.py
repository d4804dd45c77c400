"""Power loss after any operation of a verb, on a disk that loses what was not synced.

A verb runs in a process, and a library below Python records all changes of files by the process and
its children (recorder.py), including those by native code of Arrow, TensorFlow, HDF5 and FAISS. For
random moments, folders are built as a disk may have them after a power loss (disk_states.py).
Another process must be able to read the complete old or new result there; after the last operation,
the new one. The verb must then run to its end. All recorded changes together must give the folder
that the verb has left.

The control runs a verb whose syncs do nothing, and must find losses.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import disk_states
from disk_states import WAYS, History, Missed
from forked import child, two_tower
from judge import PATIENCE, damaged_run, ended_badly, left_over
from kills import SLOW, VICTIMS, Victim, patience
from recorder import loaded, operations, recording
from scene import Scene
from tally import Tally

#: The verb is run again once in so many cases, because this takes most of the time.
_AGAIN, _AGAIN_SLOW = 8, 24
_WHEEL = "two_tower_toy_data"


@dataclass(frozen=True)
class Scenario:
    """A verb that is stopped by a power loss.

    Attributes:
        name: name of the scenario.
        victim: the verb and its results; the second one is recorded.
        has_older: whether the first result exists at the power loss; otherwise, not even the folder
            of the run does.
        exchange: whether the file system can exchange two paths.
        syncs: False for the control.
    """

    name: str
    victim: Victim
    has_older: bool = True
    exchange: bool = True
    syncs: bool = True


def run(n: int, seed: int, folder: Path, scene: Scene) -> Tally:
    """Check `n` states of the disk after a power loss, of all scenarios."""
    tally, control = Tally("power loss"), Tally("control", is_control=True)
    scenarios = _scenarios(n)
    for number, scenario in enumerate(scenarios):
        share = n // len(scenarios) + (number < n % len(scenarios))
        own = scene.branch(folder / scenario.name, *scenario.victim.stages)
        _lose_power(scenario, share, random.Random(seed + number), own, tally)
    scenario = Scenario("etl without syncs", VICTIMS[0], syncs=False)
    own = scene.branch(folder / scenario.name)
    _lose_power(scenario, max(10, n // 20), random.Random(seed), own, control)
    found = f"{len(control.losses)} losses of {control.tried} without syncs"
    tally.count("control", [] if control.losses else ["without syncs nothing is lost"], found)
    return tally.finished()


def _scenarios(n: int) -> list[Scenario]:
    etl, recommend = VICTIMS[:2]
    few = [
        Scenario("etl", etl),
        Scenario("recommend without exchange", recommend, exchange=False),
    ]
    if n < 40:
        return few
    every = [Scenario(victim.verb, victim) for victim in (*VICTIMS, *SLOW)]
    without = [
        Scenario(f"{victim.verb} without exchange", victim, exchange=False) for victim in VICTIMS
    ]
    first = Scenario("the first etl of a run", etl, has_older=False)
    return [*every, *without, first, Scenario("fetch", FETCH, has_older=False)]


def _lose_power(scenario: Scenario, n: int, rng: random.Random, scene: Scene, tally: Tally) -> None:
    """Record a verb, build states of the disk, and check them."""
    victim, known = scenario.victim, []
    words = scene.words(victim.verb, *victim.turns[1])
    if victim is FETCH:
        known = [_downloadable(scene)]
    else:
        for turn in (1, 0):
            if faults := ended_badly(
                scene.call(victim.verb, *victim.turns[turn], seconds=patience(victim)), 0
            ):
                tally.count(f"{scenario.name} before any power loss", faults)
                return
            known = [victim.held(scene.run), *known]
    if not scenario.has_older:
        shutil.rmtree(scene.run)
        known = ["", known[-1]]
    shutil.rmtree(scene.folder / "tmp", ignore_errors=True)
    (scene.folder / "tmp").mkdir()
    history = History(scene.folder)
    log = scene.folder.with_name(f"{scene.folder.name}.log")
    ended = two_tower(
        words, folder=scene.folder, seconds=patience(victim), before=_recorded(scenario, scene, log)
    )
    try:
        for operation in operations(log):
            history.add(operation)
        history.check()
    except Missed as error:
        tally.count(f"{scenario.name} while it is recorded", [str(error)])
        return
    if faults := ended_badly(ended, 0):
        tally.count(f"{scenario.name} while it is recorded", faults)
        return
    again = _AGAIN_SLOW if victim in SLOW else _AGAIN
    for number, (moment, way) in enumerate(_drawn(history, n, rng)):
        state = Scene(scene.folder.parent / "states" / scenario.name / str(number))
        disk_states.write(history.state(moment, way, rng), state.folder)
        at_end = moment == len(history.moments) - 1
        faults = judged(victim, state, known[1:] if at_end else known)
        if number % again == 1 and not faults:
            faults = goes_on(victim, state, known[1])
        case = f"{scenario.name}, power lost after {history.moments[moment]}, {way} beside it"
        tally.count(case, faults, scenario.name)
        if not faults:
            shutil.rmtree(state.folder)


def _recorded(scenario: Scenario, scene: Scene, log: Path) -> Callable[[], None]:
    library = loaded()
    assert library, "the campaign begins with it"
    begin = recording(library, scene.folder, log, syncs=scenario.syncs)

    def before() -> None:
        from models.core import atomic

        if not scenario.exchange:
            atomic.exchange = lambda first, second: False
        begin()

    return before


def _drawn(history: History, n: int, rng: random.Random) -> Iterator[tuple[int, str]]:
    """Yield moments and ways: first the end, then changes of folders and others alternately."""
    last = len(history.moments) - 1
    steps = [m for m, name in enumerate(history.moments) if not name.startswith("write ")]
    yield last, "nothing"
    for number in range(1, n):
        yield rng.choice(steps) if number % 2 else rng.randint(0, last), WAYS[number % len(WAYS)]


def judged(victim: Victim, scene: Scene, known: list[str]) -> list[str]:
    """Return the losses that a reader of the package finds."""

    def read() -> None:
        from models.core import atomic
        from workflows.ground.errors import TwoTowerError
        from workflows.stages.dependencies import INPUTS
        from workflows.stages.store import Store

        store = Store(scene.run)
        try:
            if victim.verb in INPUTS:
                store.read(victim.verb, store.recipe(victim.verb))
            elif victim.verb == "load":
                atomic.recover(scene.run / "opensearch")
        except TwoTowerError as error:
            print(error, file=sys.stderr)
            raise SystemExit(2) from None

    ended = child(read, folder=scene.folder, seconds=PATIENCE)
    if ended.code not in ((0, 2) if "" in known else (0,)):
        return [f"cannot be read: {ended.err.strip().splitlines()[-1][:300]}"]
    faults = damaged_run(scene.run) if scene.run.is_dir() else []
    if victim.held(scene.run) not in known:
        faults.append("neither the old result nor the new one is there")
    return faults


def goes_on(victim: Victim, scene: Scene, known: str) -> list[str]:
    """Return the losses of the next run of the verb."""
    shutil.rmtree(scene.folder / "tmp")  # a system removes it at its start
    after = scene.call(victim.verb, *victim.turns[1], *victim.resume, seconds=patience(victim))
    faults = ended_badly(after, 0) + left_over(scene.folder)
    if victim.held(scene.run) != known:
        faults.append("another result")
    return [f"next run: {fault}" for fault in faults]


# ── fetch ───────────────────────────────────────────────────────────────────────────────

_MEMBERS = ("log.csv", "people.csv", "films.csv")


def _downloaded(run: Path) -> str:
    """Return "whole" if all raw files equal those of the wheel; "" if some are missing."""
    raw, wheel = run.parent / "raw", run.parent / "index" / f"{_WHEEL}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        there = [name for name in _MEMBERS if (raw / name).is_file()]
        if any((raw / name).read_bytes() != archive.read(name) for name in there):
            return "damaged"
    return "whole" if len(there) == len(_MEMBERS) else ""


FETCH = Victim("fetch", (), ((), ()), _downloaded)


def _downloadable(scene: Scene) -> str:
    """Move the raw files into a wheel, which pip installs; return their state after fetch."""
    index = scene.folder / "index"
    index.mkdir()
    path = index / f"{_WHEEL}-1.0-py3-none-any.whl"
    info = f"{_WHEEL}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        for name in _MEMBERS:
            wheel.write(scene.recipe.parent / name, name)
            (scene.recipe.parent / name).unlink()
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {_WHEEL}\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    members = "".join(f"    {name}: {name}\n" for name in _MEMBERS)
    with scene.recipe.open("a") as recipe:
        recipe.write(f"fetch:\n  package: {_WHEEL}==1.0\n  sha256: {digest}\n  members:\n{members}")
    os.environ |= {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(index),
        "PIP_CONFIG_FILE": "/dev/null",
    }
    return "whole"
