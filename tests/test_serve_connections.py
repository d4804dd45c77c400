"""Bounds on the number of connections, on their waiting times and on repeated warnings."""

from __future__ import annotations

import logging
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from live import Client, served

from workflows.ground.errors import AddressError
from workflows.serve import connections, listening
from workflows.serve.connections import Connection, Deadlines, RepeatFilter, reserve_files
from workflows.serve.limits import Limits
from workflows.serve.listening import allowed_hosts, bind, is_loopback, warn_if_exposed


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Read a body, then answer with as many bytes as the path says."""
    if scope["type"] != "http":
        return
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        if not message.get("more_body"):
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    size = int(scope["path"].strip("/") or 1)
    await send({"type": "http.response.body", "body": b"x" * size})


@contextmanager
def serving(**limits: Any) -> Iterator[Client]:
    with served(app, Connection, Deadlines(Limits(**limits))) as client:
        yield client


@pytest.fixture(autouse=True)
def many(monkeypatch):
    monkeypatch.setattr(Connection, "max_connections", 100)


def connect(client: Client) -> socket.socket:
    one = socket.create_connection((client.base_url.host, client.base_url.port), 10)
    one.settimeout(10)
    return one


def read_all(one: socket.socket) -> bytes:
    """Return all that comes until the server closes."""
    text = b""
    try:
        while piece := one.recv(1 << 20):
            text += piece
    except ConnectionResetError:
        pass
    return text


def answer_of(one: socket.socket) -> bytes:
    """Return a short answer, which ends with an empty chunk."""
    text = b""
    while not text.endswith(b"\r\n0\r\n\r\n"):
        piece = one.recv(1000)
        assert piece, text
        text += piece
    return text


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nhost: loc"])
def test_half_a_head_is_answered_and_closed(sent):
    with serving(head_seconds=0.2) as client, connect(client) as one:
        one.sendall(sent)
        assert read_all(one).startswith(b"HTTP/1.1 408")
        assert client.get("/").status_code == 200


def test_half_a_body_is_closed(monkeypatch):
    with serving(body_seconds=-4.7) as client, connect(client) as one:
        one.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{")
        assert read_all(one) == b""
        assert client.get("/").status_code == 200


def test_a_client_that_does_not_read_its_answer_is_disconnected():
    with serving(answer_seconds=0.2) as client, connect(client) as one:
        one.sendall(b"GET /50000000 HTTP/1.1\r\nhost: x\r\n\r\n")
        time.sleep(1)
        assert len(read_all(one)) < 50_000_000
        assert (
            len(client.get("/5000000").content) == 5_000_000
        )  # the control: a client that reads gets it all


def test_a_request_in_time_resets_the_deadline():
    with serving(head_seconds=0.6) as client, connect(client) as one:
        for _ in range(4):
            time.sleep(0.3)
            one.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert answer_of(one).startswith(b"HTTP/1.1 200")


def test_the_connection_that_has_been_idle_longest_is_closed_for_a_new_one(monkeypatch):
    monkeypatch.setattr(Connection, "max_connections", 5)
    with serving() as client:
        busy = connect(client)
        idle = [connect(client) for _ in range(3)]
        time.sleep(0.2)
        busy.sendall(
            b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
        )  # it was opened first, but has been idle for a shorter time
        assert answer_of(busy).startswith(b"HTTP/1.1 200")
        more = [connect(client) for _ in range(4)]
        assert client.get("/").status_code == 200
        assert [read_all(one) for one in idle] == [b"", b"", b""]
        for one in (busy, *more[1:]):
            one.setblocking(False)
        with pytest.raises(BlockingIOError):
            more[-1].recv(1)  # still open
        for one in (busy, *idle, *more):
            one.close()


def test_a_body_that_is_not_http_gets_one_answer():
    """The chunks of a body are malformed: uvicorn answers 400 while the app is answering, too."""
    with serving() as client, connect(client) as one:
        one.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n")
        answer = read_all(one)
        assert answer.startswith(b"HTTP/1.1 400")
        assert answer.count(b"HTTP/1.1") == 1
        assert client.get("/").status_code == 200


def test_a_repeated_warning_is_logged_once_in_ten_seconds(caplog, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(connections.time, "monotonic", lambda: clock[0])
    logger, repeat_filter = logging.getLogger("tests.repeats"), RepeatFilter()
    logger.addFilter(repeat_filter)
    with caplog.at_level(logging.INFO, "tests.repeats"):
        for number in range(5):
            logger.warning("no %s", "files")
            logger.info("served %d", number)
        logger.warning("another")
        clock[0] += 11
        logger.warning("no %s", "files")
    logger.removeFilter(repeat_filter)
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert warnings == ["no files", "another", "no files (and 4 times more before)"]
    assert sum(r.levelno == logging.INFO for r in caplog.records) == 5


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "most"),
    [
        (1024, 4096, None, 800),
        (256, 4096, 950, 800),
        (256, 512, 512, 362),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, None, 800),
    ],
)
def test_connections_leave_file_descriptors_for_the_rest(monkeypatch, soft, hard, wanted, most):
    limits_set = []
    monkeypatch.setattr(connections.resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(connections.resource, "setrlimit", lambda _, both: limits_set.append(both))
    assert reserve_files(Limits(connections=800)) == most
    assert limits_set == ([(wanted, hard)] if wanted else [])


# ── where it listens ────────────────────────────────────────────────────────────────────


def test_an_address_that_cannot_be_used_gives_one_paragraph():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AddressError, match=f"listen on 127.0.0.1:{port}.*Another process"):
            bind("127.0.0.1", port)
    with pytest.raises(AddressError, match="no such address"):
        bind("203.0.113.7", 0)
    with pytest.raises(AddressError, match="Check --host and --port"):
        bind("no such host.invalid", 80)


def test_names_of_a_local_server_are_those_of_this_machine():
    local = {"localhost", "127.0.0.1", "[::1]"}
    assert (
        allowed_hosts("127.0.0.1", [])
        == allowed_hosts("localhost", [])
        == allowed_hosts("::1", [])
        == local
    )
    assert allowed_hosts("127.0.0.2", ["Shop.Example "]) == {*local, "127.0.0.2", "shop.example"}
    assert allowed_hosts("0.0.0.0", []) == allowed_hosts("127.0.0.1", ["*"]) == frozenset()
    assert allowed_hosts("0.0.0.0", ["a.example"]) == {"a.example"}


def test_a_server_that_others_can_reach_without_a_key_gives_a_warning(caplog):
    for host, key in (("127.0.0.1", ""), ("localhost", ""), ("0.0.0.0", "k"), ("::1", "")):
        warn_if_exposed(host, key)
    assert not caplog.records
    for host in ("0.0.0.0", "", "192.168.0.1", "::", "shop.example"):
        caplog.clear()
        warn_if_exposed(host, "")
        assert "TWO_TOWER_API_KEY is not set" in caplog.text
    assert is_loopback("127.9.9.9")
    assert listening.host_in_url("::1") == "[::1]"
