"""Questions that wait at the same time are answered in one go: a batch costs little more than one.

Nobody is made to wait for others: whoever comes while a worker is free is answered at once, and
while all are busy the next batch gathers.
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from anyio import to_thread

from workflows.exported import Wish
from workflows.serve.served import Served
from workflows.serve.wire import Asker, UserList

#: Users of a batch; beyond that a batch is no cheaper.
_MOST = 64


@dataclass(eq=False)
class _Waiting:
    """Questions to one export with one wish."""

    served: Served
    wish: Wish
    users: list[Asker] = field(default_factory=list)
    answers: list[asyncio.Future[UserList]] = field(default_factory=list)


class Together:
    """Answers users known by their ids.

    Args:
        workers: how many batches are answered at a time; one a core if not told.
    """

    def __init__(self, workers: int | None = None) -> None:
        self._waiting: OrderedDict[tuple[int, Wish], _Waiting] = OrderedDict()
        self._free = workers or os.cpu_count() or 1
        self._workers: set[asyncio.Task[None]] = set()

    async def lists(self, served: Served, users: Sequence[Asker], wish: Wish) -> list[UserList]:
        """Return a list for each user, in their order.

        Raises:
            DataError: a rule or an id that fits no item.
        """
        place = self._waiting.setdefault((id(served), wish), _Waiting(served, wish))
        answers = [asyncio.get_running_loop().create_future() for _ in users]
        place.users += users
        place.answers += answers
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
        """Take the questions that have waited longest, but no more than make a batch."""
        key, place = self._waiting.popitem(last=False)
        batch = _Waiting(place.served, place.wish, place.users[:_MOST], place.answers[:_MOST])
        if len(place.users) > _MOST:
            rest = _Waiting(place.served, place.wish, place.users[_MOST:], place.answers[_MOST:])
            self._waiting[key] = rest
        return batch

    async def _answer(self, batch: _Waiting) -> None:
        try:
            lists = await to_thread.run_sync(batch.served.lists, batch.users, batch.wish)
        except Exception as error:
            for answer in batch.answers:
                if not answer.done():
                    answer.set_exception(error)
            return
        for answer, one in zip(batch.answers, lists, strict=True):
            if not answer.done():  # who has gone away has cancelled it
                answer.set_result(one)
