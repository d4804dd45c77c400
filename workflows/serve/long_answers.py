"""Answers to big questions: made and written piece by piece, and only while somebody waits.

A piece is small enough that other questions get their turn between two of them, and its lists are
turned into bytes in the thread that made them: neither many objects nor one long `dumps` is left to
the event loop.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from workflows.serve import faults
from workflows.serve.back_pressure import Gone, Turns
from workflows.serve.limits import Limits
from workflows.serve.served import Served
from workflows.serve.wire import Asker, Features, Refused, UserList, fault
from workflows.stages.export import Wish

#: Runs what takes processor time in a thread.
Work = Callable[[Callable[[], Any]], Awaitable[Any]]

_LISTS = TypeAdapter(list[UserList])
_VECTORS = TypeAdapter(list[list[float]])
#: Users or rows of a piece; beyond that a batch is no cheaper.
_MOST = 64
#: Bytes that are sent at a time.
_SENT = 1 << 18


def cost_of_lists(served: Served, n_users: int, wish: Wish) -> int:
    """Return what lists cost, in ranks."""
    # of a catalogue of a million, a user's scores take 2 ms, a rule 20 ms: 200 and 2,000 ranks
    items = served.health.items
    return n_users * wish.k + n_users * items // 5000 + len(wish.only) * items // 500


def cost_of_rows(n_rows: int) -> int:
    """Return what embedding rows of raw values costs, in ranks."""
    return n_rows * 10  # measured: 0.1 ms a row, of which most is TensorFlow's


def check_lists(served: Served, n_users: int, wish: Wish, limits: Limits) -> None:
    """Refuse a question that would take too long by itself.

    Raises:
        Refused: 413.
    """
    if n_users * wish.k > limits.ranks:
        expected = f"users x k of at most {limits.ranks}; ask for fewer users or shorter lists"
        raise Refused(413, fault("body.users", f"{n_users} users x k {wish.k}", expected))
    most = max(1, limits.scores // max(1, served.health.items))
    if n_users > most:
        expected = f"at most {most} users, because the catalogue has {served.health.items} items"
        raise Refused(413, fault("body.users", f"{n_users} users", expected))


def check_rows(users: Sequence[Features], items: Sequence[Features], dim: int, most: int) -> None:
    """Refuse rows whose embeddings would make too long an answer.

    Raises:
        Refused: 413.
    """
    if (len(users) + len(items)) * dim > most:
        expected = f"at most {max(1, most // dim)} rows of embeddings with {dim} numbers"
        raise Refused(413, fault("body", f"{len(users) + len(items)} rows", expected))


class Pieces:
    """Makes the pieces of one answer.

    Args:
        request: to be answered; between two pieces it is asked whether anybody waits.
        work: runs what takes processor time in a thread.
        limits: the limits of a piece and of the answer.
    """

    def __init__(self, request: Request, work: Work, limits: Limits) -> None:
        self._request, self._work, self._limits = request, work, limits
        self.answered_by: Counter[str] = Counter()
        self._size = 0

    async def lists(self, served: Served, users: Sequence[Asker], wish: Wish) -> list[bytes]:
        """Return the lists of users who are known by id or told by raw values, as JSON.

        Raises:
            Gone: nobody waits any more.
            Refused: for raw values that the query tower does not take, or too long an answer.
            DataError: a rule or an id that fits no item.
        """
        told = await self._run(partial(served.told_of, users))
        most = min(_MOST, max(1, self._limits.piece // wish.k))
        texts = []
        for rows in _parts(len(users), most):
            text, by = await self._run(partial(_lists, served, users[rows], wish, told, rows))
            texts.append(self._counted(text))
            self.answered_by += by
        return texts

    async def vectors(self, served: Served, side: str, rows: Sequence[Features]) -> list[bytes]:
        """Return the embeddings of rows of raw values, as JSON.

        Raises:
            Gone: nobody waits any more.
            Refused: for raw values that the tower does not take, or too long an answer.
        """
        texts: list[bytes] = await self._run(partial(_vectors, served, side, rows))
        return [self._counted(text) for text in texts]

    async def _run(self, work: Callable[[], Any]) -> Any:
        if await self._request.is_disconnected():
            raise Gone
        return await self._work(work)

    def _counted(self, text: bytes) -> bytes:
        self._size += len(text)
        if self._size > self._limits.answer:
            got = f"an answer of more than {self._limits.answer} bytes"
            expected = "a shorter one; ask for fewer rows or shorter lists"
            raise Refused(413, fault("body", got, expected))
        return text


def _parts(n_rows: int, most: int) -> Iterator[slice]:
    return (slice(at, min(at + most, n_rows)) for at in range(0, n_rows, most))


def _lists(
    served: Served, users: Sequence[Asker], wish: Wish, told: pa.Table | None, rows: slice
) -> tuple[bytes, Counter[str]]:
    """Return the lists of some users as JSON without brackets, and how many who answered."""
    part = None if told is None else told.slice(rows.start, rows.stop - rows.start)
    lists = served.lists(users, wish, part)
    return _LISTS.dump_json(lists)[1:-1], Counter(one.answered_by for one in lists)


def _vectors(served: Served, side: str, rows: Sequence[Features]) -> list[bytes]:
    """Return embeddings as JSON without brackets, in parts: `dumps` lets no other thread in."""
    vectors = served.embed(side, rows)
    return [_VECTORS.dump_json(vectors[some])[1:-1] for some in _parts(len(vectors), _MOST)]


class Long(Response):
    """A long answer of JSON, sent as fast as it is taken.

    Args:
        parts: the parts of its text.
        turns: count what is not taken yet.
    """

    def __init__(self, parts: Sequence[bytes], turns: Turns) -> None:
        self._text, self._turns = b"".join(parts), turns
        self.status_code, self.background, self.body = 200, None, b""
        size = str(len(self._text))
        self.init_headers({"content-type": "application/json", "content-length": size})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, or say that too much has not been taken."""
        try:
            with self._turns.sending(len(self._text)):
                await send(
                    {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
                )
                for at in range(0, len(self._text), _SENT):
                    body = self._text[at : at + _SENT]
                    more = at + _SENT < len(self._text)
                    await send({"type": "http.response.body", "body": body, "more_body": more})
        except Refused as refused:
            await faults.response(refused)(scope, receive, send)


def listed(name: str, parts: Sequence[bytes]) -> list[bytes]:
    """Return a field of a JSON object whose value is a list of these parts."""
    return [b'"%s":[' % name.encode(), b",".join(parts), b"]"]
