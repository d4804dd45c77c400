"""Closed-loop load on an HTTP server: a connection sends its next request after each answer.

    python benchmarks/peers/load.py http://127.0.0.1:8000 --seconds 10 --users ids.json

It needs only the standard library, so it runs in every environment. The last line is JSON: numbers
of requests and errors, latencies in milliseconds, and the number of requests that each export
answered.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import re
import time
from collections import Counter
from pathlib import Path
from urllib.parse import quote, urlsplit

#: Seconds after which a request counts as an error.
PATIENCE = 30.0
_EXPORT = re.compile(rb'"export":"(\w+)"')


class Tally:
    """Results of the requests.

    Attributes:
        seconds: latency of each answered request.
        errors: kind of error → number of requests.
        exports: export that answered → number of requests.
    """

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.errors: Counter[str] = Counter()
        self.exports: Counter[str] = Counter()

    def to_dict(self, took: float) -> dict[str, object]:
        """Return the figures, latencies in milliseconds."""
        times = sorted(self.seconds) or [float("nan")]
        at = {f"p{p}": round(1000 * times[int(len(times) * p / 100)], 2) for p in (50, 95, 99)}
        return {
            "requests": len(self.seconds),
            "errors": sum(self.errors.values()),
            "why": dict(self.errors),
            "per_second": round(len(self.seconds) / took, 1),
            **at,
            "longest": round(1000 * times[-1], 2),
            "exports": dict(self.exports),
        }


async def ask(
    host: str, port: int, users: itertools.cycle[str], k: int, until: float, tally: Tally
) -> None:
    """Send requests over one connection; if it is closed, open another."""
    streams = None
    while time.perf_counter() < until:
        path = f"/recommend/{quote(next(users), safe='')}?k={k}"
        start = time.perf_counter()
        try:
            streams = streams or await asyncio.open_connection(host, port)
            status, body = await asyncio.wait_for(_request(*streams, path), PATIENCE)
        except (OSError, EOFError, asyncio.TimeoutError) as error:
            tally.errors[type(error).__name__] += 1
            streams = None
            continue
        if status != 200:
            tally.errors[str(status)] += 1
            continue
        tally.seconds.append(time.perf_counter() - start)
        if found := _EXPORT.search(body):
            tally.exports[found[1].decode()] += 1
    if streams:
        streams[1].close()


async def _request(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str
) -> tuple[int, bytes]:
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: *(\d+)", head.lower())
    body = await reader.readexactly(int(length[1]) if length else 0)
    return int(head.split(b" ", 2)[1]), body


async def load(
    address: str, users: list[str], *, connections: int, seconds: float, k: int
) -> dict[str, object]:
    """Send requests for some seconds and return the figures."""
    place = urlsplit(address)
    tally, start = Tally(), time.perf_counter()
    askers = (
        ask(
            place.hostname or "",
            place.port or 80,
            itertools.cycle(users[n::connections] or users),
            k,
            start + seconds,
            tally,
        )
        for n in range(connections)
    )
    await asyncio.gather(*askers)
    return tally.to_dict(time.perf_counter() - start)


def main() -> None:
    """Put load on a server, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument(
        "--users", type=Path, required=True, help="JSON file with a list of user ids"
    )
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("-k", type=int, default=10)
    options = parser.parse_args()
    users = json.loads(options.users.read_text(encoding="utf-8"))
    figures = asyncio.run(
        load(
            options.address,
            users,
            connections=options.connections,
            seconds=options.seconds,
            k=options.k,
        )
    )
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
