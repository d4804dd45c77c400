"""Bounds on the number of connections and on waiting times, which uvicorn does not have.

A client that sends half a request, or reads half an answer, holds a connection and a file
descriptor. Slow connections are closed after a deadline; if there are too many connections, the one
that has been idle longest is closed. The bounds keep the server available, but do not replace a
proxy in front of it.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import time
from dataclasses import dataclass
from typing import Any, Literal

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from workflows.serve.limits import Limits

log = logging.getLogger(__name__)

#: State of a connection: it waits for the head of a request, for its body, for the server's answer,
#: or for the client to receive the answer.
State = Literal["head", "body", "server", "receive"]
#: Number of file descriptors that are reserved for files, the log and reloads.
_RESERVED_FILES = 150
#: Seconds in which the same warning is logged only once.
_REPEAT_SECONDS = 10.0
_REQUEST_TIMEOUT = (
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n"
    b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
)


class Connection(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """A uvicorn HTTP connection that counts against a limit and answers unreadable bytes by 400."""

    #: The largest number of open connections. It is set before the server starts.
    max_connections = 0

    def connection_made(self, transport: Any) -> None:
        """Accept a connection; if there are too many, close the one that has been idle longest."""
        super().connection_made(transport)
        self.idle_since = time.monotonic()
        if len(self.connections) > self.max_connections:
            self._close_longest_idle()

    def _close_longest_idle(self) -> None:
        # a closed connection leaves the set only in the next round of the event loop
        still_open = [c for c in self.connections if not c.transport.is_closing()]
        if len(still_open) > self.max_connections:
            idle = [c for c in still_open if c is not self and _state(c) == "head"]
            oldest = min(idle, key=lambda c: c.idle_since, default=self)
            oldest.transport.close()

    def data_received(self, data: bytes) -> None:
        """Read bytes from the client; close the connection if the HTTP parser h11 fails on them."""
        try:
            super().data_received(data)
        except Exception as error:
            log.warning("an unreadable request was dropped: %s", error)
            self.transport.close()

    def on_response_complete(self) -> None:
        """Set the connection to wait for its next request when an answer is complete."""
        self.idle_since = time.monotonic()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer 400 to bytes that are not HTTP, and drop the unfinished answer of the app."""
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started:
                self.transport.close()
                return
        super().send_400_response(msg)


def _state(connection: Any) -> State:
    """Return the state of a connection: what it waits for."""
    cycle = connection.cycle
    if connection.transport.get_write_buffer_size():
        return "receive"  # even if uvicorn has written the whole answer into the buffer
    if cycle is None or cycle.response_complete:
        return "head"
    if cycle.response_started:
        return "receive"
    return "body" if cycle.more_body else "server"


@dataclass(frozen=True)
class _Wait:
    """The state of a connection, and the time since when it has this state.

    Attributes:
        cycle: uvicorn's object for the current request; each request has its own object.
        state: what the connection waits for.
        since: when the connection was first seen in `state`.
    """

    cycle: object
    state: State
    since: float


class Deadlines:
    """Closes HTTP connections that have been in one state for too long.

    Args:
        limits: the limits of the server, with a time limit for each state of a connection.
    """

    def __init__(self, limits: Limits) -> None:
        # the guard answers 408 for a late body; this deadline is a later, second one
        self._seconds: dict[State, float] = {
            "head": limits.head_seconds,
            "body": limits.body_seconds + 5,
            "receive": limits.answer_seconds,
            "server": float("inf"),
        }
        self._waits: dict[Any, _Wait] = {}

    def enforce(self, connections: set[Any]) -> None:
        """Close the connections that are in one state beyond its deadline.

        Must be called about once a second.
        """
        now, waits = time.monotonic(), {}
        for connection in list(connections):
            wait = _Wait(connection.cycle, _state(connection), now)
            before = self._waits.get(connection)
            if before and (before.cycle, before.state) == (wait.cycle, wait.state):
                wait = before
            waits[connection] = wait
            if now - wait.since > self._seconds[wait.state]:
                _close(connection, wait.state)
        self._waits = waits


def _close(connection: Any, state: State) -> None:
    if state == "head" and connection.cycle is None:
        text = (
            b'{"faults":[{"field":"header","got":"an incomplete request",'
            b'"expected":"a whole request within the time limit"}],"more":0}'
        )
        connection.transport.write(_REQUEST_TIMEOUT % (len(text), text))
        connection.transport.close()
    elif state == "head":
        connection.transport.close()
    else:  # close() would wait until the client has received the rest
        connection.transport.abort()


def reserve_files(limits: Limits) -> int:
    """Raise the process's limit on file descriptors; return the number of connections it allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = limits.connections + _RESERVED_FILES
    if hard != resource.RLIM_INFINITY:
        needed = min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
        soft = needed
    if soft == resource.RLIM_INFINITY:
        return limits.connections
    return max(1, min(limits.connections, soft - _RESERVED_FILES))


class RepeatFilter(logging.Filter):
    """Log filter that passes the same warning once in ten seconds, with the number of repeats."""

    def __init__(self) -> None:
        super().__init__()
        self._logged: dict[object, float] = {}
        self._left_out: dict[object, int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a log record is written: not if it repeats a recent warning."""
        if record.levelno < logging.WARNING:
            return True
        now, text = time.monotonic(), record.msg
        if now - self._logged.get(text, -_REPEAT_SECONDS) < _REPEAT_SECONDS:
            self._left_out[text] = self._left_out.get(text, 0) + 1
            return False
        if len(self._logged) > 100:  # the number of different error texts has no bound
            self._logged.clear()
        self._logged[text] = now
        if n_left_out := self._left_out.pop(text, 0):
            record.msg = f"{record.getMessage()} (and {n_left_out} times more before)"
            record.args = ()
        return True


def log_loop_errors(loop: asyncio.AbstractEventLoop) -> None:
    """Log errors of the event loop as one line each, without a traceback.

    When no file descriptors are left, asyncio reports a hundred errors a second.
    """

    def log_error(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        log.warning(f"{context['message']}: {error or 'asyncio gives no reason'}")

    loop.set_exception_handler(log_error)
