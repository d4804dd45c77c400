"""The server gives the lists of its export, refuses malformed requests, and switches exports."""

from __future__ import annotations

import json
import logging
import re
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from live import served
from tiny_run import CPU, Run, Tiny

from workflows.ground.errors import ArtifactError, TwoTowerError
from workflows.serve import wire
from workflows.serve.app import build
from workflows.serve.current_export import CurrentExport
from workflows.serve.limits import LIMITS
from workflows.serve.loaded_export import LoadedExport, stamps
from workflows.serve.wire import UserQuery
from workflows.stages.embedding import RawTower
from workflows.stages.recommender import ListOptions, Recommender

STAGES = ("etl", "train", "export")
KEY = "a key of the tests"


def current(run: Run) -> CurrentExport:
    return CurrentExport(
        lambda: LoadedExport.open(run.store, run.recipe), lambda: stamps(run.store)
    )


@pytest.fixture(scope="module")
def run(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return tiny.exported.branch(tmp_path_factory.mktemp("serve") / "run", stages=STAGES)


@pytest.fixture(scope="module")
def client(run: Run) -> Iterator[httpx.Client]:
    with served(build(current(run))) as client:
        yield client


def expected(run: Run, user: str, **options: Any) -> list[dict[str, Any]]:
    """Return a user's list as the export gives it."""
    table = Recommender.open(run.store, run.recipe).lists(
        np.array([user], object), ListOptions(**options)
    )
    return table.to_pylist()


def items_of(answer: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [(i["rank"], i["item"], i["score"], i["labels"]["title"]) for i in answer["items"]]


def rows(lists: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(row["rank"], row["item_id"], row["score"], row["title"]) for row in lists]


def names(answer: Any) -> list[str]:
    """Return the fields that the faults of an answer name."""
    return [fault["field"] for fault in answer.json()["faults"]]


# ── answers ─────────────────────────────────────────────────────────────────────────────


ODD_IDS = [
    *("a/b i003", "https://x.y/u?id=u01&n=2", "#1", "100%", "%2F", "%252F", "a+b", "a b", " "),
    *("a//b", "/a", "a/", "../x", "類/Ж", "a;b", "a\\b", '"', "<script>"),
]


@pytest.mark.parametrize("name", ODD_IDS)
def test_an_id_with_any_characters_works_in_a_path(client, name):
    answer = client.get(f"/recommend/{quote(name, safe='')}", params={"k": 1, "deny": name})
    assert (answer.status_code, answer.json()["user"]) == (200, name)
    history = client.get(f"/history/{quote(name, safe='')}").json()
    assert (history["user"], history["known"]) == (name, False)
    missing = client.get(f"/similar-items/{quote(name, safe='')}")
    assert (missing.status_code, missing.json()["faults"][0]["field"]) == (404, "path.item")
    assert missing.headers["content-type"] == "application/json"


def test_lists_are_those_of_the_export(run, client):
    users = ["u6", "nobody knows", "映画?/a b", "u6", "-8200171396217105230"]
    body = {"users": [{"id": user} for user in users], "k": 3}
    answer = client.post("/recommend", json=body)
    assert answer.status_code == 200
    lists = answer.json()["lists"]
    assert [one["user"] for one in lists] == users
    for user, one in zip(users, lists, strict=True):
        alone = client.get(f"/recommend/{user.replace('?', '%3F')}", params={"k": 3}).json()
        assert items_of(one) == items_of(alone) == rows(expected(run, user, k=3))
        assert alone["user"] == user
    assert [one["answered_by"] for one in lists] == [
        "two-tower", "popularity", "popularity", "two-tower", "two-tower",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [
        {"k": 100},
        {"k": 100, "keep_seen": True},
        {"k": 5, "only": ["genres=b"]},
        {"k": 5, "deny": ["001", "003"]},
    ],
)
def test_list_options_are_applied(run, client, options):
    body = {"users": [{"id": "u7"}], **options}
    as_export = {n: tuple(v) if isinstance(v, list) else v for n, v in options.items()}
    right = rows(expected(run, "u7", **as_export))
    assert items_of(client.post("/recommend", json=body).json()["lists"][0]) == right
    assert items_of(client.get("/recommend/u7", params=options).json()) == right


def test_a_list_is_empty_if_no_item_remains(run, client):
    items = Recommender.open(run.store, run.recipe).catalogue.ids.to_pylist()
    answer = client.post("/recommend", json={"users": [{"id": "u6"}], "deny": items}).json()
    assert answer["lists"] == [{"user": "u6", "answered_by": "two-tower", "items": []}]


def test_similar_items_are_those_of_the_export(run, client):
    answer = client.get("/similar-items/映画", params={"k": 4}).json()
    assert items_of(answer) == rows(
        Recommender.open(run.store, run.recipe).similar("映画", ListOptions(k=4))
    )
    assert "映画" not in [item["item"] for item in answer["items"]]


def test_a_history_is_given_newest_first(run, client):
    answer = client.get("/history/u6").json()
    known = run.histories(withheld=1)["u6"]
    assert [item["item"] for item in answer["items"]] == known[::-1]
    assert answer["known"]
    titles = {film["item_id"]: film["title"] for film in run.world.films}
    assert all(i["labels"]["title"] == titles.get(i["item"]) for i in answer["items"])
    assert [i["item"] for i in client.get("/history/u6?k=1").json()["items"]] == known[-1:]
    unknown = client.get("/history/nobody").json()
    assert (unknown["known"], unknown["items"]) == (False, [])


def test_raw_values_are_embedded_as_by_the_export(run, client):
    folder = run.store.folder("export")
    for side in RAW:
        name = side.removesuffix("s")
        features = pq.read_table(folder / f"{name}_features.parquet")
        tower = getattr(Recommender.open(run.store, run.recipe).export, f"{RAW[side]}_tower")
        rows = features.select([n for n in tower.inputs if n in features.column_names]).to_pylist()
        answer = client.post("/embed", json={side: rows})
        assert answer.status_code == 200, answer.text
        stored = pq.read_table(folder / f"{name}_embeddings.parquet")["embedding"].to_pylist()
        np.testing.assert_allclose(answer.json()[side], stored, atol=1e-5)
        assert stored[0] != stored[1]  # the control


RAW = {"users": "query", "items": "item"}


def test_users_with_raw_values_get_lists_from_these_values(run, client):
    features = {"age": 31, "city": "Oslo", "history_item_id": ["003", "001"]}
    users = [
        {"id": "u6"},
        {"features": features},
        {"id": "new", "features": features},
        {"id": "new"},
    ]
    lists = client.post("/recommend", json={"users": users, "k": 100}).json()["lists"]
    by = [one["answered_by"] for one in lists]
    assert by == ["two-tower", "raw features", "raw features", "popularity"]
    assert [one["user"] for one in lists] == ["u6", None, "new", "new"]
    assert ids_of(lists[0]) == [row["item_id"] for row in expected(run, "u6", k=100)]
    assert ids_of(lists[1]) == ids_of(lists[2])
    assert set(ids_of(lists[1])) == run.items - {"003", "001"}  # minus the given history
    new_user = {**features, "user_id": "new"}  # an unknown id is not a missing id
    vector = client.post("/embed", json={"users": [new_user]}).json()["users"][0]
    scores = Recommender.open(run.store, run.recipe).catalogue.vectors @ np.array(vector)
    best = dict(
        zip(Recommender.open(run.store, run.recipe).catalogue.ids.to_pylist(), scores, strict=True)
    )
    np.testing.assert_allclose(
        [i["score"] for i in lists[1]["items"]],
        [best[i] for i in ids_of(lists[1])],
        atol=1e-5,
    )


def test_raw_values_without_a_finite_embedding_are_refused(run, client, monkeypatch):
    width = Recommender.open(run.store, run.recipe).catalogue.vectors.shape[1]
    monkeypatch.setattr(RawTower, "embed", lambda _, rows: np.full((len(rows), width), np.nan))
    answer = client.post("/embed", json={"users": [{"age": 1e38}], "items": [{}]})
    assert (answer.status_code, names(answer)) == (422, ["body.users[0]"])
    answer = client.post("/recommend", json={"users": [{"features": {"age": 1e38}}]})
    assert (answer.status_code, names(answer)) == (422, ["body.users"])
    assert client.get("/recommend/u6").status_code == 200


def ids_of(answer: dict[str, Any]) -> list[str]:
    return [item["item"] for item in answer["items"]]


def test_health_describes_the_loaded_export(run, client):
    health = client.get("/health").json()
    manifest = run.store.read("export", run.recipe)
    assert health == {
        "status": "ready",
        "run": "run",
        "recipe": "tiny",
        "recipe_hash": manifest.recipe_hash,
        "export": manifest.digest[:12],
        "exported": manifest.created,
        "as_of": "test",
        "users": len(run.users),
        "items": len(run.items),
    }


@pytest.mark.parametrize(
    ("model", "path"),
    [
        (wire.OneUserAnswer, "/recommend/u6"),
        (wire.SimilarItemsAnswer, "/similar-items/003"),
        (wire.HistoryAnswer, "/history/u6"),
        (wire.Health, "/health"),
        (wire.Faults, "/recommend/u6?k=0"),
        (wire.Faults, "/nowhere"),
    ],
)
def test_answers_match_openapi(client, model, path):
    text = client.get(path).text
    assert model.model_validate_json(text, strict=True).model_dump() == json.loads(text)
    api = client.get("/openapi.json").json()
    assert model.__name__ in api["components"]["schemas"]


def test_openapi_names_every_route_and_every_error(client):
    api = client.get("/openapi.json").json()
    assert {"/recommend", "/recommend/{user}", "/similar-items/{item}", "/embed"} <= set(
        api["paths"]
    )
    calls = {path: call for path, methods in api["paths"].items() for call in methods.values()}
    for path, call in calls.items():
        assert call["description"]
        refused = {n: c["content"] for n, c in call["responses"].items() if n[0] == "4"}
        assert ("401" in refused) == (path not in ("/health", "/metrics"))
        for content in refused.values():
            schema = content["application/json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/Faults"}
    assert {"400", "413", "415"} <= set(calls["/recommend"]["responses"])


# ── refusals ────────────────────────────────────────────────────────────────────────────

ONE_USER = {"users": [{"id": "u6"}]}
#: Field of a body → values that are refused, each beside the field that must be named.
WRONG: dict[str, list[tuple[Any, str]]] = {
    "k": [
        (value, "body.k")
        for value in (
            None, "10", "ten", "", " ", "\x00", 0, -1, -0.0,
            1e3, 1e400, 1001, 10**30, -(10**30), 1.5, True, [], [10], {}, float("nan"),
        )
    ],
    "keep_seen": [(value, "body.keep_seen") for value in (None, 0, 1, "true", "", [], {}, 0.5)],
    "only": [
        *((value, "body.only") for value in (None, "genres=b", 1, {}, True, ["genres=b"] * 1001)),
        *(([value], "body.only[0]") for value in (None, 1, 1.5, [], {}, True)),
        (["genres=b", 5], "body.only[1]"),
        *(([rule], "only[0]") for rule in ("", "=", "genres", "colour=red", "=b", "\x00=b")),
        (["genres=b", "user_id=u6"], "only[1]"),
    ],
    "deny": [
        *((value, "body.deny") for value in (None, "001", 1, {}, False, ["001"] * 1001)),
        *(([value], "body.deny[0]") for value in (None, 1, [], {}, "", "x" * 1001, "\ud800")),
        (["001", "003", ""], "body.deny[2]"),
    ],
    "users": [
        *((value, "body.users") for value in (None, "u6", 5, {}, [], True, [{"id": "u6"}] * 1001)),
        *(([value], "body.users[0]") for value in (None, "u6", 5, [], True, {}, {"id": None})),
        ([{"id": "u6"}, "u7"], "body.users[1]"),
        *(
            ([{"id": value}], "body.users[0].id")
            for value in (5, 1.5, True, [], {}, "", "x" * 1001, "\ud800", float("inf"))
        ),
        ([{"id": "u6", "name": "x"}], "body.users[0].name"),
        ([{"ID": "u6"}], "body.users[0].ID"),
        *(
            ([{"features": value}], "body.users[0].features")
            for value in (None, 5, "age", [], ["age"], True)
        ),
        *(
            ([{"features": {"age": value}}], "body.users[0].features.age")
            for value in (float("nan"), float("inf"), 10**400, True, {}, [1], [None], [["x"]])
        ),
        *(
            ([{"id": "u6"}, {"features": {name: value}}], f"body.users[1].features.{name}")
            for name, value in (
                ("age", "31"), ("age", ["31"]), ("age", 1e39), ("age", -(10**300)),
                ("city", 5), ("city", ["Oslo"]), ("nope", None),
                ("history_item_id", "001"), ("history_item_id", 5), ("title", "x"),
            )
        ),
    ],
    "user": [("u6", "body.user")],
    "K": [(10, "body.K")],
    "": [(1, 'body[""]')],
    "\x00": [(1, 'body["\\u0000"]')],
    "a b": [(1, 'body["a b"]')],
    "x" * 81: [(1, f'body["{"x" * 80}"]')],
    "-" * 1000: [(1, f'body["{"-" * 80}"]')],
    "__proto__": [({}, "body.__proto__")],
}  # fmt: skip
JSON_TYPE = {"content-type": "application/json"}
#: Bodies that are refused as a whole: content, headers, status, field.
BODIES: list[tuple[bytes, dict[str, str], int, str]] = [
    *(
        (body, JSON_TYPE, 422, "body")
        for body in (
            b"",
            b"{",
            b"[]",
            b"null",
            b"5",
            b'"u6"',
            b"true",
            b"{}}",
            b"{'k': 1}",
            b"\x00",
        )
    ),
    *((body, JSON_TYPE, 422, "body.users") for body in (b"{}", b'{"k": 5}')),
    *(
        (body, JSON_TYPE, 400, "body")
        for body in (b"[" * 100_000, b'{"a":' * 100_000, b'{"users": "\xc3\x28"}')
    ),
    (b'{"users": ' + b"9" * 5000 + b"}", JSON_TYPE, 400, "body"),
    (b" " * (LIMITS.body + 1), JSON_TYPE, 413, "body"),
    *(
        (json.dumps(ONE_USER).encode(), {"content-type": kind} if kind else {}, 415, place)
        for place in ["header.content-type"]
        for kind in ("", "text/plain", "application/xml", "multipart/form-data", "json", "*/*")
    ),
]
GETS: list[tuple[str, int, str]] = [
    *((f"/recommend/u6?k={k}", 422, "query.k") for k in ("0", "-1", "1001", "x", "", "1.5", "1e2")),
    *((f"/recommend/u6?keep_seen={v}", 422, "query.keep_seen") for v in ("2", "x", "")),
    *((f"/recommend/u6?only={v}", 422, "only[0]") for v in ("", "x", "a=b", "%00", "%ff")),
    ("/recommend/u6?deny=", 422, "query.deny[0]"),
    ("/recommend/u6?K=5", 422, "query.K"),
    ("/recommend/u6?user=5", 422, "query.user"),
    (f"/recommend/{'x' * 1001}", 422, "path.user"),
    ("/recommend/", 422, "path.user"),
    ("/similar-items/nope", 404, "path.item"),
    ("/similar-items/%ff", 404, "path.item"),
    ("/similar-items/", 422, "path.item"),
    ("/similar-items/003?k=0", 422, "query.k"),
    ("/similar-items/003?only=x", 422, "only[0]"),
    ("/history/u6?k=0", 422, "query.k"),
    *((f"/similar-items/003?k={k}", 422, "query.k") for k in ("-1", "1001", "x", "", "9" * 5000)),
    *((f"/history/u6?k={k}", 422, "query.k") for k in ("x", "-1", "", "1.5", "NaN")),
    ("/history/", 422, "path.user"),
    *((path, 404, "path") for path in ("/nowhere", "/page", "/web/page.js", "/../setup.cfg")),
    *((path, 405, "method") for path in ("/recommend", "/embed", "/reload")),
]
EMBEDS: list[tuple[Any, str]] = [
    ({"users": [{"age": 3}, {"age": "x"}]}, "body.users[1].age"),
    ({"items": [{"genres": "a"}]}, "body.items[0].genres"),
    ({"items": [{"age": 3}]}, "body.items[0].age"),
    ({"users": [[]]}, "body.users[0]"),
    ({"items": [{"item_id": "\ud800"}]}, "body.items[0].item_id"),
    ({"users": [{"history_item_id": ["\udfff"]}]}, "body.users[0].history_item_id"),
    ({"user": [{}]}, "body.user"),
]
OTHERS: list[tuple[str, str, int, str]] = [
    *((m, p, 405, "method") for m in ("PUT", "DELETE", "PATCH") for p in ("/recommend", "/health")),
    ("POST", "/health", 405, "method"),
    ("POST", "/nowhere", 404, "path"),
    ("POST", "/reload", 403, "header.authorization"),
]


def test_every_malformed_request_is_refused_and_the_field_is_named(client):
    n_checked, wrong = 0, []

    def check(answer: httpx.Response, status: int, field: str, what: object) -> None:
        nonlocal n_checked
        n_checked += 1
        faults = answer.json()["faults"] if answer.status_code >= 400 else []
        right = all(fault["expected"] and len(fault["got"]) < 200 for fault in faults)
        if (answer.status_code, [fault["field"] for fault in faults], right) != (
            status,
            [field],
            True,
        ):
            wrong.append((what, field, answer.status_code, answer.text[:300]))

    for name, cases in WRONG.items():
        for value, field in cases:
            text = json.dumps({**ONE_USER, name: value})
            answer = client.post("/recommend", content=text, headers=JSON_TYPE)
            check(answer, 422, field, (name, str(value)[:80]))
    for body, headers, status, field in BODIES:
        answer = client.post("/recommend", content=body, headers=headers)
        check(answer, status, field, (body[:80], headers))
    for path, status, field in GETS:
        check(client.get(path), status, field, path)
    for body, field in EMBEDS:
        answer = client.post("/embed", content=json.dumps(body), headers=JSON_TYPE)
        check(answer, 422, field, body)
    for method, path, status, field in OTHERS:
        check(client.request(method, path), status, field, (method, path))
    assert not wrong
    assert n_checked >= 200
    text = client.get("/metrics").text
    assert 'status="5' not in text  # the control: these are counted
    assert 'status="422"' in text


NAMES = st.text(max_size=5) | st.sampled_from(["id", "features", "age", "history_item_id"])
FLAT = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
NESTED = FLAT | st.lists(FLAT, max_size=3) | st.dictionaries(NAMES, FLAT, max_size=3)
JSONS = NESTED | st.lists(NESTED, max_size=3) | st.dictionaries(NAMES, NESTED, max_size=3)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(("users", "k", "only", "deny"), JSONS)))
def test_no_body_causes_an_internal_error(client, body):
    answer = client.post("/recommend", content=json.dumps(body), headers=JSON_TYPE)
    assert answer.status_code == 200 or names(answer)
    assert answer.status_code < 500


def test_the_first_faults_are_described_and_the_others_counted(client):
    body = {"users": [{"id": "u6"}, *[{"id": n} for n in range(30)]]}
    answer = client.post("/recommend", json=body).json()
    assert [f["field"] for f in answer["faults"]] == [f"body.users[{n}].id" for n in range(1, 21)]
    assert answer["faults"][0] == {
        "field": "body.users[1].id",
        "got": "0",
        "expected": "a valid string",
    }
    assert answer["more"] == 10


def test_an_internal_error_gives_no_details(run):
    app = build(current(run))
    with served(app) as client:
        app.state.current.served = None
        answer = client.get("/recommend/u6")
    assert answer.status_code == 500
    assert answer.json()["faults"] == [
        {
            "field": "server",
            "got": "'AttributeError'",
            "expected": "no internal error; the log of the server has the details",
        }
    ]


# ── the key ─────────────────────────────────────────────────────────────────────────────


def test_a_server_with_a_key_answers_only_requests_that_name_it(run):
    with served(build(current(run), key=KEY)) as client:
        right = {"authorization": f"Bearer {KEY}"}
        for path in ("/recommend/u6", "/history/u6", "/similar-items/003", "/nowhere"):
            for wrong in ("", KEY, "Bearer", "Bearer x", f"Basic {KEY}", f"Bearer {KEY}x", "é"):
                answer = client.get(path, headers={"authorization": wrong.encode()})
                assert answer.status_code == 401, wrong
                assert names(answer) == ["header.authorization"]
                assert KEY not in answer.text
            assert client.get(path, headers=right).status_code != 401
        for path in ("/", "/page.js", "/docs", "/health", "/metrics", "/openapi.json"):
            assert client.get(path).status_code == 200, path
        for file in re.findall(r'(?:href|src)="(?!data:)(.*?)"', client.get("/docs").text):
            assert client.get(f"/{file}").status_code == 200, file
        api = client.get("/openapi.json").json()
        keys = {
            path for path, of in api["paths"].items() for call in of.values() if "security" in call
        }
        assert keys == set(api["paths"]) - {"/health", "/metrics"}
        assert client.post("/reload").status_code == 401
        with socket.create_connection((client.base_url.host, client.base_url.port)) as plain:
            plain.sendall(
                f"POST /reload HTTP/1.1\r\nhost: x\r\nauthorization: bearer {KEY}\r\n\r\n".encode()
            )
            assert plain.recv(100).startswith(b"HTTP/1.1 200")  # as curl -X POST: no length
        assert client.post("/reload", headers=right).status_code == 200


# ── switching to another export ─────────────────────────────────────────────────────────


@pytest.fixture
def mine(run: Run, tmp_path: Path) -> Run:
    return run.branch(tmp_path / "run", stages=STAGES)


def other_export(run: Run) -> None:
    """Negate the embeddings of users and sign the export again: all lists change."""
    old = run.store.folder("export")
    with run.store.write("export", run.recipe, CPU) as draft:
        shutil.copytree(old, draft.folder, dirs_exist_ok=True)
        (draft.folder / "manifest.json").unlink()
        path = draft.folder / "user_embeddings.parquet"
        table = pq.read_table(path)
        column = table["embedding"].combine_chunks()
        turned = pa.FixedSizeListArray.from_arrays(
            pa.array(-column.flatten().to_numpy()), column.type.list_size
        )
        place = table.column_names.index("embedding")
        pq.write_table(table.set_column(place, "embedding", turned), path)
        draft.options = {"as_of": "test"}


def test_a_new_export_takes_over_and_the_old_one_finishes_its_requests(mine):
    serving = current(mine)
    before = serving.served
    first = before.lists([UserQuery(id="u6")], ListOptions())
    assert not serving.has_changed_on_disk
    other_export(mine)
    assert serving.has_changed_on_disk
    assert serving.served is before  # it is not reloaded without a call
    after = serving.reload()
    assert serving.served is after
    assert not serving.has_changed_on_disk
    assert before.health.export != after.health.export
    assert before.lists([UserQuery(id="u6")], ListOptions()) == first  # it is in memory as a whole
    assert after.lists([UserQuery(id="u6")], ListOptions()) != first
    assert items_for(after, "u6") == rows(expected(mine, "u6"))


def items_for(it: LoadedExport, user: str) -> list[tuple[Any, ...]]:
    return items_of(it.lists([UserQuery(id=user)], ListOptions())[0].model_dump())


def _tamper(run: Run) -> None:
    with (run.store.folder("export") / "item_embeddings.parquet").open("ab") as file:
        file.write(b"x")


def _remove(run: Run) -> None:
    shutil.rmtree(run.store.folder("export"))


def _half(run: Run) -> None:
    (run.store.folder("export") / "manifest.json").write_text("{", encoding="utf-8")


def _stale(run: Run) -> None:
    manifest = run.store.folder("etl") / "manifest.json"
    content = json.loads(manifest.read_bytes())
    manifest.write_text(
        json.dumps({**content, "parts_hash": "of another recipe"}), encoding="utf-8"
    )


@pytest.mark.parametrize("harm", [_tamper, _remove, _half, _stale])
def test_a_broken_export_is_refused_and_the_old_one_stays(mine, harm: Callable[[Run], None]):
    serving = current(mine)
    with served(build(serving, key=KEY)) as client:
        headers = {"authorization": f"Bearer {KEY}"}
        before = client.get("/recommend/u6", headers=headers).json()
        harm(mine)
        answer = client.post("/reload", headers=headers)
        assert answer.status_code == 409
        assert names(answer) == ["export"]
        assert client.get("/recommend/u6", headers=headers).json() == before
        assert 'two_tower_reloads_total{result="refused"} 1.0' in client.get("/metrics").text


def test_an_export_that_fails_while_it_is_read_is_refused(mine, monkeypatch):
    serving = current(mine)
    before = serving.served
    monkeypatch.setattr(LoadedExport, "open", lambda *_: 1 / 0)
    with pytest.raises(ArtifactError, match="The new export cannot be read: division by zero"):
        serving.reload()
    serving.try_reload()
    assert serving.served is before
    assert (serving.reloads, serving.refusals) == (0, 2)


def test_a_run_that_is_rewritten_while_it_is_read_is_refused(mine, monkeypatch):
    real = Recommender.similar

    def written_meanwhile(*arguments: Any) -> Any:
        other_export(mine)
        return real(*arguments)

    monkeypatch.setattr(Recommender, "similar", written_meanwhile)
    with pytest.raises(TwoTowerError, match="was written while it was being read"):
        current(mine)


def test_raw_values_need_a_reload_after_the_export_was_replaced(mine, monkeypatch):
    folder = mine.store.folder("export")
    towers = {n: RawTower.open(folder / n) for n in ("query_tower_raw", "item_tower_raw")}
    monkeypatch.setattr(RawTower, "open", lambda path: towers[path.name])  # seconds each time
    serving = current(mine)
    old = serving.served
    body = {"users": [{"features": {"age": 31}}]}
    with served(build(serving)) as client:
        other_export(mine)
        for _ in range(2):  # the first has not left the other export's tower behind
            answer = client.post("/recommend", json=body)
            assert answer.status_code == 503
            assert "was written while it was being read" in answer.text
            assert not old.has_towers
        assert client.get("/recommend/u6").status_code == 200
        serving.reload()
        assert client.post("/recommend", json=body).status_code == 200
        assert serving.served.has_towers
        other_export(mine)
        assert serving.reload().has_towers  # read before it took over


def test_without_tensorflow_only_raw_values_are_refused(mine, monkeypatch):
    def absent(path: Path) -> Any:
        raise ModuleNotFoundError("No module named 'tensorflow'")

    monkeypatch.setattr(RawTower, "open", absent)
    with served(build(current(mine))) as client:
        answer = client.post("/embed", json={"items": [{}]})
        assert answer.status_code == 503
        assert "pip install 'merlin-two-tower[serving]'" in answer.text
        assert client.get("/recommend/u6").status_code == 200


def test_watching_finds_a_new_export(mine):
    serving = current(mine)
    with served(build(serving, watch=0.02)) as client:
        before = client.get("/health").json()["export"]
        other_export(mine)
        deadline = threading.Event()
        for _ in range(500):
            if client.get("/health").json()["export"] != before:
                break
            deadline.wait(0.02)
        assert serving.reloads == 1
        _half(mine)
        for _ in range(500):
            if serving.refusals:
                break
            deadline.wait(0.02)
        assert client.get("/health").status_code == 200
        assert (serving.reloads, serving.refusals) == (1, 1)


# ── metrics and the access log ──────────────────────────────────────────────────────────


def test_metrics_and_log_contain_routes_and_no_ids(run, caplog):
    with (
        caplog.at_level(logging.INFO, "workflows.serve"),
        served(build(current(run))) as client,
    ):
        body = {"users": [{"id": "u6"}, {"id": "secret-user"}]}
        assert client.post("/recommend", json=body).status_code == 200
        client.get("/recommend/u6?k=0")
        client.get("/similar-items/003")
        text = client.get("/metrics").text
    for line in (
        'two_tower_requests_total{method="POST",route="/recommend",status="200"} 1.0',
        'two_tower_requests_total{method="GET",route="/recommend/{user:path}",status="422"} 1.0',
        'two_tower_request_seconds_count{method="GET",route="/similar-items/{item:path}"} 1.0',
        'two_tower_lists_total{answered_by="popularity"} 1.0',
        'two_tower_lists_total{answered_by="two-tower"} 1.0',
        'two_tower_reloads_total{result="done"} 0.0',
        f"two_tower_users {len(run.users)}.0",
    ):
        assert line in text.splitlines()
    lines = [json.loads(r.message) for r in caplog.records if r.name.endswith("observe")]
    assert [(line["route"], line["status"]) for line in lines][:2] == [
        ("/recommend", 200), ("/recommend/{user:path}", 422),
    ]  # fmt: skip
    assert all(line["ms"] > 0 for line in lines)
    assert "secret-user" not in text + caplog.text
