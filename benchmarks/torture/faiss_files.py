"""Damaged FAISS files, signed again: reading them must not crash, hang, or take too much memory.

Half of them are in a run, where `recommend` reads them. The index of a small catalogue is not used
for a search, so the other half have more items and are searched directly.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from forked import Ended, child
from judge import PATIENCE, ended_badly
from scene import Scene
from tally import Tally
from tampering import mutate, resign

Kind = Literal["hnsw", "ivf"]
WAYS = ("flip", "cut", "grow", "zero", "random", "huge")
#: MiB that a verb may take in addition to those with an undamaged file.
ROOM = 1024
ITEMS = np.random.default_rng(3).normal(size=(5_000, 8)).astype(np.float32)


def run(n: int, seed: int, folder: Path, scene: Scene) -> Tally:
    """Damage graphs and inverted files, and search them."""
    rng, tally = random.Random(seed), Tally("FAISS files")
    kinds: tuple[Kind, ...] = ("hnsw", "ivf")
    for number, kind in enumerate(kinds):
        share = n // 2 + (n % 2 and number == 0)
        own = scene.branch(folder / kind, "etl", "train", "export")
        setting = ("--set", f"index.kind={kind}")
        made = own.call("index", *setting)
        ask = partial(own.call, "recommend", *setting)
        _damage(kind, own.run / "index" / "index.faiss", ask, made, (share + 1) // 2, rng, tally)
        if share < 2:
            continue
        path = folder / f"many-{kind}.faiss"
        made = child(partial(_write, path, kind), folder=folder, seconds=PATIENCE)
        ask = partial(child, partial(_search, path, kind), folder=folder, seconds=PATIENCE)
        _damage(f"{kind} of many", path, ask, made, share // 2, rng, tally)
    return tally.finished()


def _damage(
    what: str,
    path: Path,
    ask: Callable[[], Ended],
    made: Ended,
    n: int,
    rng: random.Random,
    tally: Tally,
) -> None:
    """Damage a file `n` times, and search it each time."""
    if not n:
        return
    sound = ask()
    if faults := ended_badly(made, 0) + ended_badly(sound, 0):
        tally.count(f"{what} before any damage", faults)
        return
    kept = path.read_bytes()
    for number in range(n):
        way = WAYS[number % len(WAYS)]
        path.write_bytes(mutate(kept, rng.randrange(1 << 20), way))
        if (path.parent / "manifest.json").is_file():
            resign(path.parent)
        ended = ask()
        faults = ended_badly(ended, 0, 2)
        if ended.memory > sound.memory + ROOM:
            faults.append(f"{ended.memory} MiB of memory, {sound.memory} with a sound file")
        if ended.code == 2 and path.name not in ended.err:
            faults.append(f"the file is not named: {ended.err[-200:]}")
        tally.count(f"{what} {way} {number}", faults, "read" if not ended.code else "refused")


def _write(path: Path, kind: Kind) -> None:
    from models.core.ann import Index

    Index.build(ITEMS, kind).write(path)


def _search(path: Path, kind: Kind) -> None:
    """Search a file; if it is refused, end with exit code 2, as the command line does."""
    from models.core.ann import Index

    try:
        index = Index.read(path, ITEMS, kind, effort=32, at=10)
    except ValueError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except RuntimeError as error:  # an error of FAISS
        print(error, path.name, file=sys.stderr)
        sys.exit(2)
    index.search(ITEMS[::10], 10)
