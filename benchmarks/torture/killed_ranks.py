"""kill -9 of a rank of a training at random moments: the others end, and `--resume` goes on."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from judge import damaged_run, left_over
from scene import Scene
from tally import Tally

#: Seconds within which the others must end, and seconds in which a training must be finished.
ENDING, FINISHING = 30.0, 600.0
_EPOCHS = ("--set", "train.epochs=30", "--set", "train.patience=30")


def run(n: int, seed: int, folder: Path, scene: Scene) -> Tally:
    """Kill rank 0 and rank 1 alternately, n times in all."""
    rng, tally = random.Random(seed), Tally("killed ranks")
    scene = scene.branch(folder / "ranks", "etl")
    begin = time.monotonic()
    with _start(scene) as whole:
        _, said = whole.communicate(timeout=FINISHING)
    took = time.monotonic() - begin
    if whole.returncode:
        tally.count("before any kill", [f"exit code {whole.returncode}: {said.decode()[-300:]}"])
        return tally.finished()
    for number in range(n):
        _kill(number % 2, rng.uniform(0.1, 1.0) * took, scene, tally)
    return tally.finished()


def _kill(rank: int, moment: float, scene: Scene, tally: Tally) -> None:
    """Kill a rank some seconds after the start, then resume the training and let it end."""
    with _start(scene) as process:
        time.sleep(moment)
        ranks = _children(process.pid)
        seen = "ended before"
        if len(ranks) > rank:
            os.kill(ranks[rank], signal.SIGKILL)
            seen = "killed"
        begin = time.monotonic()
        try:
            _, said = process.communicate(timeout=ENDING if seen == "killed" else FINISHING)
        except subprocess.TimeoutExpired:
            process.kill()
            tally.count(f"rank {rank} at {moment:.1f} s", [f"no end within {ENDING:.0f} s"])
            return
    seconds, text = time.monotonic() - begin, said.decode()
    faults = damaged_run(scene.run)
    faults += [f"process {pid} still runs" for pid in ranks if _runs(pid)]
    if "Traceback" in text:
        faults.append(f"a traceback: {text[-300:]}")
    if seen == "killed" and process.returncode not in (0, 2):
        faults.append(f"exit code {process.returncode}")
    if process.returncode == 2 and text.count("two-tower: ") != 1:
        faults.append(f"not one paragraph: {text[-600:]}")
    with _start(scene, "--resume") as after:
        _, said = after.communicate(timeout=FINISHING)
    if after.returncode:
        faults.append(f"--resume: exit code {after.returncode}: {said.decode()[-300:]}")
    faults += left_over(scene.folder)
    resumed = "resumed" if "resuming after epoch" in said.decode() else "from the beginning"
    tally.count(f"rank {rank} at {moment:.1f} s, end after {seconds:.1f} s", faults, seen, resumed)


def _start(scene: Scene, *more: str) -> subprocess.Popen[bytes]:
    words = scene.words("train", *_EPOCHS, "--workers", "2", *more)
    return subprocess.Popen(
        [sys.executable, "-m", "workflows", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(_temporary(scene))},
    )


def _temporary(scene: Scene) -> Path:
    folder = scene.folder / "tmp"
    folder.mkdir(exist_ok=True)
    return folder


def _children(parent: int) -> list[int]:
    """Return the process ids of the ranks, in their order."""
    try:
        listed = Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="utf-8")
    except OSError:
        return []
    return [int(pid) for pid in listed.split()]


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
