"""Requests that share a batch each get their own answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from workflows.ground.errors import DataError
from workflows.serve import batching as module
from workflows.serve import limits
from workflows.serve.back_pressure import ClientDisconnected
from workflows.serve.batching import MicroBatcher
from workflows.serve.wire import UserList, UserQuery
from workflows.stages.recommender import ListOptions


class Echo:
    """Answers with the user's id; the first batches wait until `go_on` is set."""

    def __init__(self, *, held: int = 0) -> None:
        self.batches: list[tuple[list[str], ListOptions]] = []
        self.go_on, self.held = threading.Event(), held

    def lists(self, users: Sequence[UserQuery], options: ListOptions) -> list[UserList]:
        self.batches.append(([str(user.id) for user in users], options))
        if len(self.batches) <= self.held:
            self.go_on.wait(30)
        if options.only:
            raise DataError("no such column")
        return [UserList(user=user.id, answered_by=str(options.k), items=[]) for user in users]


async def ask(batcher: MicroBatcher, echo: Any, *users: str, **options: Any) -> list[str | None]:
    lists = await batcher.lists(
        echo, [UserQuery(id=user) for user in users], ListOptions(**options)
    )
    return [one.user for one in lists]


def busy(echo: Echo, *requests: Any) -> Any:
    """Keep the only worker busy with `first`, send the requests, and return their answers."""

    async def run() -> Any:
        batcher = MicroBatcher(workers=1)
        first = asyncio.create_task(ask(batcher, echo, "first"))
        while not echo.batches:
            await asyncio.sleep(0)
        others = [asyncio.create_task(request(batcher)) for request in requests]
        await asyncio.sleep(0)
        echo.go_on.set()
        answers = await asyncio.gather(*others, return_exceptions=True)
        assert await first == ["first"]
        return answers

    return asyncio.run(run())


def test_waiting_requests_are_answered_in_one_batch_and_get_their_own_lists():
    echo = Echo(held=1)
    answers = busy(
        echo,
        lambda t: ask(t, echo, "a"),
        lambda t: ask(t, echo, "b", "c", "b"),
        lambda t: ask(t, echo, "d"),
    )
    assert answers == [["a"], ["b", "c", "b"], ["d"]]
    assert [users for users, _ in echo.batches] == [["first"], ["a", "b", "c", "b", "d"]]


def test_requests_with_other_options_or_exports_are_not_mixed():
    echo, newer = Echo(held=1), Echo()
    answers = busy(
        echo,
        lambda t: ask(t, echo, "a", k=3),
        lambda t: ask(t, newer, "b", k=3),
        lambda t: ask(t, echo, "c", k=4),
        lambda t: ask(t, echo, "d", k=3),
    )
    assert answers == [["a"], ["b"], ["c"], ["d"]]
    assert [(users, options.k) for users, options in echo.batches[1:]] == [
        (["a", "d"], 3),
        (["c"], 4),
    ]
    assert [users for users, _ in newer.batches] == [["b"]]


def test_an_error_reaches_only_the_requests_that_caused_it():
    echo = Echo(held=1)
    answers = busy(
        echo,
        lambda t: ask(t, echo, "a", only=("x=y",)),
        lambda t: ask(t, echo, "b"),
        lambda t: ask(t, echo, "c", only=("x=y",)),
    )
    assert [type(answer) for answer in answers] == [DataError, list, DataError]
    assert answers[1] == ["b"]


def test_a_batch_has_a_largest_size(monkeypatch):
    monkeypatch.setattr(limits, "MAX_ROWS", 4)
    echo = Echo(held=1)
    users = [str(n) for n in range(10)]
    assert busy(echo, lambda t: ask(t, echo, *users)) == [users]
    assert [len(batch) for batch, _ in echo.batches] == [1, 4, 4, 2]


def test_a_cancelled_request_does_not_stop_the_others():
    echo = Echo(held=1)

    async def run() -> Any:
        batcher = MicroBatcher(workers=1)
        first = asyncio.create_task(ask(batcher, echo, "first"))
        gone = asyncio.create_task(ask(batcher, echo, "gone"))
        stays = asyncio.create_task(ask(batcher, echo, "stays"))
        while not echo.batches:
            await asyncio.sleep(0)
        gone.cancel()
        echo.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await gone
        return await asyncio.gather(first, stays)

    assert asyncio.run(run()) == [["first"], ["stays"]]


def test_free_workers_answer_at_once_and_are_free_again():
    echo = Echo()

    async def run() -> None:
        batcher = MicroBatcher(workers=2)
        for n in range(5):
            assert await ask(batcher, echo, str(n)) == [str(n)]

    asyncio.run(run())
    assert [users for users, _ in echo.batches] == [[str(n)] for n in range(5)]


def test_a_request_of_a_disconnected_client_is_left_out(monkeypatch):
    monkeypatch.setattr(module, "_LONG_WAIT", 0)
    echo = Echo(held=1)

    async def gone() -> bool:
        return True

    async def ask_and_go(batcher: MicroBatcher) -> Any:
        return await batcher.lists(
            echo, [UserQuery(id="a"), UserQuery(id="b")], ListOptions(), gone
        )

    answers = busy(echo, ask_and_go, lambda t: ask(t, echo, "c"), lambda t: ask(t, echo, "d", k=3))
    assert [type(answer) for answer in answers] == [ClientDisconnected, list, list]
    assert [users for users, _ in echo.batches] == [["first"], ["c"], ["d"]]


def test_a_batch_without_connected_clients_is_not_computed(monkeypatch):
    monkeypatch.setattr(module, "_LONG_WAIT", 0)
    echo = Echo(held=1)

    async def gone() -> bool:
        return True

    answers = busy(echo, lambda t: t.lists(echo, [UserQuery(id="a")], ListOptions(k=7), gone))
    assert [type(answer) for answer in answers] == [ClientDisconnected]
    assert len(echo.batches) == 1


def test_long_lists_make_small_batches():
    echo = Echo(held=1)
    users = [str(n) for n in range(5)]
    assert busy(echo, lambda t: ask(t, echo, *users, k=1000)) == [users]
    assert [len(batch) for batch, _ in echo.batches] == [1, 2, 2, 1]
