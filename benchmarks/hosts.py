"""Two hosts on one machine: etl by a Dask cluster, and a training by two ranks, over a network.

    sudo python benchmarks/hosts.py [--folder runs/bench/hosts] [--size tiny]

Each host is a network namespace (`ip netns`) of its own, and a pair of virtual Ethernet devices
connects the two, so that no process reaches the other host but by its address. Both hosts see the
same files. The sample of the recipe hm-joined goes through

- etl by threads, and by a Dask scheduler on the first host with a worker on each host;
- a training by one process, and by a rank on each host, which TF_CONFIG names.

The two results of etl must have the same bytes, and the two trainings the same losses, to 1e-5.
The processes need root, or CAP_SYS_ADMIN and CAP_NET_ADMIN.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench import DATA, ROOT, machine, table, write

#: Name of a host → its address.
HOSTS = {"two-tower-a": "10.79.0.1", "two-tower-b": "10.79.0.2"}
#: A model without dropout, for which the ranks draw numbers of their own.
SETTINGS = ("train.epochs=3", "model.dropout=0.0", "model.id_dropout=0.0", "loss.kind=in_batch")


def main() -> None:
    """Make the hosts, run everything twice, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=DATA / "hosts")
    parser.add_argument("--size", default="tiny")
    options = parser.parse_args()
    folder = options.folder.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    facts, results = machine(), {}
    words = ("--recipe", "hm-joined", "--to", folder / "raw", "--size", options.size)
    run("", verb("sample", *words))
    with two_hosts():
        results["etl by threads"] = timed([("", etl(folder, "threads"))])
        with dask_cluster(folder) as scheduler:
            first = next(iter(HOSTS))
            results["etl by Dask"] = timed([(first, etl(folder, "dask", "--dask", scheduler))])
        refuse_other_bytes(folder)
        shutil.copytree(folder / "threads", folder / "ranks")
        results["training by one process"] = timed([("", train(folder, "threads"))])
        results["training by two ranks"] = timed([(host, train(folder, "ranks")) for host in HOSTS])
    losses = [losses_of(folder / name) for name in ("threads", "ranks")]
    difference = max(abs(a - b) / abs(a) for a, b in zip(*losses, strict=True))
    results["largest difference of the losses"] = difference
    write("hosts", facts, results)
    print(table(["", ""], [[name, f"{value:.2g}"] for name, value in results.items()]))
    if difference > 1e-5:
        sys.exit("the losses differ")


@contextlib.contextmanager
def two_hosts() -> Iterator[None]:
    """Return a context with two network namespaces that a pair of devices connects."""
    a, b = HOSTS
    remove_hosts()
    try:
        for host in HOSTS:
            ip("netns", "add", host)
        ip("link", "add", "tt-a", "netns", a, "type", "veth", "peer", "tt-b", "netns", b)
        for device, (host, address) in zip(("tt-a", "tt-b"), HOSTS.items(), strict=True):
            for words in (
                ("addr", "add", f"{address}/24", "dev", device),
                ("link", "set", device, "up"),
                ("link", "set", "lo", "up"),
            ):
                ip("-n", host, *words)
        yield
    finally:
        remove_hosts()


def remove_hosts() -> None:
    """Remove the network namespaces, and with them their devices."""
    for host in HOSTS:
        subprocess.run(["ip", "netns", "del", host], capture_output=True, check=False)


def ip(*words: str) -> None:
    """Call the command `ip`."""
    subprocess.run(["ip", *words], check=True)


@contextlib.contextmanager
def dask_cluster(folder: Path) -> Iterator[str]:
    """Return a context with a Dask scheduler and two workers; its value is their address."""
    a, b = HOSTS
    address = f"tcp://{HOSTS[a]}:8786"
    scheduler = ("distributed.cli.dask_scheduler", "--host", HOSTS[a], "--port", "8786")
    worker = ("distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard")
    calls = [
        (a, (*scheduler, "--dashboard-address", f"{HOSTS[a]}:0")),
        *((h, (*worker, "--host", HOSTS[h], "--local-directory", str(folder))) for h in (a, b)),
    ]
    processes = []
    try:
        for host, words in calls:
            processes.append(start(host, [sys.executable, "-m", *words]))
        yield address
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            process.wait()


def verb(name: str, *words: object) -> list[str]:
    """Return the command line of a verb."""
    return [sys.executable, "-m", "workflows", name, *map(str, words)]


def etl(folder: Path, name: str, *words: str) -> list[str]:
    """Return the command line of etl for a run."""
    settings = ("--set", f"data={folder / 'raw'}")
    return verb("etl", "--recipe", "hm-joined", "--run", folder / name, *settings, *words)


def train(folder: Path, name: str) -> list[str]:
    """Return the command line of a training of a run."""
    words = [word for setting in SETTINGS for word in ("--set", setting)]
    return verb("train", "--run", folder / name, "--device", "cpu", *words)


def timed(calls: list[tuple[str, list[str]]]) -> float:
    """Run commands at the same time, several ones as ranks; return the seconds."""
    begin = time.perf_counter()
    addresses = [f"{address}:7300" for address in HOSTS.values()]
    processes = []
    for rank, (host, words) in enumerate(calls):
        config = {
            "cluster": {"worker": addresses},
            "task": {"type": "worker", "index": rank},
        }
        processes.append(start(host, words, json.dumps(config) if len(calls) > 1 else ""))
    codes = [process.wait() for process in processes]
    if any(codes):
        sys.exit(f"{calls[0][1]} ended with {codes}")
    return time.perf_counter() - begin


def start(host: str, words: list[str], tf_config: str = "") -> subprocess.Popen[bytes]:
    """Start a command on a host; on this machine itself if the name is empty."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CONFIG": tf_config}
    inside = ["ip", "netns", "exec", host] if host else []
    return subprocess.Popen([*inside, *words], env=environment, cwd=ROOT)


def run(host: str, words: list[str]) -> None:
    """Run a command on a host until its end."""
    if code := start(host, words).wait():
        sys.exit(f"{words} ended with {code}")


def refuse_other_bytes(folder: Path) -> None:
    """End with an error if the two results of etl differ in a file other than the manifest."""
    content = [
        {
            str(path.relative_to(folder / name)): path.read_bytes()
            for path in sorted((folder / name / "etl").rglob("*"))
            if path.is_file() and path.name not in ("manifest.json", "report.json")
        }
        for name in ("threads", "dask")
    ]
    if content[0] != content[1]:
        sys.exit("etl by Dask has other bytes than etl by threads")


def losses_of(run: Path) -> list[float]:
    """Return the training loss of each epoch of a run."""
    (file,) = (run / "train").glob("*history*.json")
    return [epoch["metrics"]["loss"] for epoch in json.loads(file.read_text())]


if __name__ == "__main__":
    main()
