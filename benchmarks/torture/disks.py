"""Full disks: a verb ends with one paragraph, keeps the old result, and succeeds with more room.

A limit on the size of files (ulimit -f) needs no privileges. A small tmpfs is more realistic; it is
used if the process may mount one.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

from forked import file_limit
from judge import damaged_run, ended_badly, left_over
from kills import Victim, patience, shares
from scene import Scene
from tally import Tally


def run(n: int, seed: int, folder: Path, scene: Scene) -> Tally:
    """Fill the disk `n` times; every second time it is a tmpfs, if one can be mounted."""
    rng, tally = random.Random(seed), Tally("full disks")
    can_mount = _can_mount(folder)
    for victim, share in shares(n):
        tmpfs = share // 2 if can_mount else 0
        own = scene.branch(folder / victim.verb, *victim.stages)
        _limited(victim, share - tmpfs, rng, own, tally)
        if tmpfs:
            with _tmpfs(folder / f"{victim.verb}-tmpfs") as place:
                _crowded(victim, tmpfs, rng, scene.branch(place / "scene", *victim.stages), tally)
    return tally.finished()


def _can_mount(folder: Path) -> bool:
    with contextlib.suppress(OSError, subprocess.CalledProcessError), _tmpfs(folder / "mount"):
        return True
    return False


@contextlib.contextmanager
def _tmpfs(folder: Path) -> Iterator[Path]:
    folder.mkdir(parents=True)
    words = ["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(folder)]
    subprocess.run(words, check=True, capture_output=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False, capture_output=True)


def _begin(victim: Victim, scene: Scene, tally: Tally) -> bool:
    """Write the old result."""
    ended = scene.call(victim.verb, *victim.turns[0], seconds=patience(victim))
    faults = ended_badly(ended, 0)
    if faults:
        tally.count(f"{victim.verb} before any full disk", faults)
    return not faults


def _limited(victim: Victim, n: int, rng: random.Random, scene: Scene, tally: Tally) -> None:
    if not _begin(victim, scene, tally):
        return
    largest = max(p.stat().st_size for p in scene.run.rglob("*") if p.is_file())
    for number in range(n):
        limit = int(largest ** rng.random())
        case = f"{victim.verb} with files of {limit:,} bytes at most"
        _try(victim, number, case, limit, scene, tally)


def _crowded(victim: Victim, n: int, rng: random.Random, scene: Scene, tally: Tally) -> None:
    if not _begin(victim, scene, tally):
        return
    for number in range(n):
        room = int(1_000_000 ** rng.random())
        filler = scene.folder.parent / "filler"
        with filler.open("wb") as file:
            free = _free(scene.folder)
            file.write(bytes(max(0, free - room)))
        case = f"{victim.verb} with {_free(scene.folder):,} bytes of room"
        _try(victim, number, case, None, scene, tally, filler)


def _free(folder: Path) -> int:
    facts = os.statvfs(folder)
    return facts.f_bavail * facts.f_bsize


def _try(
    victim: Victim,
    number: int,
    case: str,
    limit: int | None,
    scene: Scene,
    tally: Tally,
    filler: Path | None = None,
) -> None:
    """Call a verb without room, then with room."""
    words = victim.turns[1 - number % 2]
    old = victim.held(scene.run)
    before = None if limit is None else file_limit(limit)
    seconds = patience(victim)
    ended = scene.call(victim.verb, *words, before=before, seconds=seconds)
    faults = ended_badly(ended, 0, 2) + damaged_run(scene.run)
    # from a checkpoint `train --resume` goes on
    faults += left_over(scene.folder, *([".train.checkpoint"] if ended.code else []))
    if ended.code and victim.held(scene.run) != old:
        faults.append("the old result is gone")
    if ended.code == 2 and not _names_cause(ended.err):
        faults.append(f"the cause is not named: {ended.err.strip()[-300:]}")
    if filler is not None:
        filler.unlink()
    after = scene.call(victim.verb, *words, seconds=seconds)
    faults += [f"with room: {fault}" for fault in ended_badly(after, 0)]
    tally.count(case, faults, "done" if ended.code == 0 else "refused")


def _names_cause(text: str) -> bool:
    return any(words in text for words in ("no space", "No space", "larger than", "too large"))
