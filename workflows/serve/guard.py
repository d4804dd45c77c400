"""ASGI middleware that checks a request before its body is parsed.

The middleware checks the host, the API key, the content type and the size of a request. A request
with a large body waits for its turn.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection

import anyio
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from workflows.serve import error_responses, pages
from workflows.serve.back_pressure import BackPressure, ClientDisconnected
from workflows.serve.limits import Limits
from workflows.serve.wire import Refusal, fault

#: URL paths that need no API key, because they do not give data of users.
PUBLIC_PATHS = {*pages.PATHS, "/openapi.json", "/health", "/metrics"}
#: Bytes of an oversized body that are read before 413 is sent, as a multiple of the largest body.
#: Clients ignore an answer while they are still sending.
_DRAIN_FACTOR = 16
#: Cost, in list entries, of a byte of a large body: to parse, check and embed 1 MiB takes 0.2 s.
_COST_PER_BYTE = 1 / 50


class Guard:
    """ASGI middleware that passes valid requests on to the app and answers others with an error.

    Args:
        app: the ASGI app that gets the requests that pass.
        key: the key that `Authorization: Bearer` must name; "" if no key is needed.
        hosts: allowed values of the header `Host`, in lower case and without a port; empty if all
            are allowed.
        back_pressure: the object that counts bytes of bodies, and lets large bodies wait for a
            turn.
        limits: the bounds on a request body.
    """

    def __init__(
        self,
        app: ASGIApp,
        key: str,
        hosts: Collection[str],
        back_pressure: BackPressure,
        limits: Limits,
    ) -> None:
        self.app, self.key, self.hosts = app, key.encode(), frozenset(hosts)
        self.back_pressure, self.limits = back_pressure, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a valid request on to the app; answer others with 400, 401, 408, 413, 415 or 503."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            headers = Headers(scope=scope)
            if self.hosts:
                self._check_host(headers)
            if scope["path"] not in PUBLIC_PATHS:
                self._check_key(headers)
            if scope["method"] == "POST":
                _check_content_type(headers)
                await self._pass_with_body(scope, receive, send)
                return
        except Refusal as refusal:
            await error_responses.response(refusal)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    async def _pass_with_body(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read a request's body and pass it to the app; a large body waits for its turn first."""
        declared = _content_length(Headers(scope=scope))
        if self.limits.large_body < declared <= self.limits.body:
            # refuse before the body is read; the server discards the unread rest
            self.back_pressure.check_large(int(declared * _COST_PER_BYTE))
        body = await self._read(receive)
        replay = _replay(body, receive)
        if len(body) <= self.limits.large_body:
            await self.app(scope, replay, send)
            return
        cost = int(len(body) * _COST_PER_BYTE)
        async with self.back_pressure.admit_large(scope, receive, cost):
            self._check_number_of_values(body)
            await self.app(scope, replay, send)

    def _check_host(self, headers: Headers) -> None:
        """Refuse a request whose `Host` is unknown: a foreign web page may have sent it.

        A request without the header `Host` passes: it is not from a browser.
        """
        declared = headers.get("host")
        if declared is not None and host_name(declared) not in self.hosts:
            names = ", ".join(sorted(self.hosts))
            expected = f"one of {names}; or start the server with --allow-host"
            raise Refusal(400, fault("header.host", declared, expected))

    def _check_key(self, headers: Headers) -> None:
        declared = headers.get("authorization", "")
        scheme, _, key = declared.partition(" ")
        is_same = hmac.compare_digest(key.strip(" \t").encode("latin-1"), self.key)
        if self.key and not (scheme.lower() == "bearer" and is_same):
            got = "another value" if declared else "no such header"
            expected = "'Bearer' and the key of the server"
            raise Refusal(401, fault("header.authorization", got, expected))

    async def _read(self, receive: Receive) -> bytes:
        """Return a request's body, read within the bounds on its size and time.

        Raises:
            Refusal: 408, 413, or 503 if too many bytes of bodies are in transfer.
            ClientDisconnected: the client disconnected before the body had arrived.
        """
        body = bytearray()
        try:
            with anyio.fail_after(self.limits.body_seconds):
                n_read = await self._read_into(body, receive)
        except TimeoutError:
            expected = f"the whole body within {self.limits.body_seconds:g} s"
            late = fault("body", f"{len(body)} bytes", expected)
            raise Refusal(408, late, headers={"connection": "close"}) from None
        finally:
            self.back_pressure.count_unread(-len(body))
        if n_read > self.limits.body:
            raise self._too_large(f"{n_read} bytes or more", f"at most {self.limits.body} bytes")
        return bytes(body)

    async def _read_into(self, body: bytearray, receive: Receive) -> int:
        """Read a request's body, keep the bytes that are allowed, and return how many were read."""
        n_read, more, largest = 0, True, self.limits.body
        while more and n_read < _DRAIN_FACTOR * largest:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnected
            piece = message.get("body", b"")
            more = message.get("more_body", False)
            n_read += len(piece)
            if n_read <= largest:
                self.back_pressure.count_unread(len(piece))
                body += piece
        return n_read

    def _check_number_of_values(self, body: bytes) -> None:
        """Refuse a request whose body has too many JSON values, counted by commas and brackets."""
        values = sum(map(body.count, (b",", b"[", b"{")))
        if values > self.limits.values:
            raise self._too_large(
                f"{values} values, counted by commas and brackets",
                f"at most {self.limits.values} values; send several smaller requests",
            )

    def _too_large(self, got: str, expected: str) -> Refusal:
        return Refusal(413, fault("body", got, expected))


def host_name(host: str) -> str:
    """Return the name in a `Host` header: lower case, without the port and the last dot."""
    host = host.strip().lower()
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).removesuffix(".")


def _content_length(headers: Headers) -> int:
    """Return a request body's length by the header `Content-Length`; 0 without the header."""
    declared = headers.get("content-length", "")
    return int(declared) if declared.isdecimal() and len(declared) < 20 else 0


def _check_content_type(headers: Headers) -> None:
    content_type = headers.get("content-type", "")
    is_json = content_type.partition(";")[0].strip().lower() == "application/json"
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    if has_body and not is_json:
        raise Refusal(415, fault("header.content-type", content_type, "application/json"))


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return an ASGI `receive` that gives a request body already read, then later messages."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay
