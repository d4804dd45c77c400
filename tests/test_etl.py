"""etl from raw files to the stage: compared with pandas, with itself, and with bad input."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from merlin.io import Dataset
from merlin.schema.io.tensorflow_metadata import TensorflowMetadata
from stages import DEVICE, FITTED, PARTS, content, decoded, part, run
from world import UNKNOWN_ITEM, UNKNOWN_USER, UNSEEN, USERS, World, write_csv

from workflows.etl import EtlResult, etl
from workflows.etl.encode import writer
from workflows.ground.errors import ArtifactError, DataError, RecipeError, StorageError
from workflows.stages.etl import warn_of_changed_files
from workflows.stages.store import Store

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> EtlResult:
    """Return the stage of the world as it is; tests only read it."""
    return run(World(tmp_path_factory.mktemp("base") / "raw").write())


def expected(world: World, *, rated: bool = True) -> dict[str, list[dict[str, Any]]]:
    """Split by naive loops: drop, keep the liked, order by time, each user's last two withheld."""
    kept = [
        row
        for row in world.log
        if None not in (row["user_id"], row["item_id"], row["when"])
        and (not rated or (row["rating"] is not None and row["rating"] >= 3))
    ]
    kept.sort(key=lambda row: row["when"])  # stable, as etl must be
    mine: dict[str, list[dict[str, Any]]] = {}
    for row in kept:
        mine.setdefault(row["user_id"], []).append(row)
    name = {}
    for rows in mine.values():
        if len(rows) > 2:
            name[id(rows[-1])], name[id(rows[-2])] = "test", "valid"
    return {part: [row for row in kept if name.get(id(row), "train") == part] for part in PARTS}


# ── against naive loops ─────────────────────────────────────────────────────────────────


def test_splits_are_those_of_naive_loops(world: World, base: EtlResult) -> None:
    result = base
    for name, rows in expected(world).items():
        found = part(result, name)
        assert found["when"].tolist() == [row["when"] for row in rows]
        assert decoded(result, name, "user_id") == [row["user_id"] for row in rows]
        assert decoded(result, name, "shop") == [row["shop"] for row in rows]
        assert (found["shop"] == 1).tolist() == [row["shop"] is None for row in rows]
        if name == "train":
            assert decoded(result, name, "item_id") == [row["item_id"] for row in rows]
    valid, test = (part(result, name)["when"].tolist() for name in ("valid", "test"))
    assert valid != test


def test_joined_columns_and_numbers_are_those_of_naive_loops(world: World, base: EtlResult) -> None:
    result = base
    ages = {row["user_id"]: row["age"] for row in world.people}
    cities = {row["user_id"]: row["city"] for row in world.people}
    films = {row["item_id"]: row for row in world.films}
    rows = expected(world)
    train_ages = [ages.get(row["user_id"]) for row in rows["train"]]
    median = float(np.median([age for age in train_ages if age is not None]))
    prices = [films.get(row["item_id"], {}).get("price") for row in rows["train"]]
    mean = float(np.mean([price for price in prices if price is not None]))

    def scaled(values: list[float | None], fill: float, by: list[float | None]) -> list[float]:
        filled = np.array([fill if v is None else v for v in by])
        now = np.array([fill if v is None else v for v in values])
        return list((now - filled.mean()) / filled.std(ddof=1))

    for name in PARTS:
        found = part(result, name)
        now = [ages.get(row["user_id"]) for row in rows[name]]
        assert found["age"].tolist() == pytest.approx(scaled(now, median, train_ages), abs=1e-5)
        assert found["age_missing"].tolist() == [float(age is None) for age in now]
        now = [films.get(row["item_id"], {}).get("price") for row in rows[name]]
        assert found["price"].tolist() == pytest.approx(scaled(now, mean, prices), abs=1e-5)
        assert "price_missing" not in found
        assert decoded(result, name, "city") == [cities.get(row["user_id"]) for row in rows[name]]
        genres = [films.get(row["item_id"], {}).get("genres") or "" for row in rows[name]]
        assert decoded(result, name, "genres") == [
            [genre for genre in text.split("|") if genre] for text in genres
        ]


def test_e20_rows_point_into_the_tables(world: World, base: EtlResult) -> None:
    result = base
    users, items = (
        pq.read_table(result.folder / name / "raw.parquet").to_pandas()
        for name in ("users", "items")
    )
    for name, rows in expected(world).items():
        found = part(result, name)
        assert users["user_id"][found["user_row"]].tolist() == [row["user_id"] for row in rows]
        assert items["item_id"][found["item_row"]].tolist() == [row["item_id"] for row in rows]
    # the unknown user is last, and has the code of an id that was never seen
    assert users["user_id"].iloc[-1] is None
    codes = part(result, "users")
    assert codes["user_id"].iloc[-1] == 2
    assert codes["city"].iloc[-1] == 1
    assert codes["age_missing"].iloc[-1] == 1
    assert len(codes) == len(users) == len(world.people) + 2  # and the stranger
    assert set(items["item_id"]) >= {UNSEEN, UNKNOWN_ITEM}
    assert not items.set_index("item_id")["in_train"][UNSEEN]
    assert items.set_index("item_id")["title"][UNSEEN] == "Unseen"


def test_e20_every_count_of_the_report(world: World, base: EtlResult) -> None:
    result = base
    report, rows = result.report, expected(world)
    known = {row["user_id"] for row in world.people}
    films = {row["item_id"] for row in world.films}
    with_ids = [r for r in world.log if None not in (r["user_id"], r["item_id"], r["when"])]
    assert report.read == {"log": 163, "people": 8, "films": 13}
    assert report.dropped == {
        "no user_id": 1,
        "no item_id": 1,
        "no when": 1,
        "not rating >= 3": sum(row["rating"] < 3 for row in with_ids),
    }
    assert report.unmatched == {
        "people": sum(row["user_id"] not in known for row in with_ids),
        "films": sum(row["item_id"] not in films for row in with_ids),
    }
    assert report.rows == {name: len(of) for name, of in rows.items()}
    assert sum(report.rows.values()) + sum(report.dropped.values()) == 163
    assert report.users == {"rows": 9, "in_train": 9}
    assert report.items == {
        "rows": len(films | {row["item_id"] for row in rows["train"]}),
        "in_train": len({row["item_id"] for row in rows["train"]}),
    }
    assert report.conflicts == {}
    seen = {row["item_id"] for row in rows["train"]}
    for name in PARTS:
        unseen = np.mean([row["item_id"] not in seen for row in rows[name]])
        assert report.unseen[name]["item_id"] == pytest.approx(unseen)
        null = np.mean([row["shop"] is None for row in rows[name]])
        assert report.null[name]["shop"] == pytest.approx(null)
    for file in ("log.csv", "people.csv", "films.csv"):
        digest = hashlib.sha256((world.folder / file).read_bytes()).hexdigest()
        assert report.files[file] == digest
    told = json.loads((result.folder / "report.json").read_text(encoding="utf-8"))
    assert told["dropped"] == report.dropped
    manifest = Store(result.folder.parent).read("etl", world.recipe())
    assert manifest.rows == {**report.rows, "users": 9, "items": report.items["rows"]}


def test_unseen_values_and_conflicts_are_counted(world: World) -> None:
    last = expected(world)["test"]
    for row in last[:4]:
        row["shop"] = "fax"  # only ever in the test part
    for n, row in enumerate(world.log):
        row["mood"] = str(n)  # a trait that changes with every row
    world.write()
    result = run(world, "features.mood={role: user}")
    assert result.report.unseen["test"]["shop"] == pytest.approx(4 / len(last))
    assert result.report.unseen["train"]["shop"] == 0
    assert result.report.conflicts == {"mood": 9}
    assert (part(result, "test")["shop"] == 2).sum() == 4


def test_e18_every_row_counts_that_has_its_ids_and_a_time(world: World) -> None:
    result = run(world, "filter=[]")
    assert result.report.rows == {
        name: len(rows) for name, rows in expected(world, rated=False).items()
    }
    assert list(result.report.dropped) == ["no user_id", "no item_id", "no when"]
    assert sum(result.report.rows.values()) == 160


@pytest.mark.parametrize(
    ("rule", "keep"),
    [
        ("{column: rating, is: '==', value: 5}", lambda row: row["rating"] == 5),
        ("{column: shop, is: '!=', value: web}", lambda row: row["shop"] == "app"),
        (
            "{column: price, is: '<', value: 1}",
            lambda row: row["item_id"] in ("000", "001", "002"),
        ),
        ("{column: city, is: in, value: [Oslo, Rom]}", lambda row: row["user_id"] in USERS[1::2]),
        ("{column: shop, is: not_null}", lambda row: row["shop"] is not None),
        ("{column: when, is: '<=', value: 880000003}", lambda row: row["when"] <= 880_000_003),
        (
            "{column: when, is: '>', value: '1997-11-20T04:26:43'}",
            lambda row: row["when"] > 880_000_003,
        ),
    ],
    ids=["own", "context", "joined number", "joined text", "not null", "seconds", "date"],
)
def test_e03_rows_are_kept_by_any_column(
    world: World, rule: str, keep: Callable[[dict[str, Any]], bool]
) -> None:
    result = run(world, f"filter=[{{kind: keep, {rule[1:]}]")
    with_ids = [r for r in world.log if None not in (r["user_id"], r["item_id"], r["when"])]
    assert 0 < sum(map(keep, with_ids)) < 160
    assert sum(result.report.rows.values()) == sum(map(keep, with_ids))
    assert sum(result.report.dropped.values()) == 3 + 160 - sum(map(keep, with_ids))


def test_rows_without_a_rating_are_not_kept(world: World, base: EtlResult) -> None:
    before = base.report
    chosen = [row for row in world.log if row["rating"] == 4][:5]
    for row in chosen:
        row["rating"] = None
    world.write()
    after = run(world).report
    assert after.dropped["not rating >= 3"] == before.dropped["not rating >= 3"] + 5


# ── joins and missing numbers ───────────────────────────────────────────────────────────


def test_e05_drop_drops_and_counts(world: World, base: EtlResult) -> None:
    strangers = sum(row["user_id"] == UNKNOWN_USER for row in world.log)
    users = base.report.users["rows"]
    report = run(
        world,
        "join=[{table: people, key: user_id, on_missing: drop}, {table: films, key: item_id}]",
    ).report
    assert strangers > 10
    assert report.dropped["user_id not in people"] == report.unmatched["people"] == strangers
    assert report.users["rows"] == users - 1


def test_e05_keep_keeps_the_row_count(world: World, base: EtlResult) -> None:
    kept = sum(len(rows) for rows in expected(world).values())
    assert sum(base.report.rows.values()) == kept
    assert base.report.unmatched["people"] == 17


def test_e05_fill_gives_values_to_those_whom_no_table_knows(world: World) -> None:
    for row in world.people:
        row["age"] = row["age"] or 30
    world.write()
    fill = "{table: people, key: user_id, on_missing: fill, fill: {age: 33, city: nowhere}}"
    result = run(
        world,
        f"join=[{fill}, {{table: films, key: item_id}}]",
        "features.age={role: user, kind: number}",
    )
    assert result.report.unmatched["people"] == 17
    assert sum(result.report.rows.values()) == sum(len(rows) for rows in expected(world).values())
    cities = {row["user_id"]: row["city"] for row in world.people} | {UNKNOWN_USER: "nowhere"}
    for name, rows in expected(world).items():
        # a person without a city is known, and keeps none
        assert decoded(result, name, "city") == [cities[row["user_id"]] for row in rows]
        assert np.isfinite(part(result, name)["age"]).all()
    users = pq.read_table(result.folder / "users" / "raw.parquet").to_pandas().set_index("user_id")
    assert (users["age"][UNKNOWN_USER], users["city"][UNKNOWN_USER]) == (33, "nowhere")
    assert users["city"].iloc[-1] is None  # somebody unknown is nobody in particular


@pytest.mark.parametrize(
    ("join", "message"),
    [
        ("on_missing: fill", "on_missing: fill goes with values in `fill`, and with no others"),
        ("fill: {age: 3}", "on_missing: fill goes with values in `fill`, and with no others"),
        (
            "on_missing: fill, fill: {age: old}",
            "join of 'people' fills 'age', a number, with 'old'; a number is filled with a number",
        ),
        ("on_missing: fill, fill: {city: ''}", "fills 'city' with an empty text, which never is"),
        ("on_missing: fill, fill: {town: x}", "fills 'town', which the recipe does not name"),
    ],
)
def test_a_fill_that_does_not_fit_is_refused(world: World, join: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        world.recipe(f"join=[{{table: people, key: user_id, {join}}}]")


def test_a_column_whose_values_are_all_rare_is_named(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    run(world, "vocabulary.min_count=1000", "features.item_id.vocabulary={min_count: 1}")
    assert "column 'user_id': no value occurs 1000 times in train" in caplog.text
    assert "column 'item_id': no value occurs" not in caplog.text


def test_a_missing_number_without_policy_is_refused_at_its_row(world: World) -> None:
    with pytest.raises(
        DataError,
        match=r"raw/people\.csv, row 2, column 'age': the number is missing, as in 1 more row, "
        r"and the recipe has no policy for it\. Set features\.age\.fill to median, mean or a "
        r"number \(and indicator: true",
    ):
        run(world, "features.age={role: user, kind: number}")
    assert not (world.folder.parent / "run" / "etl").exists()


def test_a_number_that_is_missing_for_want_of_a_match_is_refused(world: World) -> None:
    for row in world.people:
        row["age"] = row["age"] or 30
    world.write()
    age = "features.age={role: user, kind: number}"
    with pytest.raises(
        DataError,
        match=r"^17 interactions have a 'user_id' that is not in source 'people' \(people\.csv\), "
        r"so their number 'age' is missing.*, or `on_missing: drop` or `fill` in the join of 'pe",
    ):
        run(world, age)
    drop = "join=[{table: people, key: user_id, on_missing: drop}, {table: films, key: item_id}]"
    assert run(world, age, drop).report.rows["train"] > 0


def test_a_gap_in_a_row_that_is_dropped_anyway_is_no_fault(world: World) -> None:
    for row in world.log:
        row["paid"] = 1.0 + (row["rating"] or 0)
    with_gap = next(row for row in world.log if row["user_id"] is None)
    with_gap["paid"] = None
    world.write()
    paid = "features.paid={role: context, kind: number}"
    assert run(world, paid).report.dropped["no user_id"] == 1
    world.log[7]["paid"] = None
    world.write()
    with pytest.raises(
        DataError, match=r"raw/log\.csv, row 8, column 'paid': the number is missing"
    ):
        run(world, paid)


@pytest.mark.parametrize(
    ("policy", "fill"),
    [("median", np.median), ("mean", np.mean), ("-1", lambda ages: -1.0)],
)
def test_each_policy_fills_the_gaps(world: World, policy: str, fill: Callable[..., float]) -> None:
    result = run(world, f"features.age={{role: user, kind: number, fill: {policy}}}")
    ages = {row["user_id"]: row["age"] for row in world.people}
    known = [ages.get(row["user_id"]) for row in expected(world)["train"]]
    told = json.loads((result.folder / "statistics.json").read_text(encoding="utf-8"))
    assert told["age"]["fill"] == pytest.approx(fill([age for age in known if age is not None]))
    assert "age_missing" not in part(result, "train")


def test_e06_no_number_is_missing_after_etl(world: World, base: EtlResult) -> None:
    """People without an age, films without a price, and those whom no table knows."""
    ages = {row["user_id"]: row["age"] for row in world.people}
    gaps = [
        row for rows in expected(world).values() for row in rows if not ages.get(row["user_id"])
    ]
    assert len(gaps) > 20
    for name in (*PARTS, "users", "items"):
        found = part(base, name).select_dtypes("float")
        assert found.notna().all().all()
        assert len(found.columns) >= 1
    for policy in ("median", "mean", "0.5"):
        price = f"features.price={{role: item, kind: number, fill: {policy}, indicator: true}}"
        result = run(world, price)
        for name in (*PARTS, "items"):
            found = part(result, name)
            assert found["price"].notna().all()
            assert set(found["price_missing"]) == {0.0, 1.0}


def test_e06_rows_without_a_number_may_be_left_out_instead(world: World) -> None:
    ages = {row["user_id"]: row["age"] for row in world.people}
    rule = "{kind: keep, column: age, is: not_null}"
    result = run(world, "features.age={role: user, kind: number}", f"filter=[{rule}]")
    whole = [row for rows in expected(world, rated=False).values() for row in rows]
    without = sum(ages.get(row["user_id"]) is None for row in whole)
    assert result.report.dropped["no age"] == without > 20
    assert sum(result.report.rows.values()) == 160 - without
    for name in (*PARTS, "users"):
        assert part(result, name)["age"].notna().all()
    late = rule.replace("}", ", stage: after}")  # statistics would see the gaps
    with pytest.raises(DataError, match="column 'age': the number is missing"):
        run(world, "features.age={role: user, kind: number}", f"filter=[{late}]")


# ── other splits ────────────────────────────────────────────────────────────────────────


def test_weights_go_to_the_loss_as_they_are_and_to_no_tower(world: World) -> None:
    for n, row in enumerate(world.log):
        row["worth"] = None if n % 7 == 0 else n / 4
    world.write()
    result = run(world, "features.worth={role: weight, kind: number, fill: 0.5}")
    worth = [0.5 if row["worth"] is None else row["worth"] for row in expected(world)["train"]]
    found = part(result, "train")
    assert found["row_weight"].tolist() == worth
    assert found["row_weight"].dtype == np.float32
    assert 0.5 in worth
    assert "worth" not in found
    schema = (result.folder / "train" / "schema.pbtxt").read_text(encoding="utf-8")
    assert 'name: "row_weight"' in schema


def test_a_negative_weight_is_refused(world: World) -> None:
    for row in world.log:
        row["worth"] = 1.0
    disliked = next(row for row in world.log if row["rating"] < 3)
    disliked["worth"] = -7.0  # it is left out by the recipe's filter
    world.write()
    weight = "features.worth={role: weight, kind: number}"
    assert run(world, weight).report.rows["valid"] == 9
    expected(world)["train"][0]["worth"] = -2.5
    world.write()
    with pytest.raises(
        DataError,
        match=r"1 interactions have a negative weight, the least -2\.5.* out with `filter:`",
    ):
        run(world, weight)


def test_given_files_are_taken_as_they_are(world: World) -> None:
    rows = [row for row in world.log if None not in (row["user_id"], row["item_id"], row["when"])]
    newcomer = {**rows[0], "user_id": "newcomer", "rating": 5}
    for name, of in (("a", rows[:100]), ("b", rows[100:120]), ("c", [*rows[120:], newcomer])):
        write_csv(world.folder / f"{name}.csv", of)
    sources = [f"sources.{name}={{files: {name}.csv}}" for name in "abc"]
    split = "split={kind: given, valid: b, test: c}"
    result = run(world, *sources, "interactions=a", split)
    for name, of in (("train", rows[:100]), ("valid", rows[100:120]), ("test", rows[120:])):
        kept = [r for r in of if r["rating"] >= 3] + [newcomer] * (name == "test")
        kept.sort(key=lambda row: row["when"])
        assert part(result, name)["when"].tolist() == [r["when"] for r in kept]
        assert decoded(result, name, "user_id") == [
            None if r["user_id"] == "newcomer" else r["user_id"] for r in kept
        ]
    found = part(result, "test")
    assert (found["user_row"][found["user_id"] == 2] < 0).all()
    assert (found["user_row"] < 0).sum() == 1


def test_people_that_no_table_knows_stay_one_person_each(world: World) -> None:
    late = world.log[-1]["when"] + 100
    for n, user in enumerate(["new-1", "new-2", "new-1", "new-1", "new-2", "new-3"]):
        world.log.append({**world.log[5], "user_id": user, "when": late + n, "rating": 5})
    world.write()
    result = run(world, "split={kind: time, valid: 0.02, test: 0.03}")
    strange: dict[int, int] = {}
    for name in ("valid", "test"):
        found = part(result, name)
        assert ((found["user_row"] < 0) == (found["when"] >= late)).all()
        strange |= dict(zip(found["when"], found["user_row"], strict=True))
    one, two, three = [strange[late + n] for n in (0, 1, 5)]
    assert [strange[late + n] for n in range(6)] == [one, two, one, one, two, three]
    assert len({one, two, three}) == 3
    assert max(one, two, three) < 0
    assert (part(result, "train")["user_row"] >= 0).all()


def test_by_user_leaves_the_withheld_users_out_of_every_fitted_file(world: World) -> None:
    result = run(world, "split={kind: by_user, valid: 0.2, test: 0.2}")
    train = set(decoded(result, "train", "user_id"))
    assert len(train) == 5
    vocabulary = pq.read_table(result.folder / "vocabulary" / "user_id.parquet")
    assert set(vocabulary["value"].to_pylist()) == train
    for name in ("valid", "test"):
        assert set(part(result, name)["user_id"]) == {2}


@pytest.mark.parametrize("history", [[], ["history.columns=[item_id]"]], ids=["plain", "history"])
def test_a_part_that_is_not_asked_for_is_empty_and_of_the_same_kind(
    world: World, history: list[str]
) -> None:
    result = run(world, "split={kind: time, valid: 0, test: 0.2}", *history)
    train, valid = (
        pq.read_schema(result.folder / name / "part-0.parquet").remove_metadata()
        for name in ("train", "valid")
    )
    assert valid.equals(train)
    assert len(part(result, "valid")) == 0
    assert result.report.rows["valid"] == 0
    schemas = {(result.folder / name / "schema.pbtxt").read_bytes() for name in PARTS}
    assert len(schemas) == 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["filter=[{kind: keep, column: rating, is: '>', value: 5}]"],
            r"The train split is empty \(train 0 rows\)\. 163 rows were dropped.*not rating",
        ),
        (["split={kind: leave_last, valid: 90}"], r"The valid split is empty \(train 110, valid 0"),
        (["split={kind: by_user, valid: 0.01}"], r"The valid split is empty \(train \d+, valid 0"),
    ],
)
def test_an_empty_part_is_refused_and_nothing_is_left(
    world: World, overrides: list[str], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        run(world, *overrides)
    assert [p.name for p in (world.folder.parent / "run").iterdir()] == [".lock"]


def test_rows_that_all_lack_an_id_leave_nothing(world: World) -> None:
    for row in world.log:
        row["user_id"] = None
    world.write()
    with pytest.raises(
        DataError, match=r"split is empty \(train 0 rows\)\. 163 rows were dropped.*user_id \(163\)"
    ):
        run(world)


# ── columns of nothing ──────────────────────────────────────────────────────────────────


def test_a_column_without_any_value_is_encoded_as_such(world: World) -> None:
    for row in world.films:
        row["genres"] = row["price"] = None
    for row in world.people:
        row["city"] = None
    world.write()
    result = run(world)
    for name in PARTS:
        found = part(result, name)
        assert [len(cell) for cell in found["genres"]] == [0] * len(found)
        assert set(found["city"]) == {1}
        assert set(found["price"]) == {0.0}
        schema = pq.read_schema(result.folder / name / "part-0.parquet")
        assert schema.field("genres").type.value_type == pa.int32()
    for name in ("genres", "city"):
        assert len(pq.read_table(result.folder / "vocabulary" / f"{name}.parquet")) == 0
    merlin = TensorflowMetadata.from_proto_text_file(str(result.folder / "train"), "schema.pbtxt")
    assert merlin.to_merlin_schema()["genres"].is_list


@pytest.mark.parametrize("first", [None, "", "a|b"])
def test_the_genres_of_the_first_film_do_not_change_the_schema(
    world: World, base: EtlResult, first: str | None
) -> None:
    expected_schema = (base.folder / "train" / "schema.pbtxt").read_bytes()
    top = expected(world)["train"][0]["item_id"]
    for row in world.films:
        if row["item_id"] == top:
            row["genres"] = first
    world.write()
    result = run(world)
    assert (result.folder / "train" / "schema.pbtxt").read_bytes() == expected_schema
    schema = pq.read_schema(result.folder / "items" / "part-0.parquet")
    assert schema.field("genres").type.value_type == pa.int32()


# ── byte for byte ───────────────────────────────────────────────────────────────────────


def test_e12_two_runs_are_equal_to_the_last_byte(world: World, base: EtlResult) -> None:
    one, two = base, run(world, name="two")
    assert content(one.folder) == content(two.folder)
    assert len(content(one.folder)) > 15
    manifests = [
        json.loads((result.folder / "manifest.json").read_text(encoding="utf-8"))
        for result in (one, two)
    ]
    for manifest in manifests:
        manifest.pop("created")
    assert manifests[0] == manifests[1]


@pytest.mark.parametrize(
    "split", ["split={kind: leave_last}", "split={kind: time, valid: 0.1, test: 0.1}"]
)
def test_e15_no_row_after_the_cut_changes_a_fitted_file(world: World, split: str) -> None:
    result = run(world, split, name="before")
    before = content(result.folder)
    withheld = {
        (user, when)
        for name in ("valid", "test")
        for user, when in zip(
            decoded(result, name, "user_id"), part(result, name)["when"], strict=True
        )
    }
    trained = set(
        zip(decoded(result, "train", "user_id"), part(result, "train")["when"], strict=True)
    )
    changed = 0
    for row in world.log:
        if (row["user_id"], row["when"]) in withheld - trained and row["rating"] >= 3:
            row.update(item_id="new-item", shop="new-shop", rating=5)
            changed += 1
    assert changed >= 10
    world.write()
    after = run(world, split, name="after")
    assert content(after.folder, *FITTED) == content(result.folder, *FITTED)
    for name in ("valid", "test"):
        assert content(after.folder, name) != content(result.folder, name)
    # and a row before the cut does change them: its shop is counted, its user's table row too
    row = next(
        row
        for row in world.log
        if (row["user_id"], row["when"]) in trained - withheld and row["rating"] >= 3
    )
    row["shop"] = "another"
    world.write()
    control = content(run(world, split, name="control").folder, *FITTED)
    changed_files = {name for name, data in control.items() if data != before[name]}
    assert {"vocabulary/shop.parquet", "train/part-0.parquet"} <= changed_files


def test_films_that_nobody_saw_change_no_statistic(world: World, base: EtlResult) -> None:
    before = base.folder
    unseen = next(row for row in world.films if row["item_id"] == UNSEEN)
    unseen.update(price=1e6, genres="never|seen")
    world.write()
    after = run(world, name="after").folder
    fitted = ("vocabulary", "statistics.json", "train", "valid", "test", "users")
    assert content(after, *fitted) == content(before, *fitted)
    assert content(after, "items") != content(before, "items")


def test_the_order_of_side_tables_does_not_matter(world: World, base: EtlResult) -> None:
    before = content(base.folder)
    world.people.reverse()
    world.films.reverse()
    world.write()
    after = content(run(world).folder)
    assert {name for name, data in after.items() if data != before[name]} == {"report.json"}


def test_the_order_of_the_log_matters_only_where_time_ties(world: World) -> None:
    for n, row in enumerate(world.log):  # one second each: no ties
        row["when"] = row["when"] and 880_000_000 + n
    world.write()
    before = content(run(world).folder)
    random.Random(3).shuffle(world.log)
    world.write()
    after = content(run(world).folder)
    assert {name for name, data in after.items() if data != before[name]} == {"report.json"}


def test_the_log_may_come_in_several_files(world: World, base: EtlResult) -> None:
    before = content(base.folder)
    (world.folder / "log.csv").unlink()
    write_csv(world.folder / "log-1.csv", world.log[:70])
    write_csv(world.folder / "log-2.csv", world.log[70:])
    after = content(run(world, "sources.log.files='log-*.csv'").folder)
    assert {name for name, data in after.items() if data != before[name]} == {"report.json"}


def test_e01_text_and_parquet_give_the_same_stage(world: World, base: EtlResult) -> None:
    before = content(base.folder)
    frame = pd.DataFrame(world.log)
    frame["when"] = frame["when"].astype("Int64")
    frame.to_parquet(world.folder / "log.parquet")
    after = content(run(world, "sources.log.files=log.parquet").folder)
    assert {name for name, data in after.items() if data != before[name]} == {"report.json"}


def told_of(folder: Path, machine: Path) -> list[str]:
    """Return the files of a stage in which a path of this machine stands."""
    needles = [str(path).encode() for path in (machine, ROOT, Path(sys.prefix))]
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and any(needle in path.read_bytes() for needle in needles)
    )


def test_nothing_tells_of_this_machine(world: World) -> None:
    plain = run(world, name="plain")
    assert told_of(plain.folder, world.folder.parent) == []
    # only a recipe that itself names such a path keeps it
    named = run(world, f"sources.log.files={world.folder / 'log.csv'}", name="named")
    assert told_of(named.folder, world.folder.parent) == ["manifest.json"]


# ── what others read ────────────────────────────────────────────────────────────────────


def test_e01_every_part_is_a_merlin_dataset_with_its_schema(world: World) -> None:
    result = run(world, "history.columns=[item_id]")
    for name in (*PARTS, "users", "items"):
        folder = result.folder / name
        dataset = Dataset(str(folder / "part-0.parquet"), engine="parquet", cpu=True)
        frame = dataset.to_ddf().compute()
        beside = TensorflowMetadata.from_proto_text_file(str(folder), "schema.pbtxt")
        schema = beside.to_merlin_schema()
        assert schema.column_names == list(frame.columns)
        for column in schema:
            cells = frame[column.name]
            if column.is_list:
                assert all(cell.dtype == column.dtype.to_numpy for cell in cells)
                codes = np.concatenate(cells.tolist())
            else:
                assert cells.dtype == column.dtype.to_numpy
                codes = cells.to_numpy()
            if column.int_domain is not None and len(codes):
                assert 0 <= codes.min() <= codes.max() <= column.int_domain.max, column.name


def test_a_folder_is_read_with_the_schema_beside_it(base: EtlResult) -> None:
    dataset = Dataset(str(base.folder / "train" / "*.parquet"), engine="parquet", cpu=True)
    assert "user_id" in dataset.to_ddf().columns
    assert dataset.schema.column_names[0] == "user_id"


# ── bad input ───────────────────────────────────────────────────────────────────────────


def _without_user_id(world: World) -> None:
    for row in world.people:
        row["userid"] = row.pop("user_id")


def _twice(world: World) -> None:
    world.people += [dict(world.people[0]), dict(world.people[0])]


def _nameless(world: World) -> None:
    world.films.append({**world.films[0], "item_id": None})


def _no_rating(world: World) -> None:
    for row in world.log:
        row["ratng"] = row.pop("rating")


def _unparsable(world: World) -> None:
    world.log[11]["when"] = "noon"


def _dear(world: World) -> None:
    world.films[2]["price"] = "much"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            _without_user_id,
            r"source 'people' \(people\.csv\) has no column 'user_id' \(did you mean 'u",
        ),
        (
            _twice,
            r"people\.csv\): 1 ids of 'user_id' occur more than once.*'0108775015' \(3 t",
        ),
        (_nameless, r"films\.csv\): 1 rows have no 'item_id', the first is .*films\.csv, row 14"),
        (
            _no_rating,
            r"source 'log' \(log\.csv\) has no column 'rating'.*\(did you mean 'ratng'\?\)",
        ),
        (_unparsable, r"raw/log\.csv, column 'when', row 12: 'noon' cannot be read as double"),
        (_dear, r"raw/films\.csv, column 'price', row 3: 'much' cannot be read as float"),
    ],
)
def test_bad_input_is_named_and_the_old_result_kept(
    world: World, base: EtlResult, spoil: Callable[[World], None], message: str
) -> None:
    before = content(base.folder)
    shutil.copytree(base.folder.parent, world.folder.parent / "run")
    spoil(world)
    world.write()
    with pytest.raises(DataError, match=message):
        run(world)
    assert content(world.folder.parent / "run" / "etl") == before
    assert sorted(p.name for p in (world.folder.parent / "run").iterdir()) == [".lock", "etl"]


def test_no_space_leaves_the_old_result(
    world: World, base: EtlResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(base.folder)
    shutil.copytree(base.folder.parent, world.folder.parent / "run")
    write_table, filled = pq.write_table, []

    def fill_up(table: Any, path: Path, **settings: Any) -> None:
        if path.parts[-2:] == ("items", "raw.parquet"):
            path.symlink_to("/dev/full")
            filled.append(path)
        write_table(table, path, **settings)

    monkeypatch.setattr(writer.pq, "write_table", fill_up)
    with pytest.raises(StorageError, match=r"no space is left on the device: free some, or choose"):
        run(world)
    assert len(filled) == 1
    assert content(world.folder.parent / "run" / "etl") == before


def test_e14_a_shorter_vocabulary_is_counted_as_unseen(world: World) -> None:
    result = run(world, "features.item_id.vocabulary={max_values: 3, oov_buckets: 2}")
    rows = [row["item_id"] for row in expected(world)["train"]]
    top = sorted(set(rows), key=lambda item: (-rows.count(item), item.encode()))[:3]
    codes = part(result, "train")["item_id"]
    assert [c >= 4 for c in codes] == [item in top for item in rows]
    assert set(codes[codes < 4]) <= {2, 3}
    share = np.mean([item not in top for item in rows])
    assert result.report.unseen["train"]["item_id"] == pytest.approx(share)


# ── growing ─────────────────────────────────────────────────────────────────────────────


def test_codes_are_kept_when_vocabularies_grow(world: World, base: EtlResult) -> None:
    old = base
    for row in world.log[:60]:
        if row["item_id"] == "000":
            row["item_id"] = "brand-new"
    world.write()
    grown = etl(
        world.recipe(),
        Store(world.folder.parent / "grown"),
        DEVICE,
        data=world.folder,
        grow_from=Store(old.folder.parent),
    )
    store = Store(grown.folder.parent)
    with pytest.raises(ArtifactError, match=r"is the run that is being written.*--run grown-2 --g"):
        etl(world.recipe(), store, DEVICE, data=world.folder, grow_from=store)
    before, after = (
        pq.read_table(r.folder / "vocabulary" / "item_id.parquet").to_pandas() for r in (old, grown)
    )
    assert after["value"].tolist() == [*before["value"], "brand-new"]
    assert after["code"].tolist() == [*before["code"], before["code"].max() + 1]
    assert decoded(grown, "train", "item_id") == [
        row["item_id"] for row in expected(world)["train"]
    ]
    told = [(r.folder / "statistics.json").read_bytes() for r in (old, grown)]
    assert told[0] == told[1]


# ── other processes ─────────────────────────────────────────────────────────────────────


#: Imports once, then forks a `two-tower etl` again and again and kills it at a random moment.
KILLER = """
import json, os, random, shutil, signal, sys, time
from pathlib import Path
from workflows import cli, recipe
from workflows.ground.errors import MissingStage
from workflows.stages.etl import warn_of_changed_files
from workflows.stages.store import Store
import workflows.ground.device
workflows.ground.device.choose("cpu")
import workflows.etl

root, path, kills = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
of, store, rng = recipe.load(Path(path)), Store(root), random.Random(5)

def start():
    child = os.fork()
    if child == 0:
        sys.argv = ["two-tower", "etl", "--device", "cpu", "--recipe", path, "--run", str(root)]
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        cli.main()
        os._exit(0)
    return child

def found():
    try:
        store.read("etl", of)  # it verifies every file
    except MissingStage:
        return "none"
    return store.digest("etl")

begin = time.perf_counter()
assert os.waitpid(start(), 0)[1] == 0
seconds = time.perf_counter() - begin
whole = found()
told = {"whole": whole, "none": 0, "old": 0, "killed": 0}
for kill in range(kills):
    fresh = kill % 4 == 0
    if fresh:
        shutil.rmtree(root)
    child = start()
    time.sleep(rng.uniform(0, seconds))
    os.kill(child, signal.SIGKILL)
    told["killed"] += os.WIFSIGNALED(os.waitpid(child, 0)[1])
    now = found()
    assert now == whole or (fresh and now == "none"), (kill, now)
    told["none" if now == "none" else "old"] += 1
    if now == "none":
        assert os.waitpid(start(), 0)[1] == 0 and found() == whole
print(json.dumps(told))
"""


@pytest.mark.quality
def test_killed_runs_leave_the_old_result_or_none(world: World, base: EtlResult) -> None:
    """A few kills of every verb are in test_torture.py."""
    kills = 40
    folder = world.folder.parent / "killed"
    done = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-c", KILLER),
            *(str(folder), str(world.recipe_file), str(kills)),
        ],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "HOME": str(world.folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["whole"] == Store(base.folder.parent).digest("etl")
    assert told["none"] + told["old"] == kills
    assert told["killed"] >= kills // 2, "most of them must have been killed in the middle"
    assert told["none"] >= 1
    run(world, name="killed")  # the next run succeeds, and leaves nothing of the others
    assert content(folder / "etl") == content(base.folder)
    assert sorted(p.name for p in folder.iterdir()) == [".lock", "etl"]


@pytest.mark.quality
@pytest.mark.parametrize("seed", ["1", "2"])
def test_a_process_with_another_hash_seed_writes_the_same_bytes(
    world: World, base: EtlResult, seed: str
) -> None:
    folder = world.folder.parent / "seeded"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "workflows", "etl", "--device", "cpu"),
            *("--recipe", str(world.recipe_file), "--run", str(folder)),
        ],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "HOME": str(world.folder), "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert content(folder / "etl") == content(base.folder)


# ── raw files that were written again ───────────────────────────────────────────────────


def test_raw_files_that_were_written_after_etl_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(tmp_path / "raw").write()
    store = Store(run(world).folder.parent)
    warn_of_changed_files(store, world.folder)
    warn_of_changed_files(store, tmp_path / "elsewhere")  # they need not be there any more
    assert not [record for record in caplog.records if "written after" in record.message]
    later = time.time() + 60
    os.utime(world.folder / "films.csv", (later, later))
    warn_of_changed_files(store, world.folder)
    (said,) = (r.message for r in caplog.records if "written after" in r.message)
    assert said == (
        "films.csv: written after etl read it. Run `two-tower etl` (or `make etl`) again if its "
        "content is another one."
    )
