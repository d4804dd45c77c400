"""Torture of the server with malformed, large, abandoned, slow and very many requests.

    python tests/torture_http.py --run runs/movielens-100k [--small] [--only flood stop] [--seed 9]

It starts its own servers on 127.0.0.1 and prints one line of JSON for each campaign: the number of
requests, measurements, and losses. The exit status is 1 if there is a loss. `--code` names another
checkout whose server is tested, for a comparison.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import resource
import signal
import socket
import string
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torture_requests import body_of, malformed

ROOT = Path(__file__).resolve().parent.parent
#: Bounds of issue 15: MiB and processor seconds of the largest request, seconds of a small request
#: beside it, bytes of /metrics.
MEMORY, PROCESSOR, PATIENCE, METRICS = 500, 2.0, 1.0, 100 * 1024
_SERVE = """
import logging, sys
from pathlib import Path
logging.basicConfig(level=logging.WARNING, format="%(message)s")
logging.getLogger("workflows").setLevel(logging.INFO)
logging.getLogger("workflows.serve.observe").setLevel(logging.WARNING)
from workflows.ground.device import choose
device = choose("cpu")
from workflows.serve import serve
from workflows.stages.store import Store
store = Store(Path(sys.argv[1]))
serve(store.recipe("export"), store, device, port=0, watch=0)
"""


@dataclass(frozen=True)
class Size:
    """The size of the campaigns.

    Attributes:
        malformed, invented: numbers of requests.
        seconds: duration of the flood.
        idle: number of idle connections.
        deadlines: whether to wait for the deadlines of heads and bodies.
    """

    malformed: int = 5000
    invented: int = 20_000
    seconds: float = 30
    idle: int = 1100
    deadlines: bool = True


SMALL = Size(malformed=300, invented=500, seconds=4, idle=150, deadlines=False)


@dataclass
class Outcome:
    """Result of a campaign.

    Attributes:
        tried: number of requests or connections.
        lost: a description of each loss.
        figures: measurements.
    """

    tried: int = 0
    lost: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def need(self, is_so: bool, otherwise: str) -> None:
        """Add a loss if a condition does not hold."""
        if not is_so:
            self.lost.append(otherwise)


class Server:
    """A server in its own process.

    Args:
        run: the run that it serves.
        code: the checkout that it runs.
        log: the file of its log.
        files: largest number of file descriptors; 0 for the limit of this process.
    """

    def __init__(self, run: Path, code: Path, log: Path, *, files: int = 0) -> None:
        self.log = log
        environment = {**os.environ, "PYTHONPATH": str(code), "CUDA_VISIBLE_DEVICES": ""}

        def few_files() -> None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

        with log.open("w") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _SERVE, str(run.resolve())],
                cwd=code, env=environment, stdout=out, stderr=out,
                preexec_fn=few_files if files else None,
            )  # fmt: skip
        until = time.monotonic() + 120
        while "serving " not in log.read_text():
            assert self.process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < until, "the server did not start"
            time.sleep(0.05)
        line = next(n for n in log.read_text().splitlines() if n.startswith("serving "))
        self.port = int(line.rsplit(":", 1)[1])

    def ask(self, method: str, path: str, body: Any = None, *, wait: float = 30) -> tuple[int, int]:
        """Send a request over a new connection; return the status and the size of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=wait)
        with contextlib.closing(connection):
            text = body if body is None or isinstance(body, bytes) else body_of(body)
            connection.request(method, path, text, {"content-type": "application/json"})
            answer = connection.getresponse()
            return answer.status, len(answer.read())

    def processor(self) -> float:
        """Return its processor time, seconds."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return sum(map(int, stat[11:13])) / os.sysconf("SC_CLK_TCK")

    def memory(self, which: str) -> int:
        """Return its memory, MiB: `VmRSS`, or `VmHWM`, the peak since `reset_peak`."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(n.split()[1]) // 1024 for n in lines if n.startswith(which))

    def reset_peak(self) -> None:
        """Begin to measure the peak memory again."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def has_traceback(self) -> bool:
        """Return whether its log has a traceback."""
        return "Traceback" in self.log.read_text()


def socket_to(server: Server) -> socket.socket:
    """Connect without sending anything."""
    return socket.create_connection(("127.0.0.1", server.port), 30)


def send_small(server: Server, seconds: float, every: float = 0.02) -> list[float]:
    """Send small requests for some seconds; return the time of each, inf if it failed."""
    took, until = [], time.monotonic() + seconds
    while time.monotonic() < until:
        start = time.monotonic()
        try:
            status, _ = server.ask("GET", f"/recommend/{len(took) % 900 + 1}?k=10")
            took.append(time.monotonic() - start if status == 200 else float("inf"))
        except OSError:
            took.append(float("inf"))
        time.sleep(every)
    return took


def at(share: float, times: list[float]) -> float:
    """Return a quantile."""
    return round(sorted(times)[min(len(times) - 1, int(share * len(times)))], 3)


# ── campaigns ───────────────────────────────────────────────────────────────────────────


def odd(server: Server, size: Size, seed: int) -> Outcome:
    """Send malformed requests: no answer is a 5xx, no request hangs or causes a traceback."""
    outcome, statuses = Outcome(size.malformed), Counter[str]()
    rng = random.Random(seed)
    for what, raw in (malformed(rng) for _ in range(size.malformed)):
        start = time.monotonic()
        status = _status_of(server, raw)
        statuses[status] += 1
        outcome.need(not status.startswith("5") or status == "503", f"{status}: {what}")
        outcome.need(status != "no answer in time", f"hangs: {what}")
        outcome.need(time.monotonic() - start < 5, f"slow: {what}")
    outcome.figures = {"statuses": dict(statuses), "log, bytes": server.log.stat().st_size}
    outcome.need(not server.has_traceback(), "a traceback in the log")
    return outcome


def _status_of(server: Server, raw: bytes) -> str:
    told = b""
    with socket_to(server) as connection, contextlib.suppress(ConnectionError):
        connection.settimeout(12)
        try:
            connection.sendall(raw)
            with contextlib.suppress(OSError):  # the server has closed it
                connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65536):
                told = told or piece
        except TimeoutError:
            return "no answer in time"
    return told.split(b" ", 2)[1].decode("latin-1") if told.startswith(b"HTTP") else "closed"


def largest() -> dict[str, tuple[str, str, Any]]:
    """Return the largest requests that are allowed: name → method, path, body."""
    ids = [{"id": str(n % 943 + 1)} for n in range(1000)]
    told = [{"features": {"history_item_id": [str(n % 1600)] * 120}} for n in range(1000)]
    rules = {"only": ["genres=Comedy"] * 20, "deny": [str(n + 1) for n in range(600)]}
    long = {"users": [{"history_item_id": ["50"] * 120_000}, *[{}] * 999], "items": [{}] * 1000}
    return {
        "1000 lists of 50": ("POST", "/recommend", {"users": ids, "k": 50}),
        "50 lists of 1000": ("POST", "/recommend", {"users": ids[:50], "k": 1000}),
        "1000 lists, rules": ("POST", "/recommend", {"users": ids, "k": 50, **rules}),
        "1000 told users": ("POST", "/recommend", {"users": told, "k": 50}),
        "one long history": ("POST", "/embed", long),
        "2000 rows": ("POST", "/embed", {"users": [{}] * 1000, "items": [{}] * 1000}),
        "many faults": ("POST", "/embed", {"users": [{f"f{n}": 1 for n in range(60)}] * 1000}),
        "one list of 1000": ("GET", "/recommend/1?k=1000", None),
    }


def load_tensorflow(server: Server) -> None:
    """Send a first request with raw values, which loads TensorFlow."""
    server.ask("POST", "/embed", {"users": [{}], "items": [{}]}, wait=120)


def worst(server: Server, size: Size, seed: int) -> Outcome:
    """Measure each of the largest requests alone."""
    outcome = Outcome()
    load_tensorflow(server)
    for name, (method, path, body) in largest().items():
        before = server.processor(), server.memory("VmRSS")
        server.reset_peak()
        status, length = server.ask(method, path, body, wait=120)
        took = round(server.processor() - before[0], 2)
        more = server.memory("VmHWM") - before[1]
        outcome.tried += 1
        outcome.figures[name] = {"status": status, "bytes": length, "cpu, s": took, "MiB": more}
        outcome.need(took <= PROCESSOR, f"{name}: {took} s of processor time")
        outcome.need(more <= MEMORY, f"{name}: {more} MiB")
        outcome.need(status in (200, 413, 422), f"{name}: {status}")
    return outcome


def flood(server: Server, size: Size, seed: int) -> Outcome:
    """Let 64 clients send the largest requests and disconnect; small requests are answered."""
    load_tensorflow(server)
    server.reset_peak()
    before = server.memory("VmRSS")
    with _flooding(server, size.seconds + 1, seed) as sent:
        took = send_small(server, size.seconds)
    left = _work_left(server)
    figures = {
        "small": len(took), "p50": at(0.5, took), "p99": at(0.99, took), "longest": at(1, took),
        "MiB more": server.memory("VmHWM") - before, "cpu after, s": left,
    }  # fmt: skip
    outcome = Outcome(len(took) + sent(), figures=figures)
    outcome.need(figures["p99"] < PATIENCE, f"p99 of a small request: {figures['p99']} s")
    outcome.need(left < 3, f"it works for another {left} s for disconnected clients")
    return outcome


def _work_left(server: Server) -> float:
    """Wait until a server is idle, at most a minute; return its processor time meanwhile."""
    begin = before = server.processor()
    for _ in range(120):
        time.sleep(0.5)
        now = server.processor()
        if now - before < 0.05:
            break
        before = now
    return round(now - begin, 2)


@contextlib.contextmanager
def _flooding(server: Server, seconds: float, seed: int) -> Iterator[Callable[[], int]]:
    """Flood from another process, so that this one measures only the server."""
    words = [sys.executable, __file__, "--flood", server.port, "--seed", seed, "--seconds", seconds]
    process = subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, text=True)
    time.sleep(0.5)  # until the flood has begun
    try:
        yield lambda: int(process.communicate(timeout=seconds + 60)[0])
    finally:
        if process.poll() is None and sys.exc_info()[0]:
            process.kill()
        process.wait()


def hang_up(port: int, seconds: float, seed: int) -> int:
    """Send the largest requests over 64 connections and disconnect; return their number."""
    texts = [_raw(*request) for request in largest().values()]
    rng, sent, until = random.Random(seed), 0, time.monotonic() + seconds
    open_ones: list[tuple[float, socket.socket]] = []
    while time.monotonic() < until:
        for _ in range(64 - len(open_ones)):
            with contextlib.suppress(OSError):
                one = socket.create_connection(("127.0.0.1", port), 5)
                one.settimeout(5)
                open_ones.append((time.monotonic() + rng.random(), one))
                one.sendall(rng.choice(texts))
                sent += 1
        now = time.monotonic()
        for late, one in open_ones:
            if late < now:
                one.close()
        open_ones = [(late, one) for late, one in open_ones if late >= now]
        time.sleep(0.01)
    for _, one in open_ones:
        one.close()
    return sent


def _raw(method: str, path: str, body: Any) -> bytes:
    text = b"" if body is None else body_of(body)
    head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(text)}\r\n\r\n".encode() + text


def invented(server: Server, size: Size, seed: int) -> Outcome:
    """Send unknown methods and paths: the metrics do not grow with them."""
    rng, outcome = random.Random(seed), Outcome(size.invented)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    for number in range(size.invented):
        word = "".join(rng.choices(string.ascii_uppercase, k=12))
        known = rng.choice(["/recommend/1", "/health", "/", "/embed", "/similar-items/50"])
        method, path = (word, known) if number % 2 else ("GET", f"/{word}")
        connection.request(method, path)
        answer = connection.getresponse()
        answer.read()
        if answer.will_close:
            connection.close()
        outcome.need(answer.status in (404, 405), f"{answer.status} for {method} {path}")
    connection.close()
    start = time.monotonic()
    _, length = server.ask("GET", "/metrics")
    outcome.figures = {"bytes": length, "s": round(time.monotonic() - start, 3)}
    outcome.need(length <= METRICS, f"/metrics has {length} bytes")
    return outcome


def slow(server: Server, size: Size, seed: int) -> Outcome:
    """Open more idle connections than the server has file descriptors, and send half requests."""
    outcome, log = Outcome(size.idle), server.log.stat().st_size
    held = [socket_to(server) for _ in range(size.idle)]
    body = b"POST /embed HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    halves = [b"GET /recommend/1 HTTP/1.1\r\nhost: loc", body + b"content-length: 900\r\n\r\n{"]
    for n, one in enumerate(held[-40:]):
        one.sendall(halves[n % 2])
    took = send_small(server, min(3, size.seconds))
    outcome.figures = {"p99 beside them": at(0.99, took), "longest": at(1, took)}
    outcome.need(at(0.99, took) < PATIENCE, "a small request waits for idle connections")
    if size.deadlines:
        until = time.monotonic() + 30
        while (left := sum(map(_is_open, held))) and time.monotonic() < until:
            time.sleep(0.5)
        outcome.figures["open after 30 s"] = left
        outcome.need(not left, f"{left} connections were not closed")
    for one in held:
        one.close()
    outcome.figures["log, bytes"] = server.log.stat().st_size - log
    outcome.need(outcome.figures["log, bytes"] < 20_000, "idle connections fill the log")
    outcome.need(not server.has_traceback(), "a traceback in the log")
    return outcome


def _is_open(one: socket.socket) -> bool:
    one.setblocking(False)
    try:
        while one.recv(65536):
            pass
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def stop(server: Server, size: Size, seed: int) -> Outcome:
    """Send SIGTERM during a flood: the process ends within its grace."""
    outcome = Outcome(1)
    with _flooding(server, 2, seed) as sent:
        time.sleep(1)
        start = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.process.wait(40)
        outcome.figures["s"] = round(time.monotonic() - start, 1)
        outcome.need(server.process.poll() is not None, "it still runs 40 s after SIGTERM")
        outcome.need(outcome.figures["s"] <= 31, "the grace of 30 s was not kept")
        sent()
    return outcome


CAMPAIGNS = (odd, worst, flood, invented, slow, stop)


def torture(
    run: Path, size: Size, seed: int, *, code: Path = ROOT, only: tuple[str, ...] = ()
) -> Iterator[tuple[str, Outcome]]:
    """Run the campaigns against servers of a run, and yield the name and result of each."""
    with tempfile.TemporaryDirectory() as folder:
        server = None
        try:
            for campaign in CAMPAIGNS:
                if only and campaign.__name__ not in only:
                    continue
                if server is None or server.process.poll() is not None:
                    log = Path(folder) / f"{campaign.__name__}.log"
                    server = Server(run, code, log, files=1024 if size.idle > 900 else 0)
                start = time.monotonic()
                outcome = campaign(server, size, seed)
                outcome.figures["took, s"] = round(time.monotonic() - start, 1)
                yield campaign.__name__, outcome
        finally:
            if server is not None:
                server.process.kill()
                server.process.wait()


def main() -> None:
    """Run the campaigns and print their results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", type=Path, default=ROOT / "runs" / "movielens-100k")
    parser.add_argument("--code", type=Path, default=ROOT)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--only", nargs="+", default=[], choices=[c.__name__ for c in CAMPAIGNS])
    parser.add_argument("--seed", type=int, default=9)
    parser.add_argument("--flood", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.flood:
        print(hang_up(options.flood, options.seconds, options.seed))
        return
    size = SMALL if options.small else Size()
    only = tuple(options.only)
    lost = 0
    for name, outcome in torture(options.run, size, options.seed, code=options.code, only=only):
        told = {"campaign": name, "tried": outcome.tried, "lost": len(outcome.lost)}
        print(json.dumps({**told, **outcome.figures, "why": outcome.lost[:20]}), flush=True)
        lost += len(outcome.lost)
    sys.exit(lost > 0)


if __name__ == "__main__":
    main()
