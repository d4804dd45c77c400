"""Requests per second over HTTP: `two-tower serve` and the BruteForce layer of TFRS.

    python benchmarks/serving.py --run runs/movielens-100k [--minutes 10] [--connections 1 8]

Both have the same embeddings, FastAPI and uvicorn, and one process. Ours also leaves out seen
items, adds titles, and updates metrics. First both run alternately under short loads. Then ours
runs under load for `--minutes` with five reloads (SIGHUP), and its memory is measured. Each
connection sends its next request when it has the answer to the last (a closed loop).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import PYTHON, ROOT, machine, table, write

sys.path.insert(0, str(ROOT))

import numpy as np

from workflows.stages.recommender import Recommender
from workflows.stages.store import Store

PEERS = Path(__file__).parent / "peers"
RELOADS = 5


def main() -> None:
    """Run the short loads, then the long load."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=ROOT / "runs" / "movielens-100k")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seconds", type=float, default=20, help="seconds of a short load")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8])
    options = parser.parse_args()
    facts, results = machine(), {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        users = prepare(options.run, folder)
        for connections in options.connections:
            turns: dict[str, list[dict[str, Any]]] = {"ours": [], "tfrs": []}
            for _ in range(options.turns):
                for peer, runs in turns.items():
                    with serving(peer, options.run, folder) as (_, address):
                        load(address, users, connections, 2)  # warm
                        runs.append(load(address, users, connections, options.seconds))
                    print(connections, peer, runs[-1], flush=True)
            results[f"{connections} connections"] = turns
        if options.minutes:
            results["long"] = long(options.run, folder, users, options.minutes)
    write("serving", facts, results)
    print(summary(results))


def prepare(run: Path, folder: Path) -> Path:
    """Write the files that TFRS serves, and the file of user ids; return the latter."""
    store = Store(run)
    recommender = Recommender.open(store, store.recipe("export"))
    export, catalogue = recommender.export, recommender.catalogue
    ids = catalogue.ids.to_numpy(zero_copy_only=False).astype(str)
    np.savez(
        folder / "tfrs.npz",
        user_ids=export.user_ids.to_numpy(zero_copy_only=False).astype(str),
        users=export.user_vectors,
        item_ids=ids,
        items=catalogue.vectors,
    )
    users = folder / "users.json"
    everybody = np.random.default_rng(1).permutation(export.user_ids.to_pylist())
    users.write_text(json.dumps([*everybody[:5000].tolist(), "nobody"]))
    return users


@contextlib.contextmanager
def serving(peer: str, run: Path, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run a server within the context; yield its process and address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = run if peer == "ours" else folder / "tfrs.npz"
    words = [PYTHON[peer], PEERS / f"{peer}_serve.py", data, port]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
    with (folder / f"{peer}.log").open("ab") as log:
        server = subprocess.Popen(
            [str(word) for word in words], stdout=log, stderr=log, env=environment
        )
    address = f"http://127.0.0.1:{port}"
    try:
        while not is_answering(f"{address}/recommend/nobody"):
            assert server.poll() is None, (folder / f"{peer}.log").read_text()[-2000:]
            time.sleep(0.1)
        yield server, address
    finally:
        server.terminate()
        server.wait(60)


def is_answering(address: str) -> bool:
    """Return whether a server answers at an address."""
    try:
        urllib.request.urlopen(address, timeout=60).close()
    except urllib.error.URLError:
        return False
    return True


def start(address: str, users: Path, connections: int, seconds: float) -> subprocess.Popen[bytes]:
    """Start a load in its own process."""
    words: list[object] = [PYTHON["ours"], PEERS / "load.py", address, "--users", users]
    words += ["--connections", connections, "--seconds", seconds]
    return subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE)


def load(address: str, users: Path, connections: int, seconds: float) -> dict[str, Any]:
    """Put load on a server for some seconds and return the figures."""
    figures: dict[str, Any] = json.loads(
        start(address, users, connections, seconds).communicate()[0]
    )
    return figures


def long(run: Path, folder: Path, users: Path, minutes: float) -> dict[str, Any]:
    """Put load on ours for some minutes, with five reloads, and measure its memory."""
    with serving("ours", run, folder) as (server, address):
        loading = start(address, users, 8, 60 * minutes)
        began, held, reloads = time.monotonic(), [], 0
        while loading.poll() is None:
            passed = time.monotonic() - began
            held.append((passed / 60, memory(server.pid)))
            if passed > (reloads + 1) * 60 * minutes / (RELOADS + 2) and reloads < RELOADS:
                server.send_signal(signal.SIGHUP)
                reloads += 1
            time.sleep(1)
        figures: dict[str, Any] = json.loads(loading.communicate()[0])
        metrics = urllib.request.urlopen(f"{address}/metrics").read().decode()
    done = next(n for n in metrics.splitlines() if 'reloads_total{result="done"}' in n)
    # a leak would show after the last reload
    after = np.array(held[int(len(held) * (RELOADS + 1) / (RELOADS + 2)) :])
    return {
        **figures,
        "minutes": minutes,
        "reloads": float(done.split()[-1]),
        "memory": {
            "first": round(held[0][1]),
            "last": round(held[-1][1]),
            "most": round(max(m for _, m in held)),
            "after the last reload, MiB a minute": round(float(np.polyfit(*after.T, 1)[0]), 3),
            "every tenth part": [round(m) for _, m in held[:: max(1, len(held) // 10)]],
        },
    }


def memory(process: int) -> float:
    """Return the resident memory of a process, MiB."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def summary(results: dict[str, Any]) -> str:
    """Return the medians of the short loads as a table, and the long load as a line."""
    rows = [
        [name, peer, *(statistics.median(run[key] for run in runs) for key in _SHOWN)]
        for name, turns in results.items()
        if name != "long"
        for peer, runs in turns.items()
    ]
    head = ["load", "server", "p50, ms", "p99, ms", "requests/s", "errors"]
    return f"{table(head, rows)}\n\n{json.dumps(results.get('long'))}"


_SHOWN = ("p50", "p99", "per_second", "errors")

if __name__ == "__main__":
    main()
