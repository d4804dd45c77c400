"""The user and item tables: one row per id, latest values, all ids of joined tables, one order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from stages import with_dictionaries

from workflows import recipe as recipes
from workflows.etl.read.sources import Raw
from workflows.etl.shape import tables
from workflows.ground.errors import DataError
from workflows.recipe import Recipe

LOG = [
    # user, item, mood (of the user), shop (of the event), label and tags (of the item)
    ("u2", "i1", "glad", "web", "One", ["a"]),
    ("u1", "i1", "sad", "app", "One", ["a"]),
    ("u2", "i2", "glad", None, "Two", []),
    ("u2", "i1", None, "app", "Uno", ["a", "b"]),
    ("10", "i1", "new", "web", "Uno", ["a", "b"]),
    ("u1", "i3", "sad", "web", "Three", None),
]
ROLES: tuple[tables.Role, ...] = ("user", "item")
COLUMNS = ["user", "item", "mood", "shop", "label", "tags"]
TYPES = dict.fromkeys(COLUMNS, pa.string()) | {"tags": pa.list_(pa.string())}


def recipe(*, user_table: bool = False, item_table: bool = False, **features: Any) -> Recipe:
    join = [{"table": "people", "key": "user"}] * user_table
    join += [{"table": "films", "key": "item"}] * item_table
    raw = {
        "name": "t",
        "sources": {name: {"files": f"{name}.csv"} for name in ("log", "people", "films")},
        "interactions": "log",
        "split": {"kind": "random"},
        "join": join,
        "features": {
            "user": {"role": "user", "id": True},
            "mood": {"role": "user"},
            "item": {"role": "item", "id": True},
            "label": {"role": "item", "kind": "label"},
            "tags": {"role": "item", "kind": "categories"},
            "shop": {"role": "context"},
            **features,
        },
    }
    return recipes.parse(raw, where="test")


def as_table(rows: list[dict[str, Any]], types: dict[str, pa.DataType]) -> pa.Table:
    schema = pa.schema([(name, types[name]) for name in rows[0]])
    return pa.Table.from_pylist(rows, schema)


def raw_of(**named: pa.Table) -> Raw:
    return Raw(
        named,
        {name: [Path(f"{name}.csv")] for name in named},
        {name: [table.num_rows] for name, table in named.items()},
        {name: table.column_names for name, table in named.items()},
        Path(),
    )


def log(rows: list[tuple[Any, ...]] | None = None) -> pa.Table:
    return with_dictionaries(
        as_table([dict(zip(COLUMNS, row, strict=True)) for row in rows or LOG], TYPES)
    )


def build(of: Recipe, raw: Raw, role: tables.Role) -> tables.Table:
    return build_from(of, raw, raw.tables["log"], role)


def build_from(of: Recipe, raw: Raw, train: pa.Table, role: tables.Role) -> tables.Table:
    """Build a table from training rows that are all in one partition."""
    own = raw.tables[of.interactions].column_names
    last = tables.LastRows.of(of, own, train, role, None)
    return tables.build(of, raw, last, role)


def readable(table: tables.Table) -> pd.DataFrame:
    """Return a table as pandas reads it, with None where there is nothing."""
    return pd.DataFrame(table.frame.to_pydict())


PEOPLE = as_table(
    [
        {"user": "u3", "age": 3.0},
        {"user": "u1", "age": 1.0},
        {"user": "10", "age": None},
    ],
    {"user": pa.string(), "age": pa.float32()},
)
AGE = {"role": "user", "kind": "number", "fill": "mean"}
YEAR = {"role": "item"}
FILMS = as_table(
    [
        {"item": "i9", "year": "1999"},
        {"item": "i10", "year": None},
        {"item": "i1", "year": "2001"},
        {"item": "i3", "year": "2003"},
    ],
    {"item": pa.string(), "year": pa.string()},
)

# ── from the interactions ───────────────────────────────────────────────────────────────


def test_users_by_hand() -> None:
    table = build(recipe(), raw_of(log=log()), "user")
    assert table.frame.to_pylist() == [
        # most rows first; the last row of each, as it is: u2's mood was last unknown
        {"user": "u2", "mood": None, "shop": "app", "in_train": True, "train_count": 3},
        {"user": "u1", "mood": "sad", "shop": "web", "in_train": True, "train_count": 2},
        {"user": "10", "mood": "new", "shop": "web", "in_train": True, "train_count": 1},
        # somebody unknown
        {"user": None, "mood": None, "shop": None, "in_train": False, "train_count": 0},
    ]
    assert table.conflicts == {"mood": 1}  # u2: glad, then unknown; shops are no trait of a user
    assert table.ids("user").to_pylist() == ["u2", "u1", "10", None]


def test_items_by_hand() -> None:
    table = build(recipe(), raw_of(log=log()), "item")
    assert table.frame.to_pylist() == [
        {
            "item": "i1",
            "label": "Uno",
            "tags": ["a", "b"],
            "in_train": True,
            "train_count": 4,
        },
        {"item": "i2", "label": "Two", "tags": [], "in_train": True, "train_count": 1},
        {"item": "i3", "label": "Three", "tags": None, "in_train": True, "train_count": 1},
    ]
    assert table.conflicts == {"label": 1, "tags": 1}


def test_order_is_by_falling_count_then_by_the_text_of_the_id() -> None:
    items = ["b"] * 2 + ["a"] * 2 + ["10"] * 2 + ["9"] * 3 + ["Ж", "é", "z"]
    rows: list[tuple[Any, ...]] = [("u", item, "m", "s", "l", []) for item in items]
    frame = build(recipe(), raw_of(log=log(rows)), "item").frame
    assert frame["item"].to_pylist() == ["9", "10", "a", "b", "z", "é", "Ж"]
    assert frame["train_count"].to_pylist() == [3, 2, 2, 2, 1, 1, 1]


def test_the_latest_row_of_train_counts_and_not_of_the_file() -> None:
    train = log()[:2]  # the later rows are for validation or test
    users = build_from(recipe(), raw_of(log=log()), train, "user").frame.to_pylist()
    assert [(u["user"], u["mood"], u["train_count"]) for u in users] == [
        ("u1", "sad", 1),
        ("u2", "glad", 1),
        (None, None, 0),
    ]


def test_permuted_rows_change_a_table_only_where_order_is_time() -> None:
    # order of the rows is order of time: two rows of different users and items may change places
    swapped = [LOG[1], LOG[0], *LOG[2:]]
    for role in ROLES:
        one = build(recipe(), raw_of(log=log()), role)
        two = build(recipe(), raw_of(log=log(swapped)), role)
        assert one.frame.to_pylist() == two.frame.to_pylist(), role
    later = [LOG[3], *LOG[:3], *LOG[4:]]  # u2's and i1's last row becomes their first
    users = build(recipe(), raw_of(log=log(later)), "user").frame.to_pylist()
    assert users[0] == {
        "user": "u2",
        "mood": "glad",
        "shop": None,
        "in_train": True,
        "train_count": 3,
    }


# ── joined ──────────────────────────────────────────────────────────────────────────────


def test_a_joined_table_gives_its_whole_catalogue() -> None:
    of = recipe(item_table=True, year=YEAR)
    by_item = readable(build(of, raw_of(log=log(), films=FILMS), "item")).set_index("item")
    # seen ones by count; those never seen after them, by id as text
    assert list(by_item.index) == ["i1", "i2", "i3", "i10", "i9"]
    assert by_item["in_train"].tolist() == [True, True, True, False, False]
    assert by_item["train_count"].tolist() == [4, 1, 1, 0, 0]
    assert by_item["year"].tolist() == ["2001", None, "2003", None, "1999"]
    # of the interactions' own columns nothing is known for an item that had none
    assert by_item["label"].tolist() == ["Uno", "Two", "Three", None, None]


def test_the_order_of_a_joined_table_does_not_matter() -> None:
    of = recipe(item_table=True, user_table=True, year=YEAR, age=AGE)
    turned = [t.take(pa.array(range(t.num_rows - 1, -1, -1))) for t in (PEOPLE, FILMS)]
    for role in ROLES:
        one = build(of, raw_of(log=log(), people=PEOPLE, films=FILMS), role)
        two = build(of, raw_of(log=log(), people=turned[0], films=turned[1]), role)
        assert one.frame.to_pylist() == two.frame.to_pylist()


def test_users_of_both_and_the_unknown_one_last() -> None:
    of = recipe(user_table=True, age=AGE)
    frame = build(of, raw_of(log=log(), people=PEOPLE), "user").frame
    assert frame["user"].to_pylist() == ["u2", "u1", "10", "u3", None]
    assert frame["age"].to_pylist() == [None, 1.0, None, 3.0, None]
    assert frame["in_train"].to_pylist() == [True, True, True, False, False]
    assert frame["age"].type == pa.float32()


def test_a_column_of_the_interactions_beats_that_of_the_joined_table() -> None:
    people = as_table([{"user": "u1", "mood": "old"}], {"user": pa.string(), "mood": pa.string()})
    of = recipe(user_table=True)
    frame = build(of, raw_of(log=log(), people=people), "user").frame
    assert dict(zip(frame["user"].to_pylist(), frame["mood"].to_pylist(), strict=True)) == {
        "u2": None,
        "u1": "sad",
        "10": "new",
        None: None,
    }


def test_tables_are_those_of_pandas_on_random_rows() -> None:
    rng = np.random.default_rng(6)
    rows: list[tuple[Any, ...]] = [
        (f"u{rng.integers(9)}", f"i{rng.integers(14)}", str(rng.integers(2)), "s", "l", [])
        for _ in range(300)
    ]
    table = build(recipe(), raw_of(log=log(rows)), "user")
    pandas = pd.DataFrame(rows, columns=COLUMNS)
    grouped = pandas.groupby("user")
    expected = pd.DataFrame({"mood": grouped["mood"].last(), "train_count": grouped.size()})
    expected = expected.reset_index().sort_values(
        ["train_count", "user"], ascending=[False, True], kind="stable"
    )
    found = readable(table).iloc[:-1]
    for column in ("user", "mood", "train_count"):
        assert found[column].tolist() == expected[column].tolist()
    assert table.conflicts["mood"] == (grouped["mood"].nunique() > 1).sum()
    assert table.conflicts["mood"] > 0


# ── refusals ────────────────────────────────────────────────────────────────────────────


def test_an_id_that_stands_twice_in_a_joined_table_is_refused() -> None:
    films = pa.concat_tables([FILMS, FILMS.slice(2), FILMS.slice(2, 1)])
    of = recipe(item_table=True, year=YEAR)
    with pytest.raises(
        DataError,
        match=r"^source 'films' \(films\.csv\): 2 ids of 'item' occur more than once, the "
        r"first is 'i1' \(3 times\)\. A joined table must have one row per id: remove the others, "
        r"or set the source's `latest:` .* or `long:` .*\.$",
    ):
        build(of, raw_of(log=log(), films=films), "item")


def test_a_joined_row_without_id_is_refused() -> None:
    none = as_table([{"item": None, "year": "1"}] * 2, {"item": pa.string(), "year": pa.string()})
    of = recipe(item_table=True, year=YEAR)
    with pytest.raises(
        DataError,
        match=r"^source 'films' \(films\.csv\): 2 rows have no 'item', the first is films\.csv, "
        r"row 5\. Give them one, or remove them\.$",
    ):
        build(of, raw_of(log=log(), films=pa.concat_tables([FILMS, none])), "item")


def test_a_joined_table_without_the_id_is_refused() -> None:
    films = FILMS.rename_columns(["itm", "year"])
    of = recipe(item_table=True, year=YEAR)
    with pytest.raises(
        DataError,
        match=r"^source 'films' \(films\.csv\) has no column 'item' \(did you mean 'itm'\?\)",
    ):
        build(of, raw_of(log=log(), films=films), "item")


@pytest.mark.parametrize("user_table", [True, False])
def test_a_feature_of_the_wrong_role_is_refused(user_table: bool) -> None:
    # the year is in the table of films, and the recipe calls it a trait of users
    of = recipe(item_table=True, user_table=user_table, year={"role": "user"}, age=AGE)
    with pytest.raises(
        DataError,
        match=r"^features\.year has role user, but the column is neither in the interactions nor "
        r"in a table joined on 'user'\. Correct its role, or add the join\.$",
    ):
        build(of, raw_of(log=log(), films=FILMS, people=PEOPLE), "user")


@pytest.mark.parametrize(("n_odd", "told"), [(5, False), (6, True)])
def test_a_feature_that_differs_for_most_ids_is_told(
    caplog: pytest.LogCaptureFixture, n_odd: int, told: bool
) -> None:
    """Ten items with two rows each; an eleventh has one row and can have no conflict."""
    price = {"role": "item", "kind": "number", "fill": "mean"}
    items = [n % 10 for n in range(20)] + [10]
    rows = [
        {**dict(zip(COLUMNS, LOG[0], strict=True)), "item": f"i{item}", "price": 1.0 * place}
        for place, item in enumerate(items)
    ]
    for place in range(10, 20 - n_odd):
        rows[place]["price"] = rows[place - 10]["price"]
    table = as_table(rows, TYPES | {"price": pa.float32()})
    of = recipe(price=price)
    tables.warn_of_conflicts(of, build(of, raw_of(log=with_dictionaries(table)), "item"))
    assert len(caplog.messages) == told
    if told:
        assert caplog.messages[0].startswith(
            "column 'price' has role item, but differs between the rows of 6 of 10 items that have "
            "more than one row of train; the latest value is used for all of them."
        )
