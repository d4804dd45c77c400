"""How a peer is timed: steps are counted after a warm-up until the time is up."""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path


class Pace:
    """Rows per second between the end of the warm-up and the end of the time.

    Args:
        warmup: steps that do not count (tracing, first touch of memory).
        seconds: that count.
    """

    def __init__(self, warmup: int, seconds: float) -> None:
        self.warmup = warmup
        self.seconds = seconds
        self.steps = 0
        self.rows = 0
        self.start = self.last = 0.0
        self.before = peak()  # make it when weights and data are there

    def step(self, rows: int) -> bool:
        """Note a step that has just ended; say whether it was the last."""
        now = time.perf_counter()
        self.steps += 1
        if self.steps <= self.warmup:
            self.start = now
            return False
        self.rows += rows
        self.last = now
        return now - self.start >= self.seconds

    def say(self, **more: object) -> None:
        """Print the result as the last line, JSON."""
        elapsed = self.last - self.start
        pace = {"rows_per_second": round(self.rows / elapsed), "steps": self.steps - self.warmup}
        print(json.dumps({**pace, "before_mib": self.before, "peak_mib": peak(), **more}))


def peak() -> int:
    """Return the most memory that this process has held so far, MiB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def arguments(description: str | None) -> argparse.Namespace:
    """Read what every peer is told."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, required=True, help="folder of workload.make")
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--warmup", type=int, default=10)
    parser.add_argument("--option", default="", help="a variant of the peer")
    return parser.parse_args()
