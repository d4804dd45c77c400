"""Torture: kills, full disks, power losses, damaged files, hostile runs. Nothing may be lost.

    python benchmarks/torture/run.py [--small] [--only kills power ...] [--seed 1]

It prints a table, and writes JSON with facts of the machine. A loss is a traceback, an exit code
other than 0, 2 or 3, a process that does not end within 30 s (train, tune and export: 300 s), a
signed result that cannot be read, an old result that is gone, a row that is dropped without a
message, a changed file outside of the run, or an incomplete file that is left. The exit code is 1
if there is a loss.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "benchmarks")]
os.environ["PYTHONPATH"] = str(ROOT)
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import disks
import ext4
import faiss_files
import forked
import hostile
import http_requests
import killed_ranks
import kills
import power
import raw_files
import recipe_files
import recorder
from bench import machine
from scene import Scene, made
from tally import Tally


@dataclass(frozen=True)
class Campaign:
    """One kind of torture.

    Attributes:
        run: runs it; its arguments are the number of cases, a seed, an empty folder and the scene.
        full: number of cases of `make torture`.
        small: number of cases in the tests; 0 if another test runs the campaign.
    """

    run: Callable[[int, int, Path, Scene], Tally]
    full: int
    small: int


CAMPAIGNS = {
    "kills": Campaign(kills.run, 200, 4),
    "ranks": Campaign(killed_ranks.run, 10, 0),
    "power": Campaign(power.run, 400, 12),
    "ext4": Campaign(ext4.run, 60, 0),
    "recipes": Campaign(recipe_files.run, 500, 9),
    "raw": Campaign(raw_files.run, 300, 9),
    "disks": Campaign(disks.run, 150, 6),
    "faiss": Campaign(faiss_files.run, 60, 2),
    "hostile": Campaign(hostile.run, 1_000, 5),
    "http": Campaign(http_requests.run, http_requests.FULL, 0),
}


def main() -> None:
    """Run the campaigns, print the table, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--small", action="store_true", help="the sizes of the tests")
    parser.add_argument("--cases", type=int, help="number of cases of each campaign")
    parser.add_argument("--only", nargs="+", default=list(CAMPAIGNS), choices=list(CAMPAIGNS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scene", type=Path, help="a folder that has, or gets, the run to torture")
    parser.add_argument("--json", type=Path, help="default: benchmarks/results/torture.json")
    options = parser.parse_args()
    if "power" in options.only and not recorder.loaded():
        print("power: left out, as it needs gcc", file=sys.stderr)
        options.only.remove("power")
    forked.preload()
    with tempfile.TemporaryDirectory(prefix="torture-") as place:
        scene = made(options.scene or Path(place) / "scene")
        tallies = []
        for name in options.only:
            campaign = CAMPAIGNS[name]
            size = options.cases or (campaign.small if options.small else campaign.full)
            if not size:
                continue
            print(f"{name}: {size} cases", file=sys.stderr, flush=True)
            folder = Path(place) / name
            folder.mkdir()
            tallies.append(campaign.run(size, options.seed, folder, scene))
    _show(tallies)
    to = options.json or ROOT / "benchmarks" / "results" / "torture.json"
    _write(tallies, options.seed, to)
    sys.exit(any(tally.losses for tally in tallies))


def _show(tallies: list[Tally]) -> None:
    print("| campaign | tried | survived | lost | seconds | seen |")
    print("|---|---:|---:|---:|---:|---|")
    for tally in tallies:
        seen = ", ".join(f"{what} {count}" for what, count in sorted(tally.seen.items()))
        cells = (tally.campaign, tally.tried, tally.survived, tally.tried - tally.survived)
        print("| " + " | ".join(map(str, (*cells, tally.seconds, seen))) + " |")
    for tally in tallies:
        for loss in tally.losses:
            print(f"lost: {tally.campaign}: {loss}")


def _write(tallies: list[Tally], seed: int, to: Path) -> None:
    facts = {**machine(), "kernel": platform.release()}
    told = {"machine": facts, "seed": seed, "campaigns": list(map(dataclasses.asdict, tallies))}
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
