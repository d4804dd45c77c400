"""Malformed, large, abandoned, slow and very many requests: the campaigns of torture_http.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from scene import Scene
from tally import Tally

_SCRIPT = Path(__file__).parents[2] / "tests" / "torture_http.py"
#: Number of requests at full size; with fewer, the small size is run.
FULL = 5_000


def run(n: int, seed: int, folder: Path, scene: Scene) -> Tally:
    """Send requests to servers of the scene, which run in their own processes."""
    tally = Tally("HTTP")
    words = [sys.executable, str(_SCRIPT), "--run", str(scene.run), "--seed", str(seed)]
    words += [] if n >= FULL else ["--small"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=1800)
    for line in done.stdout.splitlines():
        told = json.loads(line)
        lost = [f"{told['campaign']}: {why}" for why in told["why"]]
        tally.tried += told["tried"]
        tally.survived += told["tried"] - told["lost"]
        tally.losses += lost
        tally.seen[told["campaign"]] = told["tried"]
    if done.returncode and not tally.losses:
        tally.losses.append(f"the campaign ended with {done.returncode}: {done.stderr[-500:]}")
    return tally.finished()
