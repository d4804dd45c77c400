"""FAISS files that were damaged and signed again: no crash, no memory beyond the file, no hang."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from judge import ended_badly
from scene import Scene
from strangers import mutate, resign
from tally import Tally

WAYS = ("flip", "cut", "grow", "zero", "random", "huge")
#: MiB that a verb may take beyond what it takes with a sound file.
ROOM = 1024


def run(n: int, seed: int, folder: Path, scene: Scene) -> Tally:
    """Damage a graph and an inverted file, and ask for lists."""
    dice, tally = random.Random(seed), Tally("FAISS files")
    for kind in ("hnsw", "ivf"):
        own = scene.branch(folder / kind, "etl", "train", "export")
        setting = ("--set", f"index.kind={kind}")
        made = own.call("index", *setting)
        sound = own.call("recommend", *setting)
        if faults := ended_badly(made, 0) + ended_badly(sound, 0):
            tally.count(f"{kind} before any damage", faults)
            continue
        file = own.run / "index" / "index.faiss"
        kept = folder / f"{kind}.faiss"
        shutil.copyfile(file, kept)
        for number in range(n // 2 + (n % 2 if kind == "hnsw" else 0)):
            way = WAYS[number % len(WAYS)]
            file.write_bytes(mutate(kept.read_bytes(), dice.randrange(1 << 20), way))
            resign(own.run / "index")
            ended = own.call("recommend", *setting)
            faults = ended_badly(ended, 0, 2)
            if ended.memory > sound.memory + ROOM:
                faults.append(f"{ended.memory} MiB of memory, {sound.memory} with a sound file")
            if ended.code == 2 and "index.faiss" not in ended.err:
                faults.append(f"the file is not named: {ended.err[-200:]}")
            tally.count(f"{kind} {way} {number}", faults, "read" if not ended.code else "refused")
    return tally.finished()
