"""Questions that wait together: each gets its own answer, whoever shares its batch."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from workflows.ground.errors import DataError
from workflows.serve import batching as module
from workflows.serve.back_pressure import Gone
from workflows.serve.batching import Together
from workflows.serve.wire import Asker, UserList
from workflows.stages.export import Wish


class Echo:
    """Answers with the user's id; the first batches wait until they are let go."""

    def __init__(self, *, held: int = 0) -> None:
        self.batches: list[tuple[list[str], Wish]] = []
        self.go_on, self.held = threading.Event(), held

    def lists(self, users: Sequence[Asker], wish: Wish) -> list[UserList]:
        self.batches.append(([str(user.id) for user in users], wish))
        if len(self.batches) <= self.held:
            self.go_on.wait(30)
        if wish.only:
            raise DataError("no such column")
        return [UserList(user=user.id, answered_by=str(wish.k), items=[]) for user in users]


async def ask(together: Together, echo: Any, *users: str, **wish: Any) -> list[str | None]:
    lists = await together.lists(echo, [Asker(id=user) for user in users], Wish(**wish))
    return [one.user for one in lists]


def busy(echo: Echo, *questions: Any) -> Any:
    """Ask `first` of a single worker, then all questions while it is busy; return the answers."""

    async def run() -> Any:
        together = Together(workers=1)
        first = asyncio.create_task(ask(together, echo, "first"))
        while not echo.batches:
            await asyncio.sleep(0)
        others = [asyncio.create_task(question(together)) for question in questions]
        await asyncio.sleep(0)
        echo.go_on.set()
        answers = await asyncio.gather(*others, return_exceptions=True)
        assert await first == ["first"]
        return answers

    return asyncio.run(run())


def test_who_waits_is_answered_in_one_batch_and_gets_his_own():
    echo = Echo(held=1)
    answers = busy(
        echo,
        lambda t: ask(t, echo, "a"),
        lambda t: ask(t, echo, "b", "c", "b"),
        lambda t: ask(t, echo, "d"),
    )
    assert answers == [["a"], ["b", "c", "b"], ["d"]]
    assert [users for users, _ in echo.batches] == [["first"], ["a", "b", "c", "b", "d"]]


def test_wishes_and_exports_are_not_mixed():
    echo, newer = Echo(held=1), Echo()
    answers = busy(
        echo,
        lambda t: ask(t, echo, "a", k=3),
        lambda t: ask(t, newer, "b", k=3),
        lambda t: ask(t, echo, "c", k=4),
        lambda t: ask(t, echo, "d", k=3),
    )
    assert answers == [["a"], ["b"], ["c"], ["d"]]
    assert [(users, wish.k) for users, wish in echo.batches[1:]] == [(["a", "d"], 3), (["c"], 4)]
    assert [users for users, _ in newer.batches] == [["b"]]


def test_an_error_reaches_those_who_asked_for_it_and_nobody_else():
    echo = Echo(held=1)
    answers = busy(
        echo,
        lambda t: ask(t, echo, "a", only=("x=y",)),
        lambda t: ask(t, echo, "b"),
        lambda t: ask(t, echo, "c", only=("x=y",)),
    )
    assert [type(answer) for answer in answers] == [DataError, list, DataError]
    assert answers[1] == ["b"]


def test_a_batch_does_not_grow_beyond_measure(monkeypatch):
    monkeypatch.setattr(module, "_MOST", 4)
    echo = Echo(held=1)
    users = [str(n) for n in range(10)]
    assert busy(echo, lambda t: ask(t, echo, *users)) == [users]
    assert [len(batch) for batch, _ in echo.batches] == [1, 4, 4, 2]


def test_who_has_gone_away_stops_nobody():
    echo = Echo(held=1)

    async def run() -> Any:
        together = Together(workers=1)
        first = asyncio.create_task(ask(together, echo, "first"))
        gone = asyncio.create_task(ask(together, echo, "gone"))
        stays = asyncio.create_task(ask(together, echo, "stays"))
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
        together = Together(workers=2)
        for n in range(5):
            assert await ask(together, echo, str(n)) == [str(n)]

    asyncio.run(run())
    assert [users for users, _ in echo.batches] == [[str(n)] for n in range(5)]


def test_who_has_hung_up_while_waiting_is_left_out(monkeypatch):
    monkeypatch.setattr(module, "_LONG", 0)
    echo = Echo(held=1)

    async def gone() -> bool:
        return True

    async def ask_and_go(together: Together) -> Any:
        return await together.lists(echo, [Asker(id="a"), Asker(id="b")], Wish(), gone)

    answers = busy(echo, ask_and_go, lambda t: ask(t, echo, "c"), lambda t: ask(t, echo, "d", k=3))
    assert [type(answer) for answer in answers] == [Gone, list, list]
    assert [users for users, _ in echo.batches] == [["first"], ["c"], ["d"]]


def test_a_batch_of_nobody_is_not_begun(monkeypatch):
    monkeypatch.setattr(module, "_LONG", 0)
    echo = Echo(held=1)

    async def gone() -> bool:
        return True

    answers = busy(echo, lambda t: t.lists(echo, [Asker(id="a")], Wish(k=7), gone))
    assert [type(answer) for answer in answers] == [Gone]
    assert len(echo.batches) == 1


def test_long_lists_make_small_batches():
    echo = Echo(held=1)
    users = [str(n) for n in range(5)]
    assert busy(echo, lambda t: ask(t, echo, *users, k=1000)) == [users]
    assert [len(batch) for batch, _ in echo.batches] == [1, 2, 2, 1]
