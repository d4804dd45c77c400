"""Requests beyond the limits are refused, and no work is done for clients that disconnected."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from live import Client, served
from test_serve import JSON_TYPE, STAGES, current, names
from tiny_run import Run, Tiny

from workflows.serve.app import build
from workflows.serve.back_pressure import BackPressure
from workflows.serve.current_export import CurrentExport
from workflows.serve.limits import Limits
from workflows.serve.listening import allowed_hosts
from workflows.serve.loaded_export import LoadedExport
from workflows.serve.wire import MAX_FAULTS_COUNTED, Refusal

MAX_LEN = 4  # of a history: tiny_run's recipe


@pytest.fixture(scope="module")
def run(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return tiny.exported.branch(tmp_path_factory.mktemp("limits") / "run", stages=STAGES)


@pytest.fixture(scope="module")
def serving(run: Run) -> CurrentExport:
    return current(run)


@contextlib.contextmanager
def limited(serving: CurrentExport, **limits: Any) -> Iterator[Client]:
    with served(build(serving, limits=Limits(**limits))) as client:
        yield client


def users(n: int) -> list[dict[str, str]]:
    return [{"id": "u6"} for _ in range(n)]


# ── a request that is too large by itself ───────────────────────────────────────────────


@pytest.mark.parametrize(
    ("limits", "path", "body", "field", "right"),
    [
        ({"entries": 20}, "/recommend", {"users": users(3), "k": 7}, "body.users", {"k": 6}),
        ({"scores": 45}, "/recommend", {"users": users(4)}, "body.users", {"users": users(3)}),
        ({"numbers": 20}, "/embed", {"users": [{}], "items": [{}] * 2}, "body", {"items": [{}]}),
        ({"answer": 300}, "/recommend", {"users": users(60), "k": 9}, "body", {"users": users(1)}),
        (
            {"values": 30, "large_body": 1},
            "/recommend",
            {"users": users(9), "deny": ["001"] * 22},
            "body",
            {"deny": ["001"] * 5},
        ),
    ],
)
def test_a_product_of_two_fields_is_bounded(serving, limits, path, body, field, right):
    with limited(serving, **limits) as client:
        answer = client.post(path, json=body)
        assert (answer.status_code, names(answer)) == (413, [field])
        assert client.post(path, json={**body, **right}).status_code == 200


def test_two_fields_at_their_bounds_are_refused_together(serving):
    """These requests kept the server busy for minutes before products were bounded."""
    with limited(serving) as client:
        answer = client.post("/recommend", json={"users": users(1000), "k": 1000})
        assert (answer.status_code, names(answer)) == (413, ["body.users"])
        assert "users x k of at most 50000" in answer.text
        long = {"users": [{"history_item_id": ["1"] * 190_000}]}
        assert client.post("/embed", json=long).status_code == 413
        assert client.get("/recommend/u6", params={"only": ["genres=a"] * 21}).status_code == 422
        assert client.get("/history/u6?k=1001").status_code == 422


def test_a_long_history_is_cut_as_the_tower_was_trained(run, serving):
    """A history of 1,000 events among empty ones: only its last events are read."""
    events = ["001", "003"] * 500
    rows = [{"history_item_id": events}, *[{}] * 50, {"history_item_id": events[-MAX_LEN:]}]
    with limited(serving) as client:
        vectors = client.post("/embed", json={"users": rows}).json()["users"]
        users_of_rows = [{"features": row} for row in (rows[0], rows[-1])]
        lists = client.post("/recommend", json={"users": users_of_rows, "k": 3}).json()["lists"]
        other = client.post("/embed", json={"users": [{"history_item_id": events[:3]}]}).json()
    np.testing.assert_allclose(vectors[0], vectors[-1], atol=1e-6)
    assert not np.allclose(vectors[0], other["users"][0], atol=1e-4)  # the control
    assert lists[0]["items"] == lists[1]["items"]


def test_large_requests_get_the_same_answers_as_small_ones(serving):
    features = {"age": 31, "history_item_id": ["003", "001"]}
    four_users = [
        {"id": "u6"},
        {"id": "unknown"},
        {"features": features},
        {"id": "u7", "features": features},
    ]
    body = {"users": four_users * 3, "k": 5, "only": ["genres=a"]}
    rows = {"users": [features, {}] * 70, "items": [{}, {"price": 3.5}]}
    with limited(serving) as client:
        lists = client.post("/recommend", json=body).json()
        vectors = client.post("/embed", json=rows).json()
    with limited(serving, small=0, piece=10, large_body=1) as client:
        pieces = client.post("/recommend", json=body)
        assert pieces.json()["export"] == lists["export"]
        for one, other in zip(pieces.json()["lists"], lists["lists"], strict=True):
            assert [i["item"] for i in one["items"]] == [i["item"] for i in other["items"]]
            scores = [[i["score"] for i in both["items"]] for both in (one, other)]
            np.testing.assert_allclose(*scores, atol=1e-5)
            assert (one["user"], one["answered_by"]) == (other["user"], other["answered_by"])
        again = client.post("/embed", json=rows).json()
        assert list(again) == list(vectors) == ["export", "users", "items"]
        for side in ("users", "items"):
            np.testing.assert_allclose(again[side], vectors[side], atol=1e-5)
        answer = client.post(
            "/recommend", json={**body, "users": [*four_users, {"features": {"x": 1}}]}
        )
        assert names(answer) == ["body.users[4].features.x"]
        answer = client.post("/recommend", json={**body, "only": ["genres=a", "colour=red"]})
        assert names(answer) == ["only[1]"]
        metrics = client.get("/metrics").text.splitlines()
    assert 'two_tower_lists_total{answered_by="popularity"} 3.0' in metrics
    assert 'two_tower_lists_total{answered_by="two-tower"} 6.0' in metrics


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/recommend", {"users": users(1), **{f"a{n}": n for n in range(30_000)}}),
        ("/recommend", {"users": [{"id": "u6", **{f"a{n}": n for n in range(60)}}] * 600}),
        ("/recommend", {"users": [{"features": {f"f{n}": {} for n in range(20)}}] * 900}),
        ("/embed", {"users": [{f"f{n}": n for n in range(30)}] * 900}),
    ],
)
def test_only_the_first_thousand_faults_are_counted(serving, path, body):
    with limited(serving) as client:
        answer = client.post(path, json=body)
    assert answer.status_code == 422
    assert len(answer.json()["faults"]) == 20
    assert 20 < answer.json()["more"] <= 2 * MAX_FAULTS_COUNTED


# ── too many requests at a time ─────────────────────────────────────────────────────────


class Held:
    """Makes `LoadedExport.lists` wait for `go_on` if the user is `big`; records all users."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.users: list[str | None] = []
        self.go_on = threading.Event()
        lists = LoadedExport.lists

        def slow(served: LoadedExport, users: Any, *arguments: Any) -> Any:
            self.users += [user.id for user in users]
            if users[0].id == "big":
                self.go_on.wait(30)
            return lists(served, users, *arguments)

        monkeypatch.setattr(LoadedExport, "lists", slow)

    def wait_for(self, n: int) -> None:
        until = time.monotonic() + 30
        while len(self.users) < n and time.monotonic() < until:
            time.sleep(0.005)


def raw(body: Any) -> bytes:
    text = json.dumps(body).encode()
    head = f"POST /recommend HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(text)}\r\n"
    return f"{head}content-type: application/json\r\n\r\n".encode() + text


def hang_up(client: httpx.Client, body: Any) -> None:
    """Send a request and disconnect at once."""
    with socket.create_connection((client.base_url.host, client.base_url.port)) as one:
        one.sendall(raw(body))
        time.sleep(0.2)


def test_small_requests_are_answered_during_an_overload_of_large_ones(serving, monkeypatch):
    held = Held(monkeypatch)
    big = {"users": [{"id": "big"}] * 2, "k": 10}  # 20 list entries
    app = build(serving, limits=Limits(small=10, large_cost=50, piece=10))
    with served(app) as client:
        clients = [
            threading.Thread(target=client.post, args=("/recommend",), kwargs={"json": big})
            for _ in range(2)
        ]
        for thread in clients:
            thread.start()
        held.wait_for(1)
        while app.state.back_pressure._large_cost < 40:
            time.sleep(0.005)
        refused = client.post("/recommend", json=big)
        assert refused.status_code == 503
        assert names(refused) == ["server"]
        assert refused.headers["retry-after"] == "1"
        assert client.get("/recommend/u6?k=10").status_code == 200
        held.go_on.set()
        for thread in clients:
            thread.join()
        assert client.post("/recommend", json=big).status_code == 200


def test_too_many_small_requests_are_refused(serving, monkeypatch):
    held = Held(monkeypatch)
    with limited(serving, small_requests=1) as client:
        thread = threading.Thread(target=client.get, args=("/recommend/big",))
        thread.start()
        held.wait_for(1)
        refused = client.get("/recommend/u6")
        assert (refused.status_code, names(refused)) == (503, ["server"])
        assert client.get("/health").status_code == 200
        held.go_on.set()
        thread.join()
        assert client.get("/recommend/u6").status_code == 200


def test_no_work_is_begun_for_a_disconnected_client(serving, monkeypatch):
    held = Held(monkeypatch)
    with limited(serving, small=10, piece=10) as client:
        first = threading.Thread(
            target=client.post,
            args=("/recommend",),
            kwargs={"json": {"users": [{"id": "big"}] * 2}},
        )
        first.start()
        held.wait_for(1)
        hang_up(client, {"users": [{"id": "gone"}] * 3})
        stays = threading.Thread(
            target=client.post, args=("/recommend",), kwargs={"json": {"users": users(2)}}
        )
        stays.start()
        held.go_on.set()
        first.join()
        stays.join()
        metrics = client.get("/metrics").text.splitlines()
    assert held.users == ["big", "big", "u6", "u6"]
    assert 'two_tower_requests_total{method="POST",route="/recommend",status="499"} 1.0' in metrics


def test_a_large_request_ends_between_two_pieces_if_its_client_disconnects(serving, monkeypatch):
    held = Held(monkeypatch)
    with limited(serving, small=10, piece=10) as client:
        with socket.create_connection((client.base_url.host, client.base_url.port)) as one:
            one.sendall(raw({"users": [{"id": "big"}] * 9}))
            held.wait_for(1)
        time.sleep(0.2)
        held.go_on.set()
        assert client.post("/recommend", json={"users": users(2)}).status_code == 200
    assert held.users == ["big", "u6", "u6"]


def test_a_second_reload_is_refused_while_the_first_runs(serving, monkeypatch):
    monkeypatch.setattr(CurrentExport, "is_reloading", True)
    with served(build(serving, key="k")) as client:
        answer = client.post("/reload", headers={"authorization": "Bearer k"})
    assert (answer.status_code, names(answer)) == (503, ["server"])


# ── bodies, host names, and invented paths ──────────────────────────────────────────────


def test_a_body_has_a_deadline(serving):
    with (
        limited(serving, body_seconds=0.2) as client,
        socket.create_connection((client.base_url.host, client.base_url.port)) as one,
    ):
        one.sendall(raw({"users": users(1)})[:-5])
        answer = b""
        while piece := one.recv(65536):  # until the server closes
            answer += piece
    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"field":"body"' in answer


def test_bodies_in_transfer_are_bounded(serving):
    text = json.dumps({"users": users(1), "deny": ["001"] * 100}).encode()
    with limited(serving, unread=500) as client:
        answer = client.post("/recommend", content=text, headers=JSON_TYPE)
        assert (answer.status_code, names(answer)) == (503, ["server"])
        for _ in range(20):  # bodies that were read do not count any more
            assert client.post("/recommend", json={"users": users(1)}).status_code == 200


def test_answers_in_transfer_are_bounded():
    pressure = BackPressure(Limits(unsent=100))
    with pressure.count_unsent(500), pytest.raises(Refusal) as refused, pressure.count_unsent(1):
        pass  # one answer is always sent, but no second one beside it
    assert refused.value.status == 503
    with pressure.count_unsent(60), pressure.count_unsent(40):
        pass


def test_an_incomplete_body_gets_no_answer(serving):
    half = raw({"users": users(1)}).replace(b"content-length: ", b"content-length: 9")
    with limited(serving) as client:
        with socket.create_connection((client.base_url.host, client.base_url.port)) as one:
            one.sendall(half)  # the JSON is complete, but content-length is larger
            one.shutdown(socket.SHUT_WR)
            one.recv(100)
        for _ in range(100):
            metrics = client.get("/metrics").text
            if 'status="499"' in metrics:
                break
            time.sleep(0.02)
    assert 'status="499"' in metrics
    assert 'route="/recommend",status="200"' not in metrics


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("LOCALHOST:8000", 200), ("127.0.0.1:1", 200), ("[::1]:80", 200),
        ("localhost.", 200), ("shop.example", 200), ("evil.example", 400), ("localhost.evil", 400),
        ("127.0.0.1.evil:80", 400), ("", 400), ("[::1].evil", 400), ("localhost:80:80", 400),
    ],
)  # fmt: skip
def test_only_requests_with_a_host_name_of_the_server_are_answered(serving, host, status):
    app = build(serving, hosts=allowed_hosts("127.0.0.1", ["shop.example"]))
    with served(app) as client:
        for path in ("/health", "/history/u6"):
            answer = client.get(path, headers={"host": host})
            assert answer.status_code == status
        assert status == 200 or names(answer) == ["header.host"]


def test_invented_methods_and_paths_do_not_enlarge_the_metrics(serving):
    with limited(serving) as client:
        client.get("/metrics")
        sizes = []
        for number in range(200):
            client.request(f"WORD{number}", "/recommend/1")
            client.request("GET", f"/word{number}")
            client.request(f"WORD{number}", f"/word{number}")
            client.request("DELETE", "/health")
            if number % 100 == 99:
                sizes.append(len(client.get("/metrics").content))
        text = client.get("/metrics").text
    assert "WORD" not in text
    assert "word1" not in text
    assert 'method="other",route="/recommend/{user:path}",status="405"} 200.0' in text
    assert abs(sizes[1] - sizes[0]) < 100  # digits
