"""What is checked before a question is parsed: its host, the key, its kind, its size, its turn."""

from __future__ import annotations

import hmac
from collections.abc import Collection

import anyio
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from workflows.serve import faults, web
from workflows.serve.back_pressure import Gone, Turns
from workflows.serve.limits import Limits
from workflows.serve.wire import Refused, fault

#: Paths that need no key: they tell nothing of users.
OPEN = {*web.FILES, "/openapi.json", "/health", "/metrics"}
#: How many times the bytes of the largest body are read and thrown away: who is still sending hears
#: no answer.
_PATIENCE = 16
#: What a byte of a large body costs, in ranks: to parse, check and embed 1 MiB takes 0.2 seconds.
_COST = 1 / 50


class Guard:
    """Lets pass what may be read.

    Args:
        app: behind it.
        key: the key that `Authorization: Bearer` must name; "" for none.
        hosts: names that `Host` may say, in lower case and without a port; none of them for any.
        turns: the turns of large bodies.
        limits: the limits of a body.
    """

    def __init__(
        self, app: ASGIApp, key: str, hosts: Collection[str], turns: Turns, limits: Limits
    ) -> None:
        self.app, self.key, self.hosts = app, key.encode(), frozenset(hosts)
        self.turns, self.limits = turns, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 400, 401, 408, 413, 415 or 503, or hand on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            headers = Headers(scope=scope)
            if self.hosts:
                self._check_host(headers)
            if scope["path"] not in OPEN:
                self._check_key(headers)
            if scope["method"] == "POST":
                _check_kind(headers)
                await self._with_body(scope, receive, send)
                return
        except Refused as refused:
            await faults.response(refused)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    async def _with_body(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body; a large one is parsed only when its turn has come."""
        told = _length(Headers(scope=scope))
        if self.limits.large_body < told <= self.limits.body:
            self.turns.check_big(int(told * _COST))  # the server throws away what is not read
        body = await self._read(receive)
        again = _again(body, receive)
        if len(body) <= self.limits.large_body:
            await self.app(scope, again, send)
            return
        async with self.turns.big(scope, receive, int(len(body) * _COST)):
            self._check_values(body)
            await self.app(scope, again, send)

    def _check_host(self, headers: Headers) -> None:
        """Refuse another name: a page elsewhere may have pointed it at this machine.

        Browsers always send one; what sends none is no browser.
        """
        told = headers.get("host")
        if told is not None and host_of(told) not in self.hosts:
            names = ", ".join(sorted(self.hosts))
            expected = f"one of {names}; or start the server with --allow-host"
            raise Refused(400, fault("header.host", told, expected))

    def _check_key(self, headers: Headers) -> None:
        told = headers.get("authorization", "")
        kind, _, key = told.partition(" ")
        same = hmac.compare_digest(key.strip(" \t").encode("latin-1"), self.key)
        if self.key and not (kind.lower() == "bearer" and same):
            said = "another" if told else "none"
            raise Refused(401, fault("header.authorization", said, "Bearer and the server's key"))

    async def _read(self, receive: Receive) -> bytes:
        """Read a body, but not more than is allowed, and not for longer.

        Raises:
            Refused: 408, 413, or 503 where too many bodies are on their way.
            Gone: the asker has hung up before the body had come.
        """
        body = bytearray()
        try:
            with anyio.fail_after(self.limits.reading_seconds):
                read = await self._read_into(body, receive)
        except TimeoutError:
            expected = f"the whole body within {self.limits.reading_seconds:g} s"
            late = fault("body", f"{len(body)} bytes", expected)
            raise Refused(408, late, headers={"connection": "close"}) from None
        finally:
            self.turns.read(-len(body))
        if read > self.limits.body:
            raise self._too_large(f"{read} bytes or more", f"{self.limits.body} at most")
        return bytes(body)

    async def _read_into(self, body: bytearray, receive: Receive) -> int:
        read, more, largest = 0, True, self.limits.body
        while more and read < _PATIENCE * largest:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Gone
            piece = message.get("body", b"")
            more = message.get("more_body", False)
            read += len(piece)
            if read <= largest:
                self.turns.read(len(piece))
                body += piece
        return read

    def _check_values(self, body: bytes) -> None:
        """Refuse a body of too many values; the commas and brackets of texts count, too."""
        values = sum(map(body.count, (b",", b"[", b"{")))
        if values > self.limits.values:
            raise self._too_large(
                f"{values} values, counted by commas and brackets",
                f"{self.limits.values} at most; ask in several questions",
            )

    def _too_large(self, got: str, expected: str) -> Refused:
        return Refused(413, fault("body", got, expected))


def host_of(told: str) -> str:
    """Return the name of a `Host` header: lower case, without the port or the last dot."""
    name, colon, port = told.strip().lower().rpartition(":")
    whole = name if colon and port.isdigit() else told.strip().lower()
    return whole.removesuffix(".")


def _length(headers: Headers) -> int:
    """Return how long a body says it is; 0 if it does not."""
    told = headers.get("content-length", "")
    return int(told) if told.isdecimal() and len(told) < 20 else 0


def _check_kind(headers: Headers) -> None:
    kind = headers.get("content-type", "")
    is_json = kind.partition(";")[0].strip().lower() == "application/json"
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    if has_body and not is_json:
        raise Refused(415, fault("header.content-type", kind, "application/json"))


def _again(body: bytes, receive: Receive) -> Receive:
    """Return what gives a body that was read; then it waits for the asker to hang up."""
    whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return whole.pop() if whole else await receive()

    return again
