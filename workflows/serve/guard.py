"""What is checked before a question is read: its size, its kind, and the key."""

from __future__ import annotations

import hmac

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from workflows.serve import faults, web
from workflows.serve.wire import MAX_BODY, Refused, fault

#: Paths that need no key: they tell nothing of users.
OPEN = {*web.FILES, "/openapi.json", "/health", "/metrics"}
#: Bytes of too large a body that are read and thrown away: who is still sending hears no answer.
_PATIENCE = 16 * MAX_BODY


class Guard:
    """Lets pass what may be read.

    Args:
        app: behind it.
        key: that `Authorization: Bearer` must name; "" for none.
    """

    def __init__(self, app: ASGIApp, key: str) -> None:
        self.app, self.key = app, key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401, 413 or 415, or hand on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            headers = Headers(scope=scope)
            if scope["path"] not in OPEN:
                self._check_key(headers)
            if scope["method"] == "POST":
                _check_kind(headers)
                receive = await _read(receive)
        except Refused as refused:
            await faults.response(refused)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _check_key(self, headers: Headers) -> None:
        told = headers.get("authorization", "")
        kind, _, key = told.partition(" ")
        same = hmac.compare_digest(key.strip(" \t").encode("latin-1"), self.key)
        if self.key and not (kind.lower() == "bearer" and same):
            said = "another" if told else "none"
            raise Refused(401, fault("header.authorization", said, "Bearer and the server's key"))


def _check_kind(headers: Headers) -> None:
    kind = headers.get("content-type", "")
    is_json = kind.partition(";")[0].strip().lower() == "application/json"
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    if has_body and not is_json:
        raise Refused(415, fault("header.content-type", kind, "application/json"))


async def _read(receive: Receive) -> Receive:
    """Read a body, but not more than is allowed; return what gives it again."""
    body, read, more = bytearray(), 0, True
    while more and read < _PATIENCE:
        message = await receive()
        piece = message.get("body", b"")
        more = message.get("more_body", False)
        read += len(piece)
        if read <= MAX_BODY:
            body += piece
    if read > MAX_BODY:
        raise Refused(413, fault("body", f"{read} bytes or more", f"{MAX_BODY} at most"))
    whole: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

    async def again() -> Message:
        return whole.pop() if whole else await receive()

    return again
