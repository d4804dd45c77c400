"""Answers to large requests: computed and sent in pieces, only while the client is connected.

A piece of an answer is small enough that other requests can run between two pieces. The thread that
computes a piece of an answer also turns it into JSON, because many objects, or one long JSON dump,
would block the event loop.
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

from workflows.serve import error_responses
from workflows.serve.back_pressure import BackPressure, ClientDisconnected
from workflows.serve.limits import MAX_ROWS, Limits
from workflows.serve.loaded_export import LoadedExport
from workflows.serve.wire import Features, Refusal, UserList, UserQuery, fault
from workflows.stages.recommender import ListOptions

#: Runs a function that takes processor time in a thread, and returns its result.
RunInThread = Callable[[Callable[[], Any]], Awaitable[Any]]

_LISTS = TypeAdapter(list[UserList])
_VECTORS = TypeAdapter(list[list[float]])
#: Number of bytes of a long answer that are sent at a time.
_CHUNK = 1 << 18


class AnswerPieces:
    """Computes the pieces of the answer to one large request.

    Args:
        request: the request, whose client must still be connected before each piece is computed.
        run_in_thread: the function that runs another function in a thread.
        limits: the bounds on a piece and on the answer.
    """

    def __init__(self, request: Request, run_in_thread: RunInThread, limits: Limits) -> None:
        self._request, self._run_in_thread, self._limits = request, run_in_thread, limits
        self.answered_by: Counter[str] = Counter()
        self._size = 0

    async def lists(
        self, served: LoadedExport, users: Sequence[UserQuery], options: ListOptions
    ) -> list[bytes]:
        """Return users' lists of recommended items as JSON text without the outer brackets.

        Raises:
            ClientDisconnected: the client has disconnected.
            Refusal: the query tower does not accept a raw value, or the answer is too long.
            DataError: an item filter or an item id does not fit any item.
        """
        features = await self._run(partial(served.raw_values, users))
        size = self._limits.users_at_a_time(options.k)
        texts = []
        for rows in _slices(len(users), size):
            text, answered_by = await self._run(
                partial(_lists_as_json, served, users[rows], options, features, rows)
            )
            texts.append(self._within_limit(text))
            self.answered_by += answered_by
        return texts

    async def vectors(
        self, served: LoadedExport, side: str, rows: Sequence[Features]
    ) -> list[bytes]:
        """Return embeddings of users or items, from raw values, as JSON without outer brackets.

        Raises:
            ClientDisconnected: the client has disconnected.
            Refusal: the tower does not accept a raw value, or the answer is too long.
        """
        texts: list[bytes] = await self._run(partial(_vectors_as_json, served, side, rows))
        return [self._within_limit(text) for text in texts]

    async def _run(self, work: Callable[[], Any]) -> Any:
        if await self._request.is_disconnected():
            raise ClientDisconnected
        return await self._run_in_thread(work)

    def _within_limit(self, text: bytes) -> bytes:
        """Return a piece of an answer, counting its size; refuse an answer that gets too long."""
        self._size += len(text)
        if self._size > self._limits.answer:
            got = f"an answer of more than {self._limits.answer} bytes"
            expected = "a shorter answer; ask for fewer rows or shorter lists"
            raise Refusal(413, fault("body", got, expected))
        return text


def _slices(n_rows: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, n_rows)) for start in range(0, n_rows, size))


def _lists_as_json(
    served: LoadedExport,
    users: Sequence[UserQuery],
    options: ListOptions,
    features: pa.Table | None,
    rows: slice,
) -> tuple[bytes, Counter[str]]:
    """Return users' lists as JSON without outer brackets, and the number of lists by model.

    Args:
        served: the export from which the lists are made.
        users: the users for whom this piece of the answer is computed.
        options: length and item filters of the lists.
        features: raw values of all users of the request, or None.
        rows: which rows of `features` belong to `users`.
    """
    part = None if features is None else features.slice(rows.start, rows.stop - rows.start)
    lists = served.lists(users, options, part)
    return _LISTS.dump_json(lists)[1:-1], Counter(one.answered_by for one in lists)


def _vectors_as_json(served: LoadedExport, side: str, rows: Sequence[Features]) -> list[bytes]:
    """Return embeddings as JSON without outer brackets, in parts, so that other threads can run."""
    vectors = served.embed(side, rows)
    return [_VECTORS.dump_json(vectors[part])[1:-1] for part in _slices(len(vectors), MAX_ROWS)]


class LongResponse(Response):
    """A long JSON response, sent as fast as the client receives it.

    Args:
        parts: the parts of the JSON text.
        back_pressure: the object that counts the bytes that clients have not received yet.
    """

    def __init__(self, parts: Sequence[bytes], back_pressure: BackPressure) -> None:
        self._text, self._back_pressure = b"".join(parts), back_pressure
        self.status_code, self.background, self.body = 200, None, b""
        size = str(len(self._text))
        self.init_headers({"content-type": "application/json", "content-length": size})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the long response, or 503 if too many bytes of answers wait for their clients."""
        try:
            with self._back_pressure.count_unsent(len(self._text)):
                await send(
                    {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
                )
                for start in range(0, len(self._text), _CHUNK):
                    body = self._text[start : start + _CHUNK]
                    more = start + _CHUNK < len(self._text)
                    await send({"type": "http.response.body", "body": body, "more_body": more})
        except Refusal as refusal:
            await error_responses.response(refusal)(scope, receive, send)


def json_list_field(name: str, parts: Sequence[bytes]) -> list[bytes]:
    """Return the parts of a JSON field: its name, and a list of elements given as JSON text."""
    return [b'"%s":[' % name.encode(), b",".join(parts), b"]"]
