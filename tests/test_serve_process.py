"""`two-tower serve` as a process: signals, a stop that drops nothing, reloads under load."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from live import served
from test_serve import STAGES, current, other_export
from tiny_run import Run, Tiny

from workflows.serve.app import build
from workflows.serve.loaded_export import LoadedExport

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def run(tiny: Tiny, tmp_path: Path) -> Run:
    return tiny.exported.branch(tmp_path / "run", stages=STAGES)


class Server:
    """A server in a process.

    Args:
        run: the run that it serves.
        log: the file of its log.
        watch: seconds between looks for a newer export.
        grace: seconds that running requests may take after SIGTERM.
        code: Python code that runs the command line; "" for the module itself.
    """

    def __init__(
        self, run: Run, log: Path, *, watch: float = 0.0, grace: float = 30, code: str = ""
    ) -> None:
        self.log = log
        words = ["serve", "--recipe", str(run.world.recipe_file), "--run", str(run.store.root)]
        words += ["--port", "0", "--watch", str(watch), "--grace", str(grace)]
        begin = ["-c", code] if code else ["-m", "workflows"]
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, *begin, *words],
                cwd=ROOT,
                stdout=file,
                stderr=file,
            )
        self.address = self.log_line("serving ").rsplit(" ", 1)[-1]

    def log_line(self, text: str) -> str:
        """Wait for a line of the log and return it."""
        while True:
            assert self.process.poll() is None, self.log.read_text()
            for line in self.log.read_text().splitlines():
                if line.startswith(text):
                    return line
            time.sleep(0.02)

    def memory(self) -> float:
        """Return its resident memory, MiB."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(n.split()[1]) / 1024 for n in lines if n.startswith("VmRSS"))

    def metric(self, name: str) -> float:
        """Return the value of one of its metrics."""
        text = httpx.get(f"{self.address}/metrics").text
        return float(next(n.split()[-1] for n in text.splitlines() if n.startswith(name)))


@contextlib.contextmanager
def serving(run: Run, log: Path, **options: Any) -> Iterator[Server]:
    server = Server(run, log, **options)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()


def test_sighup_reloads_and_sigterm_stops(run, tmp_path):
    with serving(run, tmp_path / "log") as server:
        before = httpx.get(f"{server.address}/health").json()
        other_export(run)
        server.process.send_signal(signal.SIGHUP)
        server.log_line("now serving export ")
        after = httpx.get(f"{server.address}/health").json()
        assert after["export"] != before["export"]
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
        text = server.log.read_text()
        assert json.loads(next(n for n in text.splitlines() if n[0] == "{"))["route"] == "/health"
        assert "reloads" in text  # the verb's result
        assert "Traceback" not in text


def test_without_an_export_the_error_says_what_to_do(run, tmp_path):
    words = ["serve", "--recipe", str(run.world.recipe_file), "--run", str(tmp_path / "nothing")]
    done = subprocess.run(
        [sys.executable, "-m", "workflows", *words], cwd=ROOT, capture_output=True, check=False
    )
    assert done.returncode == 2
    assert b"Run `two-tower export " in done.stderr


#: A server in which a request for the user `stuck` takes a minute.
STUCK = """
import time
from workflows.serve.loaded_export import LoadedExport
lists = LoadedExport.lists
def slow(self, users, *arguments):
    time.sleep(60 if users[0].id == "stuck" else 0)
    return lists(self, users, *arguments)
LoadedExport.lists = slow
from workflows.cli import main
main()
"""


@contextlib.contextmanager
def stuck(server: Server) -> Iterator[None]:
    """Send a request that takes a minute, while the block runs."""

    def ask() -> None:
        with contextlib.suppress(httpx.HTTPError):
            httpx.get(f"{server.address}/recommend/stuck", timeout=60)

    thread = threading.Thread(target=ask)
    thread.start()
    while server.metric("two_tower_requests_running ") < 2:  # that one, and the one for /metrics
        time.sleep(0.02)
    yield
    thread.join()


def test_running_requests_end_with_the_grace(run, tmp_path):
    with serving(run, tmp_path / "log", grace=1.5, code=STUCK) as server, stuck(server):
        start = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 1
        assert 1 < time.monotonic() - start < 10
        assert "running requests did not end within 1.5 s" in server.log.read_text()


def test_a_second_signal_ends_the_server_at_once(run, tmp_path):
    with serving(run, tmp_path / "log", grace=50, code=STUCK) as server, stuck(server):
        start = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert server.process.poll() is None  # the control: the request still runs
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 128 + signal.SIGTERM
        assert time.monotonic() - start < 20
        assert "stopped at once by a second SIGTERM" in server.log.read_text()


def test_a_port_in_use_gives_one_paragraph(run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        words = ["--recipe", str(run.world.recipe_file), "--run", str(run.store.root)]
        words += ["--port", str(taken.getsockname()[1])]
        done = subprocess.run(
            [sys.executable, "-m", "workflows", "serve", *words],
            cwd=ROOT,
            capture_output=True,
            check=False,
            text=True,
        )
    assert done.returncode == 2
    assert "Another process listens there. Stop it, or choose another --port." in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.quality
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
            while server.metric('two_tower_reloads_total{result="done"}') < number:
                time.sleep(0.02)
            held.append(server.memory())
        figures = json.loads(load.communicate()[0])
        assert load.returncode == 0
        assert figures["errors"] == 0, figures
        assert figures["requests"] > 100
        # two in turn have answered, and the one before them if the load was quick to begin
        assert len(figures["exports"]) in (2, 3)
        assert sum(figures["exports"].values()) == figures["requests"]
        assert server.metric('two_tower_reloads_total{result="refused"}') == 0
        assert held[-1] < held[1] + 30  # MiB


def test_a_running_request_ends_before_the_server_stops(run, monkeypatch):
    began, go_on = threading.Event(), threading.Event()
    lists = LoadedExport.lists

    def slow(*arguments):
        began.set()
        go_on.wait(30)
        return lists(*arguments)

    serving = current(run)
    monkeypatch.setattr(LoadedExport, "lists", slow)
    answers = []
    with served(build(serving)) as client:
        thread = threading.Thread(target=lambda: answers.append(client.get("/recommend/u6")))
        thread.start()
        began.wait(30)
        address = client.base_url
        client.stop()
        go_on.set()
        thread.join()
    assert [answer.status_code for answer in answers] == [200]
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{address}/health")


def test_serving_needs_no_tensorflow():
    code = "import sys, workflows.serve; sys.exit('tensorflow' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert (
        subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
    )
