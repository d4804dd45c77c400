"""Measures the speed of a peer: rows per second after a warm-up, until the time is over."""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path


class Pace:
    """Rows per second between the end of the warm-up and the end of the time.

    Args:
        warmup: number of first steps that do not count (tracing, first use of memory).
        seconds: time of the steps that count.
    """

    def __init__(self, warmup: int, seconds: float) -> None:
        self.warmup = warmup
        self.seconds = seconds
        self.steps = 0
        self.rows = 0
        self.start = self.last = 0.0
        self.before = peak()  # so make a Pace when weights and data exist

    def step(self, rows: int) -> bool:
        """Count a step that has ended; return whether it was the last."""
        now = time.perf_counter()
        self.steps += 1
        if self.steps <= self.warmup:
            self.start = now
            return False
        self.rows += rows
        self.last = now
        return now - self.start >= self.seconds

    def print_result(self, **more: object) -> None:
        """Print the result as JSON, the last line of the output."""
        elapsed = self.last - self.start
        pace = {"rows_per_second": round(self.rows / elapsed), "steps": self.steps - self.warmup}
        print(json.dumps({**pace, "before_mib": self.before, "peak_mib": peak(), **more}))


def peak() -> int:
    """Return the peak memory of this process, MiB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def arguments(description: str | None) -> argparse.Namespace:
    """Return the arguments, which are the same for all peers."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, required=True, help="folder of workload.make")
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--warmup", type=int, default=10)
    parser.add_argument("--option", default="", help="a variant of the peer")
    return parser.parse_args()
