"""Random malformed requests as bytes, for `torture_http.py`."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

_PATHS = (
    "/recommend/1", "/recommend/", "/similar-items/50", "/history/1", "/health", "/metrics", "/",
    "/openapi.json", "/docs", "/page.js", "/reload", "/embed", "/recommend", "/nowhere",
)  # fmt: skip
_KS = ("0", "-1", "1e9", "1001", "9" * 400, "", "nan", "1.5", "%00", "0x10", "true", "10", "1&k=2")
_OPTIONS = (
    "", "&only=genres=Comedy", "&only=x", "&only==", "&only=%ff", "&deny=50", "&deny=nope",
    "&deny=" + "a" * 2000, "&keep_seen=maybe", "&x=1", "&only=" + "a" * 50_000,
    "&only=genres%3DComedy" * 1100, "&deny=50" * 1100,
)  # fmt: skip
_CHANGES: tuple[Callable[[str], str], ...] = (
    lambda path: path + "%ff%fe",
    lambda path: path + "/" + "a" * 60_000,
    lambda path: path + "%00",
    lambda path: path + "/../../etc/passwd",
    lambda path: path + "%F0%9F%92%A9",
    lambda path: path + "%ED%A0%80",
    lambda path: path.replace("/", "//"),
    lambda path: "http://evil.example" + path,
)
_KINDS = (
    "application/json", "application/json; charset=utf-16", "text/plain", "",
    "multipart/form-data; boundary=x", "APPLICATION/JSON", "application/json\t;x",
)  # fmt: skip
_METHODS = (
    *["GET"] * 6, *["POST"] * 8, "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT",
    "FOO", "get", "G E T", "\x00GET",
)  # fmt: skip
_HEADERS: tuple[tuple[str, ...], ...] = (
    *[()] * 6,
    tuple(f"x-{n}: {n}" for n in range(1000)),
    ("x-big: " + "a" * 70_000,),
    ("authorization: Bearer ééé",),
    ("authorization: \xff\x00",),
    ("host: a", "host: b"),
    ("host: evil.example",),
    ("expect: 100-continue",),
    ("upgrade: websocket", "connection: upgrade", "sec-websocket-key: x"),
    ("upgrade: h2c", "connection: upgrade"),
    ("x: a\r\n b",),
)
_VERSIONS = (*["HTTP/1.1"] * 10, "HTTP/1.0", "HTTP/2.0", "HTTP/9.9", "JUNK", "")


def body_of(value: Any) -> bytes:
    """Return JSON without spaces."""
    return json.dumps(value, separators=(",", ":")).encode()


def malformed(rng: random.Random) -> tuple[str, bytes]:
    """Return a random request: a short description, and its bytes."""
    if rng.random() < 0.03:
        return "junk", rng.randbytes(rng.choice([1, 50, 5000]))
    method, version = rng.choice(_METHODS), rng.choice(_VERSIONS)
    path, headers, body = rng.choice(_PATHS), list(rng.choice(_HEADERS)), b""
    if rng.random() < 0.5:
        path = rng.choice(_CHANGES)(path)
    if rng.random() < 0.6:
        path += f"?k={rng.choice(_KS)}{rng.choice(_OPTIONS)}"
    if method in ("POST", "PUT", "PATCH"):
        path = rng.choice(["/recommend", "/embed", "/reload", "/recommend/1", "/"])
        lengths, body = _framed(rng, _body(rng))
        headers += [f"content-type: {rng.choice(_KINDS)}", *lengths]
    lines = [f"{method} {path} {version}", "host: localhost", *headers, "connection: close"]
    head = "".join(f"{line}\r\n" for line in lines) + "\r\n"
    what = f"{method} {path[:60]} {version} {[h[:40] for h in headers][:3]} body {body[:60]!r}"
    return what, head.encode("latin-1", "replace") + body


def _body(rng: random.Random) -> bytes:
    one_user = b'{"users":[{"id":"1"}]'
    choices: tuple[Callable[[], bytes], ...] = (
        lambda: rng.choice([b"", b"{}", b"null", b"[]", b"{", b"5", one_user + b"}"]),
        lambda: rng.randbytes(100),
        lambda: b'{"users":' + b"[" * rng.choice([10, 1000, 100_000]),
        lambda: b'{"users":[{"id":' + rng.choice(_VALUES) + b"}]}",
        lambda: one_user + b',"k":' + rng.choice(_VALUES) + b"}",
        lambda: one_user + b',"only":[' + rng.choice(_VALUES) + b"]}",
        lambda: one_user + b',"deny":[' + rng.choice(_VALUES) + b"]}",
        lambda: b'{"users":[{"features":{"age":' + rng.choice(_VALUES) + b"}}]}",
        lambda: b'{"users":[{"history_item_id":[' + rng.choice(_VALUES) + b"]}]}",
        lambda: body_of({"users": [{"id": "1"}] * 1001}),
        lambda: body_of({"users": [{"id": "1"}] * 1000, "k": 1000}),
        lambda: body_of({"users": [{f"f{n}": {} for n in range(40)}] * 900}),
        lambda: body_of({f"a{n}": n for n in range(rng.choice([10, 60_000, 100_000]))}),
        lambda: b"\xef\xbb\xbf" + one_user + b"}",
        lambda: (one_user + b"}").decode().encode("utf-16"),
        lambda: b"x" * rng.choice([1 << 20, (1 << 20) + 1]),
    )
    return rng.choice(choices)()


_VALUES = (
    b"1", b"-1", b"1.5", b"1e400", b"NaN", b"true", b"null", b'""', b'"1"', b'"\\ud800"',
    b'"\\u0000"', b"[]", b"{}", b"[[1]]", b"9" * 5000, b'"' + b"a" * 1_000_000 + b'"', b'"x=y"',
    b'"50"', b'{"a":' * 5000 + b"1" + b"}" * 5000,
)  # fmt: skip


def _framed(rng: random.Random, body: bytes) -> tuple[list[str], bytes]:
    """Return headers with the length of a body, which is mostly right, and the bytes to send."""
    right, chunked = [f"content-length: {len(body)}"], ["transfer-encoding: chunked"]
    whole = b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"
    return rng.choice(
        [
            *[(right, body)] * 5,
            (["content-length: -5"], body),
            (["content-length: 99999999999999999999"], body),
            ([*right, f"content-length: {len(body) + 1}"], body),
            (chunked, whole),
            (chunked, b"zz\r\n" + body),
            (["transfer-encoding: gzip, chunked"], b"0\r\n\r\n"),
            ([*right, *chunked], body),
            ([f"content-length: {len(body) + 10}"], body),
            ([*right, "content-encoding: gzip"], body),
        ]
    )
