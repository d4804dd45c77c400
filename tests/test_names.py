"""One run whose columns have the names that spreadsheets give them, from the log to Triton."""

from __future__ import annotations

import json
import random

import numpy as np
import pyarrow.parquet as pq
import pytest
from tiny_run import CPU, Run, steps_run_eagerly
from world import World, write_csv

from workflows import recipe as recipes
from workflows.etl import etl
from workflows.export import export
from workflows.index import index
from workflows.recipe import Feature, History
from workflows.recipe.names import check_names
from workflows.recommend import RecommendRequest, recommend
from workflows.stages.recommender import ListOptions, Recommender
from workflows.stages.store import Store
from workflows.train import train
from workflows.triton import QUERY, WHOLE, triton

USER, ITEM = "User ID", "ISBN-13"
#: Categories of users and of items, numbers of users, and lists of items.
OF_USERS = ["user_id:token", "a b", "a_b", "class", "Age", "age", "self", "k"]
OF_ITEMS = ["类别", "#no", "a,b", 'a"b', "training", "categorical", "x" * 200]
NUMBERS = ["Preis €", "continuous"]
LISTS = ["items[]", "embedded, too"]
WEIGHTS = "how [much]?"
LAYERS = {"query_layers": [4], "item_layers": [4]}


def _recipe() -> str:
    features: dict = {
        USER: {"role": "user", "id": True},
        ITEM: {"role": "item", "id": True},
        "[time]": {"role": "time"},
        "[b] title": {"role": "item", "kind": "label"},
    }
    features |= {name: {"role": "user"} for name in OF_USERS}
    features |= {name: {"role": "user", "kind": "number"} for name in NUMBERS}
    features |= {name: {"role": "item"} for name in OF_ITEMS}
    features |= {n: {"role": "item", "kind": "categories", "separator": "|"} for n in LISTS}
    features[LISTS[-1]]["weights"] = WEIGHTS
    features[WEIGHTS] = {"role": "item", "kind": "weights", "separator": "|"}
    recipe = {
        "name": "odd",
        "sources": {"log": {"files": "log.csv"}},
        "interactions": "log",
        "split": {"kind": "leave_last", "valid": 1, "test": 1},
        "features": features,
        "history": {"columns": [ITEM, "a,b"], "max_len": 3},
        "model": {"combine": "concat", "dim": 4, "dims": {"#no": "one_hot"}, **LAYERS},
        "train": {"epochs": 1, "batch_size": 64},
        "evaluate": {"ks": [1], "bootstrap": 5},
    }
    return json.dumps(recipe)  # YAML, too


def _log() -> list[dict]:
    rng = random.Random(5)
    people = {
        f"u{n}": {c: f"{rng.randrange(3)}" for c in OF_USERS}
        | {c: rng.randrange(9) for c in NUMBERS}
        for n in range(9)
    }
    goods = {
        f"i{n}": {c: f"{rng.randrange(3)}" for c in OF_ITEMS}
        | {c: "|".join(f"{rng.randrange(4)}" for _ in range(2)) for c in LISTS}
        | {"[b] title": f"[/b] {n}", WEIGHTS: "1|3"}
        for n in range(8)
    }
    rows = [(f"u{n % 9}", f"i{rng.randrange(8)}", 1_600_000_000 + 60 * n) for n in range(81)]
    return [{USER: u, ITEM: i, "[time]": t, **people[u], **goods[i]} for u, i, t in rows]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    world = World(tmp_path_factory.mktemp("odd") / "raw", text=_recipe())
    world.folder.mkdir()
    write_csv(world.folder / "log.csv", _log())
    world.recipe_file.write_text(world.text, encoding="utf-8")
    recipe = recipes.load(world.recipe_file, [])
    found = Run(world, recipe, Store(world.folder.parent / "run"))
    etl(recipe, found.store, CPU, data=world.folder)
    with steps_run_eagerly():
        train(recipe, found.store, CPU)
    export(recipe, found.store, CPU)  # checks both towers, by codes and by raw values
    return found


def test_every_column_is_an_input_of_its_tower(run):
    folder = run.store.folder("export")
    taken = {
        tower: set(json.loads((folder / tower / "inputs.json").read_text(encoding="utf-8")))
        for tower in ("query_tower_raw", "item_tower_raw")
    }
    histories = {f"history_{name}" for name in (ITEM, "a,b")}
    assert taken["query_tower_raw"] == {USER, *OF_USERS, *NUMBERS} | histories
    assert taken["item_tower_raw"] == {ITEM, *OF_ITEMS, *LISTS, WEIGHTS}


def test_every_column_moves_the_embedding(run):
    export = Recommender.open(run.store, run.recipe)
    for tower, side in ((export.export.query_tower, "user"), (export.export.item_tower, "item")):
        rows = pq.read_table(run.store.folder("export") / f"{side}_features.parquet")
        whole = tower.embed(rows)
        for name in tower.inputs:
            without = tower.embed(rows.drop([name]))
            assert np.abs(without - whole).max() > 1e-6, name


def test_index_and_recommend_know_the_columns(run, tmp_path):
    new = {ITEM: "new", **dict.fromkeys(OF_ITEMS, "1"), **dict.fromkeys([*LISTS, WEIGHTS], "1|2")}
    write_csv(tmp_path / "new.csv", [new])
    assert index(run.recipe, run.store, CPU, add=tmp_path / "new.csv").added == 1
    write_csv(tmp_path / "users.csv", [{USER: "u1", "a b": "2", "Preis €": 3}])
    request = RecommendRequest(file=tmp_path / "users.csv", format="jsonl")
    options = ListOptions(k=3, keep_seen=True, only=("a,b=1",))
    result = recommend(run.recipe, run.store, CPU, options=options, request=request)
    (file,) = (result.folder / "lists").iterdir()
    (line,) = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert line[USER] == "u1"
    assert "[b] title" in line["items"][0]


def test_triton_takes_the_columns_by_their_names(run, tmp_path):
    text_format = pytest.importorskip("google.protobuf.text_format")
    pb = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    result = triton(run.recipe, run.store, to=tmp_path / "models")
    taken = {USER, *OF_USERS, *NUMBERS, f"history_{ITEM}", "history_a,b"} - {"k"}
    assert set(result.inputs) == taken | {"k_", "k", "exclude"}  # k is the length of a list
    told = {
        name: text_format.Parse(
            (result.folder / name / "config.pbtxt").read_text(encoding="utf-8"), pb.ModelConfig()
        )
        for name in (WHOLE, QUERY)
    }
    assert {tensor.name for tensor in told[WHOLE].input} == set(result.inputs)
    first = told[WHOLE].ensemble_scheduling.step[0]
    assert {t.name for t in told[QUERY].input} == set(first.input_map)
    assert set(first.input_map.values()) == taken | {"k_"}
    named = json.loads(
        (result.folder / QUERY / "1" / "model.savedmodel" / "inputs.json").read_text("utf-8")
    )
    named = {name: told["argument"] for name, told in named.items()}
    assert {named[name]: "k_" if name == "k" else name for name in named} == dict(first.input_map)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a/b", "cannot have a /"),
        (".a", "begin with a dot"),
        ("", "the name is empty"),
        ("x" * 201, "at most 200 bytes, and this one has 201"),
        ("é" * 101, "at most 200 bytes, and this one has 202"),
        ("a\nb", "a line break, a tab or another control character"),
        ("a\x1b[31m", "a line break, a tab or another control character"),
        ("x__values", "the parts of a list"),
        ("x__offsets", "the parts of a list"),
        ("user_code", "etl has a column of that name"),
        ("history_ISBN-13", "etl has a column of that name"),
        ("a b_input", "writes what the tower takes of 'a b'"),
        ("embedding", "lists have a column of that name"),
    ],
)
def test_a_name_that_something_else_needs_is_refused(name, said):
    features = {USER: Feature("user", id=True), "a b": Feature("user"), name: Feature("user")}
    with pytest.raises(ValueError, match=said):
        check_names(features, History((ITEM,)), offers=False)


@pytest.mark.parametrize("name", ["items", "history"])
def test_the_user_id_may_not_have_the_name_of_a_field_beside_it(name):
    with pytest.raises(ValueError, match="lists have a column of that name"):
        check_names({name: Feature("user", id=True)}, None, offers=False)
    check_names({name: Feature("user")}, None, offers=False)


@pytest.mark.parametrize(
    ("columns", "said"),
    [(("a b",), "'a b' is an attribute of offers"), (("Ab", "aB"), "'Ab' and 'aB' differ only")],
)
def test_attributes_of_offers_need_plain_names(columns, said):
    check_names({}, History(columns), offers=False)
    with pytest.raises(ValueError, match=said):
        check_names({}, History(columns), offers=True)
