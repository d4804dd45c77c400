"""Campaigns against the server: odd, big, abandoned, slow and countless requests. Bounded, seeded.

    python tests/torture_http.py --run runs/movielens-100k [--small] [--only flood stop] [--seed 9]

It starts servers of its own on 127.0.0.1 and prints one line of JSON for each campaign: what was
tried, what was measured, and what was lost. The exit status is 1 if anything was lost. `--code`
names another checkout whose server is tried, for a comparison.
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
#: What issue 15 allows: MiB and seconds of the worst question, seconds of a plain one beside it,
#: bytes of /metrics.
MEMORY, PROCESSOR, PATIENCE, FIGURES = 500, 2.0, 1.0, 100 * 1024
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
    """How much is tried.

    Attributes:
        malformed, invented: requests.
        seconds: of the flood.
        idle: connections that say nothing.
        deadlines: whether to wait for those of heads and bodies.
    """

    malformed: int = 5000
    invented: int = 20_000
    seconds: float = 30
    idle: int = 1100
    deadlines: bool = True


SMALL = Size(malformed=300, invented=500, seconds=4, idle=150, deadlines=False)


@dataclass
class Outcome:
    """What a campaign found.

    Attributes:
        tried: how many requests or connections.
        lost: what went wrong, in words.
        figures: what was measured.
    """

    tried: int = 0
    lost: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def need(self, is_so: bool, otherwise: str) -> None:
        """Count as lost what is not as it must be."""
        if not is_so:
            self.lost.append(otherwise)


class Server:
    """A server in a process of its own.

    Args:
        run: that it serves.
        code: the checkout that it runs.
        log: file of what it says.
        files: file descriptors that it may have at most; 0 for as many as we may.
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
        """Ask over a connection of its own; return status and bytes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=wait)
        with contextlib.closing(connection):
            text = body if body is None or isinstance(body, bytes) else body_of(body)
            connection.request(method, path, text, {"content-type": "application/json"})
            answer = connection.getresponse()
            return answer.status, len(answer.read())

    def processor(self) -> float:
        """Return seconds of processor time that it has taken."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return sum(map(int, stat[11:13])) / os.sysconf("SC_CLK_TCK")

    def memory(self, which: str) -> int:
        """Return MiB: `VmRSS` now, or `VmHWM`, the most since `forget`."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(n.split()[1]) // 1024 for n in lines if n.startswith(which))

    def forget(self) -> None:
        """Begin to measure the most memory anew."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def has_traceback(self) -> bool:
        """Say whether its log holds one."""
        return "Traceback" in self.log.read_text()


def socket_to(server: Server) -> socket.socket:
    """Connect, and say nothing."""
    return socket.create_connection(("127.0.0.1", server.port), 30)


def plain(server: Server, seconds: float, every: float = 0.02) -> list[float]:
    """Ask small questions for a while and return how long each took; inf for no answer."""
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
    """Malformed requests: none is a 5xx, none hangs, none leaves a traceback."""
    outcome, statuses = Outcome(size.malformed), Counter[str]()
    generator = random.Random(seed)
    for what, raw in (malformed(generator) for _ in range(size.malformed)):
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
            with contextlib.suppress(OSError):  # closed by now
                connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65536):
                told = told or piece
        except TimeoutError:
            return "no answer in time"
    return told.split(b" ", 2)[1].decode("latin-1") if told.startswith(b"HTTP") else "closed"


def biggest() -> dict[str, tuple[str, str, Any]]:
    """Return the biggest questions that are allowed, by kind: method, path, body."""
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
    """Ask the first question for raw values, which waits for TensorFlow as no other does."""
    server.ask("POST", "/embed", {"users": [{}], "items": [{}]}, wait=120)


def worst(server: Server, size: Size, seed: int) -> Outcome:
    """Measure each of the biggest questions alone."""
    outcome = Outcome()
    load_tensorflow(server)
    for name, (method, path, body) in biggest().items():
        before = server.processor(), server.memory("VmRSS")
        server.forget()
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
    """Let 64 clients send the biggest questions and hang up, while somebody asks a plain one."""
    load_tensorflow(server)
    server.forget()
    before = server.memory("VmRSS")
    with _flooding(server, size.seconds + 1, seed) as sent:
        took = plain(server, size.seconds)
    left = _work_left(server)
    figures = {
        "plain": len(took), "p50": at(0.5, took), "p99": at(0.99, took), "longest": at(1, took),
        "MiB more": server.memory("VmHWM") - before, "cpu after, s": left,
    }  # fmt: skip
    outcome = Outcome(len(took) + sent(), figures=figures)
    outcome.need(figures["p99"] < PATIENCE, f"p99 of a plain question: {figures['p99']} s")
    outcome.need(left < 3, f"it works for another {left} s for those who have gone")
    return outcome


def _work_left(server: Server) -> float:
    """Wait until a server does nothing, a minute at most; return the processor time it took."""
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
    """Flood from another process, so that this one measures nothing but the server."""
    words = [sys.executable, __file__, "--flood", server.port, "--seed", seed, "--seconds", seconds]
    process = subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, text=True)
    time.sleep(0.5)  # until it has begun
    try:
        yield lambda: int(process.communicate(timeout=seconds + 60)[0])
    finally:
        if process.poll() is None and sys.exc_info()[0]:
            process.kill()
        process.wait()


def hang_up(port: int, seconds: float, seed: int) -> int:
    """Send the biggest questions over 64 connections at a time and hang up; return how many."""
    texts = [_raw(*question) for question in biggest().values()]
    generator, sent, until = random.Random(seed), 0, time.monotonic() + seconds
    open_ones: list[tuple[float, socket.socket]] = []
    while time.monotonic() < until:
        for _ in range(64 - len(open_ones)):
            with contextlib.suppress(OSError):
                one = socket.create_connection(("127.0.0.1", port), 5)
                one.settimeout(5)
                open_ones.append((time.monotonic() + generator.random(), one))
                one.sendall(generator.choice(texts))
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
    """Methods and paths that nobody knows: the figures do not grow with them."""
    generator, outcome = random.Random(seed), Outcome(size.invented)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    for number in range(size.invented):
        word = "".join(generator.choices(string.ascii_uppercase, k=12))
        known = generator.choice(["/recommend/1", "/health", "/", "/embed", "/similar-items/50"])
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
    outcome.need(length <= FIGURES, f"/metrics has {length} bytes")
    return outcome


def slow(server: Server, size: Size, seed: int) -> Outcome:
    """More connections that say nothing than the server has file descriptors, and half requests."""
    outcome, log = Outcome(size.idle), server.log.stat().st_size
    held = [socket_to(server) for _ in range(size.idle)]
    body = b"POST /embed HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    halves = [b"GET /recommend/1 HTTP/1.1\r\nhost: loc", body + b"content-length: 900\r\n\r\n{"]
    for n, one in enumerate(held[-40:]):
        one.sendall(halves[n % 2])
    took = plain(server, min(3, size.seconds))
    outcome.figures = {"p99 beside them": at(0.99, took), "longest": at(1, took)}
    outcome.need(at(0.99, took) < PATIENCE, "a plain question waits for those who say nothing")
    if size.deadlines:
        until = time.monotonic() + 30
        while (left := sum(map(_is_open, held))) and time.monotonic() < until:
            time.sleep(0.5)
        outcome.figures["open after 30 s"] = left
        outcome.need(not left, f"{left} connections were not closed")
    for one in held:
        one.close()
    outcome.figures["log, bytes"] = server.log.stat().st_size - log
    outcome.need(outcome.figures["log, bytes"] < 20_000, "they fill the log")
    outcome.need(not server.has_traceback(), "a traceback in the log")
    return outcome


def _is_open(one: socket.socket) -> bool:
    one.setblocking(False)
    try:
        while told := one.recv(65536):
            del told
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def stop(server: Server, size: Size, seed: int) -> Outcome:
    """SIGTERM in the middle of a flood: the process ends within its grace."""
    outcome = Outcome(1)
    with _flooding(server, 2, seed) as sent:
        time.sleep(1)
        start = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.process.wait(40)
        outcome.figures["s"] = round(time.monotonic() - start, 1)
        outcome.need(server.process.poll() is not None, "it lives on 40 s after SIGTERM")
        outcome.need(outcome.figures["s"] <= 31, "the grace of 30 s was not kept")
        sent()
    return outcome


CAMPAIGNS = (odd, worst, flood, invented, slow, stop)


def torture(
    run: Path, size: Size, seed: int, *, code: Path = ROOT, only: tuple[str, ...] = ()
) -> Iterator[tuple[str, Outcome]]:
    """Run the campaigns against servers of a run, and yield what each found."""
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
    """Run the campaigns and print what they found."""
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
