"""The rows of each part: sorted and split whatever their chunks, with every drop counted."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stages import decoded, part, run
from world import UNKNOWN_ITEM, UNSEEN, World, write_csv

from workflows.etl import EtlResult
from workflows.etl.counts import DropCounts
from workflows.etl.shape import interactions
from workflows.ground.errors import DataError, RecipeError
from workflows.raw import dictionaries

RULES = [
    "{kind: per_day, n: 3}",
    "{kind: users_with, column: rating, is: '>=', value: 4}",
    "{kind: top_users, n: 6}",
    "{kind: keep, column: rating, is: '>=', value: 2, stage: after}",
    "{kind: sample_users, share: 0.9, stage: after}",
]


def log(n: int, *, sorted_: bool) -> pd.DataFrame:
    rng = random.Random(3)
    times = [rng.randrange(20) for _ in range(n)]
    return pd.DataFrame(
        {
            "at": sorted(times) if sorted_ else times,
            "name": [None if k % 9 == 0 else f"Ж{k}" for k in range(n)],
            "tags": [[str(k)] * (k % 3) for k in range(n)],
            "number": [k / 2 for k in range(n)],
        }
    )


@pytest.mark.parametrize("sorted_", [True, False])
def test_order_is_that_of_time_and_ties_stand_as_they_stood(
    sorted_: bool,
) -> None:
    frame = log(100, sorted_=sorted_)
    table = pa.Table.from_pandas(frame, preserve_index=False)
    chunks = pa.concat_tables([table.slice(n, 13) for n in range(0, 100, 13)])
    found = interactions._sort_by_time(chunks, "at")
    expected = frame.sort_values("at", kind="stable")
    assert found.to_pylist() == pa.Table.from_pandas(expected, preserve_index=False).to_pylist()
    assert [dictionaries.decode(column).type for column in found.columns] == table.schema.types


def test_users_are_numbered_across_chunks() -> None:
    ids = pa.chunked_array([["b", "a"], [], ["a", "c", "b"]], pa.string())
    assert interactions._number_ids(ids).tolist() == [0, 1, 1, 2, 0]


def test_every_dropped_row_has_a_cause() -> None:
    counts = DropCounts()
    table = pa.table({"x": [1, 2, 3]})
    mask = pa.array([True, None, False])
    assert counts.keep(table, mask, "why").to_pydict() == {"x": [1]}
    counts.keep(table, mask, "why")
    assert counts.dropped == {"why": 4}


@pytest.mark.parametrize(
    "split", ["{kind: time, valid: 0, test: 0.3}", "{kind: leave_last, valid: 2, test: 2}"]
)
def test_all_rows_are_in_a_part_or_counted(world: World, split: str) -> None:
    """Every rule at once, also with a part that has no rows."""
    result = run(
        world,
        f"filter=[{', '.join(RULES)}]",
        f"split={split}",
        "derive=[{kind: price_cluster, of: price, to: cluster, k: 3}, "
        "{kind: bins, of: price, to: dear, edges: [1], labels: [no, yes]}, "
        "{kind: path_level, of: title, to: word, level: 1, levels: 2, separator: ' '}]",
        "features.cluster={role: item}",
    )
    report = result.report
    assert sum(report.rows.values()) + sum(report.dropped.values()) == 163
    assert len(report.dropped) == 3 + len(RULES)
    assert len(part(result, "valid")) == report.rows["valid"]


# ── columns of joined tables ────────────────────────────────────────────────────────────


def raw_table(result: EtlResult, table: str) -> dict[str, dict[str, Any]]:
    """Return id → row of a table before encoding."""
    found = pq.read_table(result.folder / table / "raw.parquet").to_pylist()
    return {row["user_id" if table == "users" else "item_id"]: row for row in found}


@pytest.mark.parametrize(("role", "prefix"), [("user", "U"), ("item", "I")])
def test_a_column_of_both_joined_tables_is_taken_from_that_of_its_role(
    world: World, role: str, prefix: str
) -> None:
    world.people = [{**row, "land": f"U{n}"} for n, row in enumerate(world.people)]
    world.films = [{**row, "land": f"I{n}"} for n, row in enumerate(world.films)]
    world.write()
    result = run(world, f"features.land={{role: {role}}}")
    lands = [land for land in decoded(result, "train", "land") if land is not None]
    assert len(lands) > 50
    assert {land[0] for land in lands} == {prefix}
    told = raw_table(result, f"{role}s").values()
    assert {row["land"][0] for row in told if row["land"] is not None} == {prefix}


@pytest.mark.parametrize(
    "setting",
    [
        "filter=[{kind: keep, column: land, is: '==', value: U1}]",
        "features.land={role: context}",
    ],
)
def test_a_column_of_both_joined_tables_without_an_owner_is_refused(
    world: World, setting: str
) -> None:
    world.people = [{**row, "land": "U1"} for row in world.people]
    world.films = [{**row, "land": "I1"} for row in world.films]
    world.write()
    with pytest.raises(DataError, match=r"\(films.csv\) both have a column 'land'.*`rename:`"):
        run(world, setting)


def test_what_is_made_of_a_filled_value_is_the_same_in_log_and_table(world: World) -> None:
    fill = "{table: films, key: item_id, on_missing: fill, fill: {price: 2.5, title: none such}}"
    result = run(
        world,
        f"join=[{{table: people, key: user_id}}, {fill}]",
        "derive=[{kind: price_cluster, of: price, to: cluster, k: 3}, "
        "{kind: top_values, of: title, to: top, n: 20}, "
        "{kind: bins, of: price, to: dear, edges: [1], labels: [no, yes]}]",
        "features.cluster={role: item}",
        "features.top={role: item}",
        "features.dear={role: item}",
    )
    ghost = raw_table(result, "items")[UNKNOWN_ITEM]
    assert (ghost["price"], ghost["top"], ghost["dear"]) == (2.5, "none such", "yes")
    assert ghost["cluster"] is not None
    rows = [n for n, item in enumerate(decoded(result, "train", "item_id")) if item == UNKNOWN_ITEM]
    assert len(rows) > 3
    for name in ("cluster", "top", "dear"):
        assert {decoded(result, "train", name)[n] for n in rows} == {ghost[name]}


@pytest.mark.parametrize(
    ("fill", "said"),
    [("{city: none}", r"\(films.csv\) has no column 'city'"), ("{top: x}", "fill 'title', which")],
)
def test_a_join_fills_its_own_columns_only(world: World, fill: str, said: str) -> None:
    join = f"{{table: films, key: item_id, on_missing: fill, fill: {fill}}}"
    with pytest.raises((DataError, RecipeError), match=said):
        run(
            world,
            f"join=[{{table: people, key: user_id}}, {join}]",
            "derive=[{kind: top_values, of: title, to: top, n: 20}]",
            "features.top={role: item}",
        )


@pytest.mark.parametrize(
    "kind", ["", "kind: number, fill: mean, ", "kind: categories, separator: '|', "]
)
def test_who_has_no_row_yet_keeps_what_his_table_says(world: World, kind: str) -> None:
    """A column of the log and of the table: the log's last row says it, else the table."""
    for n, row in enumerate(world.log):
        row["hue"] = n % 3
    world.films = [{**row, "hue": 7} for row in world.films]
    world.write()
    result = run(world, f"features.hue={{{kind}role: item}}")
    hues = {item: row["hue"] for item, row in raw_table(result, "items").items()}
    plain = {"": "7", "kind: number, fill: mean, ": 7.0}.get(kind, ["7"])
    assert hues.pop(UNSEEN) == plain
    assert all(hue is not None and hue != plain for hue in hues.values())


# ── joins that find nobody ──────────────────────────────────────────────────────────────


def spelt(world: World, spell: Callable[[str], str]) -> World:
    """Give the people of the side table ids in a spelling of their own."""
    world.people = [{**row, "user_id": spell(f"1{n}x")} for n, row in enumerate(world.people)]
    for n, row in enumerate(world.log):
        row["user_id"] = f"1{n % 8}x"
    return world.write()


@pytest.mark.parametrize(
    ("spell", "theirs", "cause"),
    [
        (lambda id: f" {id}", " 10x", "blanks around ids"),
        (lambda id: f"00{id}", "0010x", "zeros before numbers"),
        (str.upper, "10X", "capital letters"),
        (lambda id: f"'{id}'", "'10x'", "quotes around ids"),
        (lambda id: f"user-{id}", "user-10x", ""),
    ],
)
def test_a_join_that_finds_no_id_is_refused_with_both_spellings(
    world: World, spell: Callable[[str], str], theirs: str, cause: str
) -> None:
    with pytest.raises(DataError) as error:
        run(spelt(world, spell))
    told = str(error.value)
    assert told.startswith(
        "None of 8 ids of 'user_id' in source 'log' (log.csv) are in source 'people' (people.csv). "
        f"The former has '10x', '11x', '12x', the latter {theirs!r}, "
    )
    assert (f"The likely cause is {cause}, in one" in told) == bool(cause)
    assert "Correct the ids in one of them, or leave the join out" in told


def test_a_join_that_finds_few_ids_is_told_and_goes_on(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.people = [{**world.people[0], "user_id": f"stranger {n}"} for n in range(9)]
    world.people[3]["user_id"] = "10x"
    for n, row in enumerate(world.log):
        row["user_id"] = f"1{n % 30}x"
    result = run(world.write())
    [told] = [message for message in caplog.messages if "ids of" in message]
    assert told.startswith("Only 1 of 30 ids of 'user_id' in source 'log' (log.csv) are in source")
    assert told.endswith("Interactions with other ids get no value from it.")
    assert result.report.unmatched["people"] > 100


def test_values_of_ones_own_are_asked_for_in_words(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    join = "{table: people, key: user_id, on_missing: fill, fill: {city: Rom}}"
    result = run(spelt(world, "other {}".format), f"join=[{join}, {{table: films, key: item_id}}]")
    assert set(decoded(result, "train", "city")) == {"Rom"}
    assert any(message.startswith("None of 8 ids") for message in caplog.messages)


def test_a_join_that_would_drop_every_row_is_refused_by_its_cause(world: World) -> None:
    join = "{table: people, key: user_id, on_missing: drop}"
    with pytest.raises(DataError, match="The likely cause is capital letters, in one of them"):
        run(spelt(world, str.upper), f"join=[{join}, {{table: films, key: item_id}}]")


def test_a_part_of_its_own_file_may_be_of_strangers(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    write_csv(
        world.folder / "later.csv",
        [{**row, "user_id": f"new {n}"} for n, row in enumerate(world.log)],
    )
    result = run(world, "sources.later={files: later.csv}", "split={kind: given, test: later}")
    assert result.report.rows["test"] > 100
    [told] = [message for message in caplog.messages if "ids of" in message]
    assert "in source 'later' (later.csv) are in source 'people'" in told


def test_a_column_of_the_log_and_of_a_joined_table_is_told(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    for row in world.log:
        row["price"] = 1.0
    run(world.write())
    (told,) = (message for message in caplog.messages if "both have" in message)
    assert "both have 'price'; that of the former is used" in told


def test_a_log_that_is_read_twice_is_told(world: World, caplog: pytest.LogCaptureFixture) -> None:
    run(world)
    assert not [message for message in caplog.messages if "of an earlier row" in message]
    world.log *= 2
    run(world.write())
    (told,) = (message for message in caplog.messages if "of an earlier row" in message)
    assert told.startswith("log: 5")
    assert "the 'user_id' and 'item_id' and 'when' of" in told
