"""Back pressure: refuse requests while the server is overloaded.

Small requests run concurrently, large ones one after the other. The number of small requests in
progress, and the total cost of large ones, are bounded; beyond the bounds, a request is refused at
once with 503, which names the time to retry after. Without bounds, the server would work for
minutes on requests whose clients have given up.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager

from starlette.requests import Request
from starlette.types import Receive, Scope

from workflows.serve.limits import Limits
from workflows.serve.wire import Refusal, fault

#: Key of the ASGI scope: its value is true while a large request has its turn to run.
HAS_TURN = "two_tower.has_turn"
#: HTTP status that nginx logs when the client has disconnected. It is not sent, only counted.
CLIENT_CLOSED_REQUEST = 499
#: Seconds after which Python switches between threads that compute; its default is 5 ms.
_SWITCH_SECONDS = 0.001


class ClientDisconnected(Refusal):
    """Exception: the client has closed the connection, so no answer is computed."""

    def __init__(self) -> None:
        expected = "a client that waits for the answer"
        super().__init__(CLIENT_CLOSED_REQUEST, fault("client", "a closed connection", expected))


class BackPressure:
    """Counts the requests in progress and their bytes, and refuses requests beyond the limits.

    Args:
        limits: the bounds on all requests together.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._small_requests = self._large_cost = self._unread = self._unsent = 0
        self._one_large_request = asyncio.Lock()

    def admit_small(self) -> AbstractAsyncContextManager[None]:
        """Return a context in which one small request runs.

        Raises:
            Refusal: 503, if too many small requests are in progress.
        """
        return _SmallRequest(self)

    def begin_small(self) -> None:
        """Add one to the number of small requests in progress.

        Raises:
            Refusal: 503, if too many small requests are in progress.
        """
        if self._small_requests >= self._limits.small_requests:
            raise self._overloaded(f"{self._small_requests} small requests in progress")
        self._small_requests += 1

    def end_small(self) -> None:
        """Subtract one from the number of small requests in progress."""
        self._small_requests -= 1

    def check_large(self, cost: int) -> None:
        """Refuse a large request that would wait too long for its turn.

        Args:
            cost: cost of the request, in list entries.

        Raises:
            Refusal: 503, if large requests of too high a total cost are in progress.
        """
        if self._large_cost and self._large_cost + cost > self._limits.large_cost:
            got = f"large requests in progress with a cost of {self._large_cost} list entries"
            raise self._overloaded(got)

    @contextlib.asynccontextmanager
    async def admit_large(self, scope: Scope, receive: Receive, cost: int) -> AsyncIterator[None]:
        """Return a context that waits for a large request's turn, and ends the turn at its exit.

        A request with a large body does not wait again: `Guard` gave it a turn before its body was
        parsed.

        Args:
            scope, receive: the ASGI request; its body has been read.
            cost: cost of the request, in list entries.

        Raises:
            Refusal: 503, if large requests of too high a total cost are in progress.
            ClientDisconnected: the client disconnected before the request's turn came.
        """
        if scope.get(HAS_TURN):
            yield
            return
        self.check_large(cost)
        self._large_cost += cost
        try:
            async with self._one_large_request:
                if await Request(scope, receive).is_disconnected():
                    raise ClientDisconnected
                scope[HAS_TURN] = True
                try:
                    with _short_switch_interval():
                        yield
                finally:
                    scope[HAS_TURN] = False
        finally:
            self._large_cost -= cost

    def count_unread(self, n_bytes: int) -> None:
        """Add a number, which may be negative, to the count of bytes of request bodies in transfer.

        Raises:
            Refusal: 503, if too many bytes of bodies are in transfer.
        """
        if n_bytes > 0 and self._unread + n_bytes > self._limits.unread:
            raise self._overloaded(f"{self._unread} bytes of request bodies in transfer")
        self._unread += n_bytes

    @contextlib.contextmanager
    def count_unsent(self, n_bytes: int) -> Iterator[None]:
        """Count the bytes of a long answer while it is being sent within the context.

        Raises:
            Refusal: 503, if clients have too many bytes of answers still to receive.
        """
        if self._unsent and self._unsent + n_bytes > self._limits.unsent:
            raise self._overloaded(f"{self._unsent} bytes of answers in transfer")
        self._unsent += n_bytes
        try:
            yield
        finally:
            self._unsent -= n_bytes

    def _overloaded(self, got: str) -> Refusal:
        return overloaded(got, self._limits.retry_seconds)


class _SmallRequest:
    """Context in which one small request runs.

    A class takes 8 microseconds less than a context made by contextlib from a generator.
    """

    def __init__(self, back_pressure: BackPressure) -> None:
        self._back_pressure = back_pressure

    async def __aenter__(self) -> None:
        self._back_pressure.begin_small()

    async def __aexit__(self, *_: object) -> None:
        self._back_pressure.end_small()


@contextlib.contextmanager
def _short_switch_interval() -> Iterator[None]:
    """Return a context in which Python switches between threads more often, for large requests.

    A small request that runs beside a large one needs two thread switches. The short switch
    interval takes a seventh more processor time, so it is not kept when no large request runs.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def overloaded(got: str, retry_seconds: int) -> Refusal:
    """Return the refusal, 503 with Retry-After, of a request that comes during an overload."""
    expected = f"less work in progress; send the request again in {retry_seconds} s"
    headers = {"retry-after": str(retry_seconds)}
    return Refusal(503, fault("server", got, expected), headers=headers)
