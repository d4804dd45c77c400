"""Questions that wait at the same time are answered in one go: a batch costs little more than one.

Nobody is made to wait for others: whoever comes while a worker is free is answered at once, and
while all are busy the next batch gathers. Who has hung up meanwhile is left out of it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from anyio import to_thread

from workflows.serve.back_pressure import Gone
from workflows.serve.limits import LIMITS
from workflows.serve.served import Served
from workflows.serve.wire import Asker, UserList
from workflows.stages.export import Wish

#: Users of a batch; beyond that a batch is no cheaper.
_MOST = 64
#: Seconds of waiting after which it is worth a look whether the asker is still there.
_LONG = 0.05


async def _stays() -> bool:
    return False


@dataclass(frozen=True, eq=False)
class _Question:
    """What its users wait for together.

    Attributes:
        since: when it came.
        gone: says whether its asker has hung up.
    """

    since: float
    gone: Callable[[], Awaitable[bool]]


@dataclass(frozen=True, eq=False)
class _One:
    """A user of a question, and the list that is awaited."""

    question: _Question
    user: Asker
    answer: asyncio.Future[UserList]


@dataclass(eq=False)
class _Waiting:
    """Users of questions to one export with one wish."""

    served: Served
    wish: Wish
    ones: list[_One] = field(default_factory=list)


class Together:
    """Answers users known by their ids.

    Args:
        workers: how many batches are answered at a time; one a core if not told.
    """

    def __init__(self, workers: int | None = None) -> None:
        self._waiting: OrderedDict[tuple[int, Wish], _Waiting] = OrderedDict()
        self._free = workers or os.cpu_count() or 1
        self._workers: set[asyncio.Task[None]] = set()

    async def lists(
        self,
        served: Served,
        users: Sequence[Asker],
        wish: Wish,
        gone: Callable[[], Awaitable[bool]] = _stays,
    ) -> list[UserList]:
        """Return a list for each user, in their order.

        Args:
            served: the export that answers.
            users: known by their ids.
            wish: what their lists may hold.
            gone: says whether nobody waits for the answer any more.

        Raises:
            DataError: a rule or an id that fits no item.
            Gone: nobody waits any more.
        """
        place = self._waiting.setdefault((id(served), wish), _Waiting(served, wish))
        loop = asyncio.get_running_loop()
        question = _Question(time.monotonic(), gone)
        answers = [loop.create_future() for _ in users]
        place.ones += (_One(question, u, a) for u, a in zip(users, answers, strict=True))
        if self._free:
            self._free -= 1
            worker = asyncio.create_task(self._work())
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)
        return await asyncio.gather(*answers)

    async def _work(self) -> None:
        """Answer batch after batch until nobody waits."""
        try:
            while self._waiting:
                await self._answer(self._next())
        finally:
            self._free += 1

    def _next(self) -> _Waiting:
        """Take the users that have waited longest, but no more than make a batch."""
        key, place = self._waiting.popitem(last=False)
        most = max(1, min(_MOST, LIMITS.piece // place.wish.k))
        batch = _Waiting(place.served, place.wish, place.ones[:most])
        if len(place.ones) > most:
            self._waiting[key] = _Waiting(place.served, place.wish, place.ones[most:])
        return batch

    async def _answer(self, batch: _Waiting) -> None:
        await _drop_gone(batch.ones)
        # who has gone away has cancelled the answer, or has heard that nobody waits
        ones = [one for one in batch.ones if not one.answer.done()]
        if not ones:
            return
        try:
            users = [one.user for one in ones]
            lists = await to_thread.run_sync(batch.served.lists, users, batch.wish)
        except Exception as error:
            for one in ones:
                if not one.answer.done():
                    one.answer.set_exception(error)
            return
        for one, answer in zip(ones, lists, strict=True):
            if not one.answer.done():
                one.answer.set_result(answer)


async def _drop_gone(ones: Sequence[_One]) -> None:
    """End the questions of those who have hung up while they waited."""
    late = time.monotonic() - _LONG
    if ones[0].question.since >= late:  # the first has waited longest
        return
    for question in {one.question for one in ones if one.question.since < late}:
        if await question.gone():
            for one in ones:
                if one.question is question and not one.answer.done():
                    one.answer.set_exception(Gone())
