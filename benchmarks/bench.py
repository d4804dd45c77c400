"""Parts that all benchmarks share: alternating runs of peers, medians, facts of the machine."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
DATA = ROOT / "runs" / "bench"

#: Name of an environment → its Python. `make bench` makes the environments from their lock files.
PYTHON = {
    "ours": ROOT / ".venv" / "bin" / "python",
    "polars": ROOT / ".venv-bench-polars" / "bin" / "python",
    "rectools": ROOT / ".venv-bench-rectools" / "bin" / "python",
    "tfrs": ROOT / ".venv-bench-tfrs" / "bin" / "python",
    "torch": ROOT / ".venv-bench-torch" / "bin" / "python",
}


@dataclass(frozen=True)
class Peer:
    """A program that takes part in a comparison.

    Attributes:
        name: name in the table.
        environment: key of `PYTHON`.
        script: name of the script in benchmarks/peers/.
        option: value of its option `--option`.
    """

    name: str
    environment: str
    script: str
    option: str = ""

    def run(self, *arguments: object, timeout: float = 1200) -> dict[str, Any]:
        """Run the script in its own process and return the JSON object of its last line.

        If it fails or runs out of memory, return {"failed": reason}.
        """
        script = Path(__file__).parent / "peers" / self.script
        words = [PYTHON[self.environment], script, *arguments, "--option", self.option]
        done = subprocess.run(
            [str(word) for word in words],
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "2"},
            check=False,
        )
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:] or [f"exit {done.returncode}"]
            return {"failed": last[0][:200]}
        return json.loads(done.stdout.strip().splitlines()[-1])


def run_alternately(
    peers: Sequence[Peer], repetitions: int, *arguments: object
) -> dict[str, list[Any]]:
    """Run all peers alternately, so that a slow minute of the machine affects all of them."""
    results: dict[str, list[Any]] = {peer.name: [] for peer in peers}
    for repetition in range(repetitions):
        for peer in peers:
            results[peer.name].append(peer.run(*arguments))
            print(repetition, peer.name, results[peer.name][-1], flush=True)
    return results


def median(runs: Sequence[Mapping[str, Any]], key: str) -> float | None:
    """Return the median of a figure over the runs that have it."""
    values = [run[key] for run in runs if key in run]
    return statistics.median(values) if values else None


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Return the exponent with which a figure grows, fitted to logarithms by least squares."""
    x, y = ([math.log(number) for number in numbers] for numbers in (sizes, values))
    mean_x, mean_y = statistics.mean(x), statistics.mean(y)
    covariance = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return covariance / sum((a - mean_x) ** 2 for a in x)


def machine() -> dict[str, str]:
    """Return facts of the machine that the figures depend on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((n.partition(":")[2].strip() for n in lines if n.startswith("model name")), "?")
    kib = next(n for n in Path("/proc/meminfo").read_text().splitlines() if "MemTotal" in n)
    return {
        "processor": model,
        "cores": str(os.cpu_count()),
        "memory": f"{int(kib.split()[1]) / 2**20:.0f} GiB",
        "load before": f"{os.getloadavg()[0]:.1f}",
        "python": platform.python_version(),
    }


def write(name: str, facts: Mapping[str, str], results: Mapping[str, object]) -> None:
    """Add results to a JSON file in benchmarks/results/, which also has those of earlier runs."""
    file = RESULTS / f"{name}.json"
    RESULTS.mkdir(exist_ok=True)
    earlier = json.loads(file.read_text()) if file.is_file() else {}
    now = {key: {"machine": facts, "result": result} for key, result in results.items()}
    file.write_text(json.dumps({**earlier, **now}, indent=1) + "\n")


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
