"""Micro-batching: requests that wait at the same time are answered as one batch.

A batch takes little more time than a single user. No request waits for a batch to fill: if a worker
is free, a request is answered at once; while all workers are busy, the waiting requests form the
next batches. A request whose client has disconnected meanwhile is left out of its batch.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from anyio import to_thread

from workflows.serve.back_pressure import ClientDisconnected
from workflows.serve.limits import LIMITS, Limits
from workflows.serve.loaded_export import LoadedExport
from workflows.serve.wire import UserList, UserQuery
from workflows.stages.recommender import ListOptions

#: Seconds that a request waits before the server checks that its client is still connected.
_LONG_WAIT = 0.05


async def _never() -> bool:
    return False


@dataclass(frozen=True, eq=False)
class _Request:
    """A request that waits for its users' lists of recommended items.

    Attributes:
        arrived: when the request arrived, in seconds of the monotonic clock.
        is_disconnected: the function that returns whether the request's client has disconnected.
    """

    arrived: float
    is_disconnected: Callable[[], Awaitable[bool]]


@dataclass(frozen=True, eq=False)
class _PendingUser:
    """A user of a waiting request, and the future that will hold the user's list."""

    request: _Request
    user: UserQuery
    answer: asyncio.Future[UserList]


@dataclass(eq=False)
class _Batch:
    """Users, from one or more requests, who need lists from one export with the same options."""

    served: LoadedExport
    options: ListOptions
    pending: list[_PendingUser] = field(default_factory=list)


class MicroBatcher:
    """Makes the recommendation lists of users given by id, in batches across requests.

    Args:
        limits: the limits of the server, among them the size of a batch.
        workers: number of batches that are answered concurrently; by default the number of cores.
    """

    def __init__(self, limits: Limits = LIMITS, workers: int | None = None) -> None:
        self._limits = limits
        self._waiting: OrderedDict[tuple[int, ListOptions], _Batch] = OrderedDict()
        self._free_workers = workers or os.cpu_count() or 1
        self._workers: set[asyncio.Task[None]] = set()

    async def lists(
        self,
        served: LoadedExport,
        users: Sequence[UserQuery],
        options: ListOptions,
        is_disconnected: Callable[[], Awaitable[bool]] = _never,
    ) -> list[UserList]:
        """Return a list of recommended items for each user, in the order of the users.

        Args:
            served: the export from which the lists are made.
            users: users known by their ids.
            options: length and item filters of the lists.
            is_disconnected: the function that returns whether the client has disconnected.

        Raises:
            DataError: an item filter or an item id does not fit any item.
            ClientDisconnected: the client has disconnected.
        """
        batch = self._waiting.setdefault((id(served), options), _Batch(served, options))
        loop = asyncio.get_running_loop()
        request = _Request(time.monotonic(), is_disconnected)
        answers = [loop.create_future() for _ in users]
        batch.pending += (
            _PendingUser(request, user, answer) for user, answer in zip(users, answers, strict=True)
        )
        if self._free_workers:
            self._free_workers -= 1
            worker = asyncio.create_task(self._work())
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)
        return await asyncio.gather(*answers)

    async def _work(self) -> None:
        """Make the lists of one batch of users after the other until no user waits."""
        try:
            while self._waiting:
                await self._answer(self._pop_batch())
        finally:
            self._free_workers += 1

    def _pop_batch(self) -> _Batch:
        """Take from the queue the users that have waited longest, as many as a batch may have."""
        key, batch = self._waiting.popitem(last=False)
        size = self._limits.users_at_a_time(batch.options.k)
        if len(batch.pending) > size:
            self._waiting[key] = _Batch(batch.served, batch.options, batch.pending[size:])
        return _Batch(batch.served, batch.options, batch.pending[:size])

    async def _answer(self, batch: _Batch) -> None:
        await _drop_disconnected(batch.pending)
        # a cancelled request, or one whose client has disconnected, has its answer already
        pending = [one for one in batch.pending if not one.answer.done()]
        if not pending:
            return
        try:
            users = [one.user for one in pending]
            lists = await to_thread.run_sync(batch.served.lists, users, batch.options)
        except Exception as error:
            for one in pending:
                if not one.answer.done():
                    one.answer.set_exception(error)
            return
        for one, answer in zip(pending, lists, strict=True):
            if not one.answer.done():
                one.answer.set_result(answer)


async def _drop_disconnected(pending: Sequence[_PendingUser]) -> None:
    """End the requests that have waited long and whose clients have disconnected."""
    latest = time.monotonic() - _LONG_WAIT
    if pending[0].request.arrived >= latest:  # the first has waited longest
        return
    for request in {one.request for one in pending if one.request.arrived < latest}:
        if await request.is_disconnected():
            for one in pending:
                if one.request is request and not one.answer.done():
                    one.answer.set_exception(ClientDisconnected())
