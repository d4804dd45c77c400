"""Power loss on a real file system: what ext4 has given to its device at some moment, and no more.

An image with ext4 is mounted, and a verb that writes there is killed. Then the file of the image is
copied as it is. What the kernel has only in its memory is not in the copy, as after a power loss:
the copy is mounted, ext4 replays its journal, and a reader must find the old result or the new one
there, whole; the new one if the verb had ended. This needs root and loop devices.

The control runs a verb to its end without syncs, and must lose the result.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from judge import ended_badly
from kills import VICTIMS, Victim
from power import goes_on, judged
from scene import Scene
from tally import Tally

_SIZE = 64 << 20
#: The verb is run again after every so many cases.
_AGAIN = 5


def run(n: int, seed: int, folder: Path, scene: Scene) -> Tally:
    """Lose power `n` times; none where no image can be mounted."""
    tally, rng = Tally("power loss of ext4"), random.Random(seed)
    image = folder / "image"
    try:
        with image.open("wb") as file:
            file.truncate(_SIZE)
        subprocess.run(["mkfs.ext4", "-q", image], check=True, capture_output=True)
        with _mounted(image, folder / "disk"):
            pass
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"ext4: left out, as no image can be mounted ({error})", file=sys.stderr)
        return tally
    for number, victim in enumerate(VICTIMS):
        share = n // len(VICTIMS) + (number < n % len(VICTIMS))
        _lose_power(victim, share, rng, image, folder / victim.verb, scene, tally)
    control = Tally("control", is_control=True)
    _lose_power(VICTIMS[0], 1, rng, image, folder / "control", scene, control, syncs=False)
    tally.count("control", [] if control.losses else ["without syncs nothing is lost"])
    return tally.finished()


@contextlib.contextmanager
def _mounted(image: Path, disk: Path) -> Iterator[Path]:
    disk.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-o", "loop", image, disk], check=True, capture_output=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", disk], check=False, capture_output=True)


def _lose_power(
    victim: Victim,
    n: int,
    rng: random.Random,
    image: Path,
    folder: Path,
    scene: Scene,
    tally: Tally,
    *,
    syncs: bool = True,
) -> None:
    """Kill a verb, copy the device, and judge what the copy holds."""
    folder.mkdir()
    base, known, took = folder / "base", [], 0.0
    shutil.copyfile(image, base)
    with _mounted(base, folder / "base-disk") as disk:
        own = scene.branch(disk / "scene", *victim.stages)
        for turn in (1, 0):
            ended = own.call(victim.verb, *victim.turns[turn])
            if faults := ended_badly(ended, 0):
                tally.count(f"{victim.verb} before any power loss", faults)
                return
            known, took = [victim.held(own.run), *known], max(took, ended.seconds)
    subprocess.run(["sync", "--file-system", folder], check=True)
    for number in range(n):
        work, left = folder / f"{number}.work", folder / f"{number}.left"
        shutil.copyfile(base, work)
        moment = rng.uniform(0.1, 1) * took if number else 300.0  # the first one ends
        with _mounted(work, folder / f"{number}-work-disk") as disk:
            own = Scene(disk / "scene")
            words = (victim.verb, *victim.turns[1])
            before = None if syncs else _without_syncs
            killed = own.call(*words, kill_after=moment, before=before)
            shutil.copyfile(work, left)
        with _mounted(left, folder / f"{number}-disk") as disk:
            own = Scene(disk / "scene")
            faults = [] if killed.killed else ended_badly(killed, 0)
            faults += judged(victim, own, known if killed.killed else known[1:])
            seen = "new result" if victim.held(own.run) == known[1] else "old result"
            if number % _AGAIN == 1 and not faults:
                faults = goes_on(victim, own, known[1])
        tally.count(f"{victim.verb}, power lost after {moment:.2f} s", faults, seen)
        work.unlink()
        left.unlink()


def _without_syncs() -> None:
    from models.core import atomic

    atomic.sync_tree = atomic.sync_folder = lambda path: None
