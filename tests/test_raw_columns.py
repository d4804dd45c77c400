"""A run with each kind of derived column: towers, files, requests and Triton take raw columns."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_run import CPU, Run, check_here, steps_run_eagerly
from world import World, write_csv

import workflows.towers.export as exporting
from workflows.etl import etl
from workflows.export import export
from workflows.ground.errors import ArtifactError, DataError
from workflows.index import index
from workflows.recipe.raw_inputs import columns_read, raw_inputs
from workflows.recommend import recommend
from workflows.recommend.ranker import Ranker
from workflows.recommend.request import RecommendRequest, read_users
from workflows.serve.loaded_export import LoadedExport
from workflows.serve.wire import Refusal, UserQuery
from workflows.stages.recommender import ListOptions, Recommender
from workflows.stages.store import Store
from workflows.train import train
from workflows.triton import triton

RECIPE = """\
name: derived
data: .
sources:
  log: {files: log.csv}
  people: {files: people.csv}
  films: {files: films.csv}
interactions: log
join:
  - {table: people, key: user_id}
  - {table: films, key: item_id, on_missing: fill, fill: {genre_path: "none.none"}}
filter: [{kind: keep, column: rating, is: ">=", value: 2}]
derive:
  - {kind: date_part, of: when, to: month, part: month}
  - {kind: cyclic_month, of: month, to: month_sin, part: sin}
  - {kind: cyclic_month, of: month, to: month_cos, part: cos}
  - {kind: date_part, of: when, to: weekday, part: weekday}
  - {kind: bins, of: age, to: group, edges: [24, 40], labels: [young, middle, old]}
  - {kind: top_values, of: city, to: top_city, n: 1}
  - {kind: path_level, of: genre_path, to: genre, level: 1, levels: 2}
  - {kind: top_values, of: genre, to: top_genre, n: 2}
  - {kind: price_cluster, of: price, to: cluster, k: 3, digits: 2}
  - {kind: clip, of: price, to: capped, high: 2}
  - {kind: log1p, of: capped, to: log_price}
  - {kind: date_part, of: released, to: year, part: year}
split: {kind: leave_last, valid: 1, test: 1}
features:
  user_id: {role: user, id: true}
  age: {role: user, kind: number, fill: median}
  group: {role: user}
  top_city: {role: user}
  item_id: {role: item, id: true}
  title: {role: item, kind: label}
  genre_path: {role: item, kind: label}
  genre: {role: item}
  top_genre: {role: item}
  cluster: {role: item}
  log_price: {role: item, kind: number, fill: mean}
  year: {role: item, kind: number, fill: mean}
  month_sin: {role: context, kind: number, fill: mean}
  month_cos: {role: context, kind: number, fill: mean}
  weekday: {role: context}
  when: {role: time, format: "%d/%m/%Y %H:%M"}
history: {columns: [item_id, genre, cluster], max_len: 4}
model: {dim: 8}
train: {epochs: 1, batch_size: 32}
evaluate: {ks: [3], bootstrap: 20}
"""
CONTEXT = ("month", "when")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    world = World(tmp_path_factory.mktemp("derived") / "raw", text=RECIPE)
    for n, row in enumerate(world.log):
        if row["when"]:
            row["when"] = f"{1 + n % 28:02d}/{1 + n // 14 % 12:02d}/2021 {n % 24:02d}:30"
    for n, film in enumerate(world.films):
        film["genre_path"] = (None, "a.x", "b", "c.z")[n % 4]
        film["released"] = None if n == 2 else f"{1990 + n}-02-28T23:30:00-02:00"
    world.write()
    found = Run(world, world.recipe(), Store(world.folder.parent / "run"))
    etl(found.recipe, found.store, CPU, data=world.folder)
    with steps_run_eagerly():
        train(found.recipe, found.store, CPU)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting.checks, "check_from_outside", check_here)
        export(found.recipe, found.store, CPU)
    return found


@pytest.fixture(scope="module")
def recommender(run: Run) -> Recommender:
    return Recommender.open(run.store, run.recipe)


def embedding(recommender: Recommender, *rules: str, user: str = "u6") -> np.ndarray:
    """Return the embedding of a user for a request with rules of context."""
    users, given = read_users(RecommendRequest((user,), context=rules), recommender)
    tower = recommender.export.query_tower
    kept = [n for n in tower.inputs if n not in tower.sources and n not in given.column_names]
    row = recommender.export.raw_users(recommender.user_rows(users), kept)
    columns = {name: row[name] for name in kept} | {n: given[n] for n in given.column_names}
    return tower.embed(pa.table(columns))[0]


# ── what towers take ──


def test_towers_take_what_steps_read_and_what_no_step_makes(run):
    folder = run.store.folder("export")
    told = {
        tower: json.loads((folder / tower / "inputs.json").read_text(encoding="utf-8"))
        for tower in ("query_tower_raw", "item_tower_raw")
    }
    query, item = told["query_tower_raw"], told["item_tower_raw"]
    histories = {"history_item_id", "history_genre_path", "history_price"}
    assert set(query) == {"user_id", "age", "city", *CONTEXT} | histories
    assert set(item) == {"item_id", "genre_path", "genre", "price", "capped", "released"}
    assert query["when"] == {
        "argument": "when",
        "type": "string",
        "shape": [None],
        "missing": "",
        "holds": "ISO 8601",
    }
    assert query["month"] == {
        "argument": "month",
        "type": "float32",
        "shape": [None],
        "missing": "NaN",
        "derived_from": "when",
    }
    assert (query["history_price"]["type"], query["history_price"]["shape"]) == (
        "float32",
        [None, None],
    )


def test_the_exported_tables_have_the_raw_columns(run):
    users, items = (
        pq.read_table(run.store.folder("export") / f"{side}_features.parquet")
        for side in ("user", "item")
    )
    raw = {row["user_id"]: row for row in users.to_pylist()}["u6"]
    rows = [r for r in run.world.log if r["user_id"] == "u6" and None not in r.values()]
    assert raw["when"].startswith("2021-")
    assert raw["city"] == "Oslo"
    assert rows
    assert "month" not in users.column_names
    prices = {film["item_id"]: film["price"] for film in run.world.films}
    assert {r["item_id"]: r["price"] for r in items.to_pylist()}["001"] == prices["001"]


def test_columns_between_steps_are_inputs_and_others_are_not(run):
    assert columns_read(run.recipe, "month_sin") == ["when", "month"]
    assert columns_read(run.recipe, "age") == ["age"]
    inputs = raw_inputs(run.recipe, ["top_genre", "weekday"])
    assert {name: raw.source for name, raw in inputs.items()} == {
        "genre_path": None,
        "genre": "genre_path",
        "when": None,
    }


def test_a_column_that_a_join_fills_stays_an_input(run):
    film = "{table: films, key: item_id, on_missing: fill, fill: {genre: none}}"
    recipe = run.world.recipe(f"join=[{{table: people, key: user_id}}, {film}]")
    assert columns_read(recipe, "genre") == ["genre"]
    assert columns_read(recipe, "cluster") == ["price"]


def test_a_stage_of_an_earlier_version_is_to_be_made_again(run, tmp_path):
    older = run.branch(tmp_path / "run", stages=("etl", "train"))
    path = older.store.folder("etl") / "users" / "raw.parquet"
    pq.write_table(pq.read_table(path).drop(["when"]), path)
    prepared = exporting.Prepared(older.store.folder("etl"), older.recipe)
    with pytest.raises(ArtifactError, match=r"no column 'when'.*Run `two-tower etl`"):
        exporting._refuse_older_tables(prepared)


# ── what a caller gives ──


def test_a_month_is_as_good_as_a_date_and_each_part_of_it_counts(recommender):
    december = embedding(recommender, "month=12", "when=2020-12-24")
    np.testing.assert_array_equal(december, embedding(recommender, "when=24/12/2020 08:00"))
    assert np.abs(december - embedding(recommender, "when=2020-06-25")).max() > 1e-6
    # a month alone leaves the weekday of the user's last row
    assert np.abs(december - embedding(recommender, "month=6", "when=2020-12-24")).max() > 1e-6


def test_a_request_with_a_month_gives_lists(run):
    request = RecommendRequest(("u6", "nobody"), context=("month=12",))
    found = recommend(run.recipe, run.store, CPU, options=ListOptions(k=2), request=request)
    assert [(r["user_id"], r["answered_by"]) for r in found.lists[::2]] == [
        ("u6", "two-tower"),
        ("nobody", "popularity"),  # the month says nothing of a user
    ]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("month=13", r"--context, column 'month' holds 13\. Expected a month, a whole number from"),
        ("month=June", r"--context, column 'month', row 1: 'June' cannot be read as"),
        ("when=2020-13-01", r"--context, column 'when', row 1: '2020-13-01' is not such a time"),
        ("month_sin=0.5", r"--context 'month_sin=0\.5': expected column=value, with one of the"),
        ("group=old", r"--context 'group=old': expected column=value, with one of the columns age"),
    ],
)
def test_what_etl_would_refuse_is_refused(recommender, rule, message):
    with pytest.raises(DataError, match=message):
        read_users(RecommendRequest(("u6",), context=(rule,)), recommender)


def test_requests_take_raw_columns_and_name_what_is_wrong(run):
    served = LoadedExport.open(run.store, run.recipe)
    features = {"age": 40.0, "city": "Oslo", "when": "2020-12-24", "history_genre_path": ["a.x"]}
    given = served.raw_values([UserQuery(id="u6", features=features)])
    assert given["when"].to_pylist() == ["2020-12-24T00:00:00Z"]
    assert served.lists([UserQuery(id="u6")], ListOptions(k=2), given)[0].items
    item = {"genre_path": "b", "price": 1.5, "released": "1991-01-01"}
    assert np.isfinite(served.embed("items", [item])).all()
    for row, field in (
        ({"month": 13.0}, "body.users[1].features.month"),
        ({"when": "soon"}, "body.users[1].features.when"),
        ({"age": "old"}, "body.users[1].features.age"),
        ({"month_sin": 0.5}, "body.users[1].features.month_sin"),
    ):
        users = [UserQuery(id=n, features=f) for n, f in (("u6", features), ("u7", row))]
        with pytest.raises(Refusal) as caught:
            served.raw_values(users)
        assert [fault.field for fault in caught.value.body.faults] == [field]
    with pytest.raises(Refusal) as caught:
        served.embed("items", [item, {"genre_path": "a.b.c"}])
    assert caught.value.body.faults[0].field == "body.items[1].genre_path"


def test_new_items_and_rankers_have_the_derived_columns(run, recommender, tmp_path):
    added = run.branch(tmp_path / "run", stages=("etl", "train", "export"))
    new = {"item_id": "new", "title": "New", "genre_path": "b.z", "price": 0.1, "released": None}
    write_csv(tmp_path / "new.csv", [new])
    assert index(added.recipe, added.store, CPU, add=tmp_path / "new.csv").added == 1
    items = Recommender.open(added.store, added.recipe).catalogue.items.to_pylist()
    last = {name: items[-1][name] for name in ("genre", "top_genre", "cluster", "log_price")}
    state = recommender.export.states["cluster"]
    assert last["genre"] == "b"
    assert last["cluster"] == state.labels[0]
    assert last["log_price"] == pytest.approx(np.log1p(np.float32(0.1)))
    write_csv(tmp_path / "less.csv", [{"item_id": "x", "genre_path": "b", "released": None}])
    with pytest.raises(DataError, match="no column 'price', which the item tower takes"):
        index(added.recipe, added.store, CPU, add=tmp_path / "less.csv")

    tables = []

    def score(table: pa.Table) -> np.ndarray:
        tables.append(table)
        return np.zeros(len(table))

    request = RecommendRequest(("u6",), context=("age=80", "month=12"))
    recommend(run.recipe, run.store, CPU, request=request, ranker=Ranker("zeros", score))
    assert set(tables[0]["group"].to_pylist()) == {"old"}
    assert tables[0]["month_cos"].to_pylist()[0] == pytest.approx(np.cos(2 * np.pi * 11 / 12))


def test_a_file_of_the_raw_form_is_taken_as_it_is(run, recommender, tmp_path, caplog):
    file = Path(tmp_path / "people.csv")
    row = {"user_id": "nobody", "age": 31, "city": "Oslo", "when": "24/12/2020 08:00"}
    write_csv(file, [row])
    _, given = read_users(RecommendRequest(file=file), recommender)
    assert given.to_pylist() == [{"age": 31.0, "city": "Oslo", "when": "2020-12-24T08:00:00Z"}]
    assert "lacks 3 inputs of the tower" in caplog.text  # the histories


def test_triton_takes_the_raw_columns(run, recommender, tmp_path):
    result = triton(run.recipe, run.store, to=tmp_path / "models")
    assert set(result.inputs) == {*recommender.export.query_tower.inputs, "k", "exclude"}
