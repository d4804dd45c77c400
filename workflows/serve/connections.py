"""Limits on the waiting time and the number of connections, which uvicorn does not have.

Who sends half a request, or takes half an answer, keeps a connection and a file descriptor. These
are closed after a while, and when there are too many, the one goes that has waited longest for a
question. A server is best put behind a proxy all the same: this one keeps itself alive, no more.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import time
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from workflows.serve.limits import Limits

log = logging.getLogger(__name__)

#: File descriptors that are left for files, the log and reloads.
_SPARE = 150
#: Seconds in which a complaint is written once.
_QUIET = 10.0
_LATE = (
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n"
    b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
)


class Connection(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """uvicorn's connection, which makes room when there are too many, and outlives odd requests."""

    #: How many there may be; set before the server starts.
    most = 0

    def connection_made(self, transport: Any) -> None:
        """Take a connection; close the one that has waited longest when there are too many."""
        super().connection_made(transport)
        self.idle_since = time.monotonic()
        if len(self.connections) > self.most:
            self._make_room()

    def _make_room(self) -> None:
        # who is closed leaves the set only when the loop comes round
        there = [c for c in self.connections if not c.transport.is_closing()]
        if len(there) > self.most:
            idle = [c for c in there if c is not self and _waits_for(c) == "head"]
            oldest = min(idle, key=lambda c: c.idle_since, default=self)
            oldest.transport.close()

    def data_received(self, data: bytes) -> None:
        """Read; close a connection that h11 cannot go on with: it has answered by then."""
        try:
            super().data_received(data)
        except Exception as error:
            log.warning("a request was dropped that cannot be read: %s", error)
            self.transport.close()

    def on_response_complete(self) -> None:
        """Wait for the next question."""
        self.idle_since = time.monotonic()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP; whoever answers the part before it is not heard any more."""
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started:
                self.transport.close()
                return
        super().send_400_response(msg)


def _waits_for(connection: Any) -> str:
    """Return what it waits for: a head, a body, the server, or that an answer is taken."""
    cycle = connection.cycle
    if connection.transport.get_write_buffer_size():
        return "taking"  # uvicorn may have written it all and be done
    if cycle is None or cycle.response_complete:
        return "head"
    if cycle.response_started:
        return "taking"
    return "body" if cycle.more_body else "server"


@dataclass(frozen=True)
class _Wait:
    """What a connection waits for.

    Attributes:
        cycle: uvicorn's object of the question, another one for each.
        what: a result of `_waits_for`.
        since: when it was first seen to wait for that.
    """

    cycle: object
    what: str
    since: float


class Deadlines:
    """Closes connections that have waited too long.

    Args:
        limits: how long each wait may be.
    """

    def __init__(self, limits: Limits) -> None:
        # a body has a deadline of its own in the guard, which answers; this one comes after it
        self._seconds = {
            "head": limits.head,
            "body": limits.reading_seconds + 5,
            "taking": limits.sending_seconds,
            "server": float("inf"),
        }
        self._waits: dict[Any, _Wait] = {}

    def look(self, connections: set[Any]) -> None:
        """Close what is late. To be called every second or so."""
        now, waits = time.monotonic(), {}
        for connection in list(connections):
            what, before = _waits_for(connection), self._waits.get(connection)
            wait = _Wait(connection.cycle, what, now)
            if before and (before.cycle, before.what) == (wait.cycle, what):
                wait = before
            waits[connection] = wait
            if now - wait.since > self._seconds[what]:
                _close(connection, what)
        self._waits = waits


def _close(connection: Any, what: str) -> None:
    if what == "head" and connection.cycle is None:
        text = (
            b'{"faults":[{"field":"header","got":"no whole request",'
            b'"expected":"one within the deadline"}],"more":0}'
        )
        connection.transport.write(_LATE % (len(text), text))
        connection.transport.close()
    elif what == "head":
        connection.transport.close()
    else:  # what is not taken would be waited for
        connection.transport.abort()


def room(limits: Limits) -> int:
    """Return how many connections there may be; ask the system for as many file descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.connections + _SPARE
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    if soft == resource.RLIM_INFINITY:
        return limits.connections
    return max(1, min(limits.connections, soft - _SPARE))


class Seldom(logging.Filter):
    """Lets the same complaint into the log once in ten seconds, and says how many were left out."""

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[object, float] = {}
        self._left_out: dict[object, int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a record is written."""
        if record.levelno < logging.WARNING:
            return True
        now, what = time.monotonic(), record.msg
        if now - self._told.get(what, -_QUIET) < _QUIET:
            self._left_out[what] = self._left_out.get(what, 0) + 1
            return False
        if len(self._told) > 100:  # texts of errors may be many
            self._told.clear()
        self._told[what] = now
        if more := self._left_out.pop(what, 0):
            record.msg = f"{record.getMessage()} (and {more} times more before)"
            record.args = ()
        return True


def quiet_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Make asyncio's complaints one line each, the same ones seldom.

    Where file descriptors run out, asyncio complains a hundred times a second, with tracebacks.
    """

    def complain(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        log.warning(f"{context['message']}: {error or 'no more is known'}")

    loop.set_exception_handler(complain)
