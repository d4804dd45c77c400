"""`two-tower serve` as a process: signals, a stop that drops nothing, reloads under load."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from live import served
from test_serve import STAGES, current, other_export
from tiny_run import Run, Tiny

from workflows.serve.app import build
from workflows.serve.served import Served

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def run(tiny: Tiny, tmp_path: Path) -> Run:
    return tiny.exported.branch(tmp_path / "run", stages=STAGES)


class Server:
    """A server in a process.

    Args:
        run: that it serves.
        log: file of what it says.
        watch: seconds between looks for a newer export.
    """

    def __init__(self, run: Run, log: Path, *, watch: float = 0.0) -> None:
        self.log = log
        words = ["serve", "--recipe", str(run.world.recipe_file), "--run", str(run.store.root)]
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "workflows", *words, "--port", "0", "--watch", str(watch)],
                cwd=ROOT,
                stdout=file,
                stderr=file,
            )
        self.address = self.said("serving ").rsplit(" ", 1)[-1]

    def said(self, text: str) -> str:
        """Wait for a line of the log and return it."""
        while True:
            assert self.process.poll() is None, self.log.read_text()
            for line in self.log.read_text().splitlines():
                if line.startswith(text):
                    return line
            time.sleep(0.02)

    def memory(self) -> float:
        """Return what it holds, MiB."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(n.split()[1]) / 1024 for n in lines if n.startswith("VmRSS"))

    def figure(self, name: str) -> float:
        """Return one of its figures."""
        text = httpx.get(f"{self.address}/metrics").text
        return float(next(n.split()[-1] for n in text.splitlines() if n.startswith(name)))


@contextlib.contextmanager
def serving(run: Run, log: Path, **options: float) -> Iterator[Server]:
    server = Server(run, log, **options)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()


def test_it_obeys_signals(run, tmp_path):
    with serving(run, tmp_path / "log") as server:
        before = httpx.get(f"{server.address}/health").json()
        other_export(run)
        server.process.send_signal(signal.SIGHUP)
        server.said("now serving export ")
        after = httpx.get(f"{server.address}/health").json()
        assert after["export"] != before["export"]
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
        text = server.log.read_text()
        assert json.loads(next(n for n in text.splitlines() if n[0] == "{"))["route"] == "/health"
        assert "reloads" in text  # the verb's result
        assert "Traceback" not in text


def test_without_an_export_it_says_what_to_do(run, tmp_path):
    words = ["serve", "--recipe", str(run.world.recipe_file), "--run", str(tmp_path / "nothing")]
    done = subprocess.run(
        [sys.executable, "-m", "workflows", *words], cwd=ROOT, capture_output=True, check=False
    )
    assert done.returncode == 2
    assert b"Run `two-tower export` (or `make export`) first." in done.stderr


def test_five_reloads_under_load_lose_no_request(run, tmp_path):
    users = tmp_path / "users.json"
    users.write_text(json.dumps([*run.users, "nobody"]))
    with serving(run, tmp_path / "log", watch=0.1) as server:
        words = [server.address, "--users", str(users), "--connections", "4", "--seconds", "8"]
        load = subprocess.Popen(
            [sys.executable, str(ROOT / "benchmarks/peers/load.py"), *words],
            stdout=subprocess.PIPE,
        )
        held = []
        for number in range(1, 6):
            other_export(run)
            while server.figure('two_tower_reloads_total{result="done"}') < number:
                time.sleep(0.02)
            held.append(server.memory())
        figures = json.loads(load.communicate()[0])
        assert load.returncode == 0
        assert figures["errors"] == 0, figures
        assert figures["requests"] > 100
        # two in turn have answered, and the one before them if the load was quick to begin
        assert len(figures["exports"]) in (2, 3)
        assert sum(figures["exports"].values()) == figures["requests"]
        assert server.figure('two_tower_reloads_total{result="refused"}') == 0
        assert held[-1] < held[1] + 30  # MiB


def test_a_stop_lets_a_running_question_end(run, monkeypatch):
    began, go_on = threading.Event(), threading.Event()
    lists = Served.lists

    def slow(*arguments):
        began.set()
        go_on.wait(30)
        return lists(*arguments)

    serving = current(run)
    monkeypatch.setattr(Served, "lists", slow)
    answers = []
    with served(build(serving)) as client:
        asker = threading.Thread(target=lambda: answers.append(client.get("/recommend/u6")))
        asker.start()
        began.wait(30)
        address = client.base_url
        client.stop()
        go_on.set()
        asker.join()
    assert [answer.status_code for answer in answers] == [200]
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{address}/health")


def test_serving_needs_no_tensorflow():
    code = "import sys, workflows.serve; sys.exit('tensorflow' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert (
        subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
    )
