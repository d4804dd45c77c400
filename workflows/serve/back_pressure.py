"""Back pressure: small questions run side by side, big ones in turn, each up to a limit.

Without a bound of what is in progress, questions that nobody waits for any more keep the server
busy for minutes. A question beyond the limit is refused at once, and told when to ask again.
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
from workflows.serve.wire import Refused, fault

#: Where a request keeps that it has a turn among the big ones.
HAS_TURN = "two_tower.has_turn"
#: What nginx calls a request whose asker went away; nobody hears it, the figures count it.
GONE = 499
#: Seconds after which a thread that computes lets another one in; Python's own are 5 ms.
_TURN = 0.001


class Gone(Refused):
    """The asker has hung up: there is nobody to answer."""

    def __init__(self) -> None:
        super().__init__(GONE, fault("client", "gone", "somebody who waits"))


class Turns:
    """Counts what is in progress, and refuses what is too much.

    Args:
        limits: what is too much.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._small = self._big = self._reading = self._sending = 0
        self._one_at_a_time = asyncio.Lock()

    def small(self) -> AbstractAsyncContextManager[None]:
        """Answer a small question meanwhile.

        Raises:
            Refused: 503, when too many are in progress.
        """
        return _Small(self)

    def begin_small(self) -> None:
        """Count a small question.

        Raises:
            Refused: 503, when too many are in progress.
        """
        if self._small >= self._limits.questions:
            raise self._busy(f"{self._small} questions in progress")
        self._small += 1

    def end_small(self) -> None:
        """Count a small question no more."""
        self._small -= 1

    def check_big(self, cost: int) -> None:
        """Refuse a big question that would wait too long.

        Raises:
            Refused: 503, when too much waits.
        """
        if self._big and self._big + cost > self._limits.waiting:
            raise self._busy(f"big questions in progress that cost {self._big} ranks")

    @contextlib.asynccontextmanager
    async def big(self, scope: Scope, receive: Receive, cost: int) -> AsyncIterator[None]:
        """Wait for a turn among the big questions, and answer one meanwhile.

        A request that has its turn already goes on: a large body got it before it was parsed.

        Args:
            scope, receive: the request, whose body has been read.
            cost: in ranks.

        Raises:
            Refused: 503, when too much waits.
            Gone: the asker has hung up before its turn came.
        """
        if scope.get(HAS_TURN):
            yield
            return
        self.check_big(cost)
        self._big += cost
        try:
            async with self._one_at_a_time:
                if await Request(scope, receive).is_disconnected():
                    raise Gone
                scope[HAS_TURN] = True
                try:
                    with _quick_turns():
                        yield
                finally:
                    scope[HAS_TURN] = False
        finally:
            self._big -= cost

    def read(self, more: int) -> None:
        """Count bytes of bodies that have come, or with a minus, that are parsed or thrown away.

        Raises:
            Refused: 503, when too many bodies are on their way.
        """
        if more > 0 and self._reading + more > self._limits.reading:
            raise self._busy(f"{self._reading} bytes of bodies on their way")
        self._reading += more

    @contextlib.contextmanager
    def sending(self, size: int) -> Iterator[None]:
        """Send a long answer meanwhile.

        Raises:
            Refused: 503, when too much has not been taken by those who asked for it.
        """
        if self._sending and self._sending + size > self._limits.sending:
            raise self._busy(f"{self._sending} bytes of answers that are not taken yet")
        self._sending += size
        try:
            yield
        finally:
            self._sending -= size

    def _busy(self, got: str) -> Refused:
        return busy(got, self._limits.retry)


class _Small:
    """A small question; a class, because contextlib's generators take 8 microseconds more."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns

    async def __aenter__(self) -> None:
        self._turns.begin_small()

    async def __aexit__(self, *_: object) -> None:
        self._turns.end_small()


@contextlib.contextmanager
def _quick_turns() -> Iterator[None]:
    """Let threads change more often: a small question changes threads twice while a big one runs.

    Only meanwhile, because it costs a seventh more of the processor.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(_TURN)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def busy(got: str, retry: int) -> Refused:
    """Return what a question hears that comes while the server has too much to do."""
    expected = f"less; ask again in {retry} s"
    return Refused(503, fault("server", got, expected), headers={"retry-after": str(retry)})
