"""Derived columns: known values, pandas, any size of chunks, and the errors."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stages import PARTS, decoded, part, run
from world import UNKNOWN_USER, World

from workflows.derive import cells as derive
from workflows.ground.errors import DataError, RecipeError
from workflows.recipe import (
    Bins,
    Clip,
    CyclicMonth,
    DatePart,
    Derive,
    Feature,
    Log1p,
    PathLevel,
)

#: The age groups of the H&M system, by their upper edges.
AGE_GROUPS = ("0-18", "19-25", "26-35", "36-45", "46-55", "56-65", "66-80", "80+")
AGE_EDGES = (18.0, 25.0, 35.0, 45.0, 55.0, 65.0, 80.0)
MOMENTS = [
    "2018-09-20T23:59:59",
    "2020-01-17T00:00:00",
    "2020-02-29T12:30:00",
    "1969-12-31T23:00:00",
    "2000-12-31T06:00:01",
]


def seconds(texts: list[str | None]) -> pa.ChunkedArray:
    zone = dt.timezone.utc
    moments = [t and dt.datetime.fromisoformat(t).replace(tzinfo=zone).timestamp() for t in texts]
    return pa.chunked_array([pa.array(moments, pa.float64()).cast(pa.int64())])


def made(step: Derive, column: pa.ChunkedArray) -> list[Any]:
    """Return the step's column, after seeing that chunks do not matter."""
    whole = derive.apply(column, step)
    chunks = pa.chunked_array([column.slice(n, 1).chunk(0) for n in range(len(column))])
    assert derive.apply(chunks, step).to_pylist() == whole.to_pylist()
    none = column.slice(0, 0)
    assert derive.apply(none, step).type == whole.type
    return whole.to_pylist()


def column(cells: list[Any], kind: pa.DataType | None = None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(cells, kind)])


# ── dates ───────────────────────────────────────────────────────────────────────────────


def test_e08_date_parts_are_those_of_pandas() -> None:
    known = pd.to_datetime(pd.Series(MOMENTS))
    expected = {
        "year": known.dt.year,
        "month": known.dt.month,
        "day": known.dt.day,
        "weekday": known.dt.dayofweek,
        "hour": known.dt.hour,
        "epoch_day": (known - pd.Timestamp(0)).dt.days,
    }
    for name, values in expected.items():
        step = DatePart(of="at", to="x", part=name)  # type: ignore[arg-type]
        assert made(step, seconds([*MOMENTS, None])) == [*values, None]
        # the same from text, with and without a zone
        assert made(step, column([*MOMENTS, None])) == [*values, None]
        assert made(step, column([f" {m}Z" for m in MOMENTS])) == list(values)
        assert made(step, column([f"{m.replace('T', ' ')} UTC" for m in MOMENTS])) == list(values)
    assert list(expected["epoch_day"][[0, 3]]) == [17794, -1]


def test_a_date_is_also_text_without_a_time() -> None:
    assert made(DatePart(of="t", to="x", part="day"), column(["2020-02-29", None])) == [29, None]


def test_a_date_that_is_none_is_named() -> None:
    step = DatePart(of="at", to="x", part="day")
    with pytest.raises(
        DataError,
        match=r"^source 'log' \(log\.csv\), column 'at' holds a date that is not ISO 8601, such as "
        r".*'03/04/2020'.*declare the column as the feature of role time\.$",
    ):
        derive.apply(column(["2020-01-01", "03/04/2020"]), step, where="source 'log' (log.csv)")


@pytest.mark.parametrize(
    ("day", "sine", "cosine"),
    [
        ("2018-09-20", -0.866025, -0.5),
        ("2020-01-17", 0.0, 1.0),
        ("2020-05-18", 0.8660, -0.5),
    ],
)
def test_e07_cyclic_month_has_the_golden_values(day: str, sine: float, cosine: float) -> None:
    at = seconds([f"{day}T00:00:00", None])
    for name, golden in (("sin", sine), ("cos", cosine)):
        step = CyclicMonth(of="at", to="x", part=name)  # type: ignore[arg-type]
        found, nothing = made(step, at)
        assert found == pytest.approx(golden, abs=5e-5)
        assert nothing is None
        # today's form of the tutorial counts January as 1
        later = CyclicMonth(of="at", to="x", part=name, offset=0)  # type: ignore[arg-type]
        assert abs(made(later, at)[0] - golden) > 0.1


# ── bins ────────────────────────────────────────────────────────────────────────────────


def test_e08_age_groups_at_every_edge() -> None:
    step = Bins(of="age", to="group", edges=AGE_EDGES, labels=AGE_GROUPS)
    golden = {
        0: "0-18",
        18: "0-18",
        19: "19-25",
        25: "19-25",
        26: "26-35",
        36: "36-45",
        55: "46-55",
        56: "56-65",
        65: "56-65",
        66: "66-80",
        80: "66-80",
        81: "80+",
        120: "80+",
    }
    ages = column([*golden, None], pa.float32())
    assert made(step, ages) == [*golden.values(), None]
    edges = [-np.inf, *AGE_EDGES, np.inf]
    by_pandas = pd.cut(pd.Series(range(101)), edges, labels=list(AGE_GROUPS)).astype(str)
    assert made(step, column(list(range(101)), pa.float32())) == by_pandas.tolist()


def test_an_edge_is_the_number_that_a_cell_of_its_text_becomes() -> None:
    step = Bins(of="x", to="y", edges=(0.1, 0.3), labels=("a", "b", "c"))
    assert made(step, column([0.1, 0.3, 0.30001], pa.float32())) == ["a", "b", "c"]


# ── paths ───────────────────────────────────────────────────────────────────────────────

PATHS = ["a", "a.b.c", None, "w.x.y.z", "", "a"]


def test_e09_each_level_of_a_path() -> None:
    levels = [
        made(PathLevel(of="code", to="x", level=n, levels=4), column(PATHS)) for n in (1, 2, 3, 4)
    ]
    naive = [
        [level or None for level in [*(path or "").split("."), "", "", "", ""][:4]]
        for path in PATHS
    ]
    assert [list(row) for row in zip(*levels, strict=True)] == naive
    assert naive[1] == ["a", "b", "c", None]
    assert naive[2] == [None] * 4


def test_e09_a_deeper_path_is_named() -> None:
    step = PathLevel(of="code", to="category1", level=1, levels=4)
    with pytest.raises(
        DataError,
        match=r"^log, column 'code': 'a\.b\.c\.d\.e' has more levels than 4, and so have 1 more "
        r"values\. Raise `levels` in the recipe's derive step of 'category1', or correct the",
    ):
        derive.apply(column([*PATHS, "v.w.x.y.z", "a.b.c.d.e"]), step, where="log")


def test_a_separator_of_any_length() -> None:
    step = PathLevel(of="code", to="x", level=2, levels=2, separator=" > ")
    assert made(step, column(["a > b", "a>b"])) == ["b", None]
    step = PathLevel(of="code", to="x", level=1, levels=2, separator="::")
    assert made(step, column(["a:", "a::b", None])) == [
        "a:",
        "a",
        None,
    ]  # "a:" with "::" is no path


def test_a_whole_number_is_binned_as_what_it_is() -> None:
    step = Bins(of="x", to="y", edges=(-0.5, 1.5), labels=("a", "b", "c"))
    for kind in (pa.int64(), pa.float32()):
        assert made(step, column([-1, 0, 1, 2], kind)) == ["a", "b", "b", "c"]


def test_a_date_may_have_nanoseconds() -> None:
    step = DatePart(of="at", to="x", part="day")
    texts = ["2020-10-05 00:00:00.123456789", "2020-10-05 00:00:00.000000000+0200"]
    assert [made(step, column([text]))[0] for text in texts] == [5, 4]


# ── numbers ─────────────────────────────────────────────────────────────────────────────


def test_log1p_is_that_of_numpy() -> None:
    cells = [0.0, 1.0, None, 352_698.0, 1e-9]
    expected = [None if c is None else pytest.approx(float(np.log1p(c))) for c in cells]
    step = Log1p(of="plays", to="mild")
    assert made(step, column(cells, pa.float64())) == expected
    assert made(step, column([0, 7, None], pa.int64())) == [0.0, pytest.approx(np.log(8)), None]


def test_log1p_refuses_negative_numbers() -> None:
    cells = column([1.0, None, -0.5, -3.0])
    with pytest.raises(
        DataError,
        match=r"^log \(a.csv\), column 'plays': log1p takes numbers from 0 on; 2 cells are "
        r"negative, the first in row 3 with -0.5\. Correct them, or raise them to 0 with a step",
    ):
        derive.apply(cells, Log1p(of="plays", to="mild"), where="log (a.csv)")


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 10.0, [0.0, 0.0, 10.0, None, 10.0]),
        (None, 10.0, [-5.0, 0.0, 10.0, None, 10.0]),
        (0.0, None, [0.0, 0.0, 10.0, None, 99.5]),
    ],
)
def test_clip_keeps_numbers_within_its_bounds(
    low: float | None, high: float | None, expected: list[float | None]
) -> None:
    cells = column([-5.0, 0.0, 10.0, None, 99.5], pa.float64())
    assert made(Clip(of="x", to="y", low=low, high=high), cells) == expected


def test_a_weight_may_be_derived(world: World) -> None:
    for n, row in enumerate(world.log):
        row["plays"] = 10 ** (n % 6) - 1
    world.write()
    steps = "{kind: clip, of: plays, to: fewer, high: 1000}, {kind: log1p, of: fewer, to: mild}"
    result = run(world, f"derive=[{steps}]", "features.mild={role: weight, kind: number}")
    known = [float(np.float32(np.log1p(min(1000, 10**n - 1)))) for n in range(6)]
    assert set(part(result, "train")["row_weight"]) == {np.float32(value) for value in known}


# ── in etl ──────────────────────────────────────────────────────────────────────────────


def test_derived_columns_are_features_where_their_source_lives(world: World) -> None:
    for n, row in enumerate(world.log):
        row["when"] = row["when"] and row["when"] + n * 100_000  # half a year, at any hour
    world.write()
    groups = "{kind: bins, of: age, to: group, edges: [24, 40], labels: [young, middle, old]}"
    hour = "{kind: date_part, of: when, to: second_hour, part: hour}"
    sine = "{kind: cyclic_month, of: when, to: month_sin, part: sin}"
    level = "{kind: path_level, of: title, to: word, level: 2, levels: 3, separator: ' '}"
    result = run(
        world,
        f"derive=[{groups}, {hour}, {sine}, {level}]",
        "features.group={role: user}",
        "features.second_hour={role: context}",
        "features.month_sin={role: context, kind: number}",
        "features.word={role: item}",
    )
    ages = {row["user_id"]: row["age"] for row in world.people}
    titles = {row["item_id"]: row["title"] for row in world.films}
    people = {
        u: a and ("young" if a <= 24 else "middle" if a <= 40 else "old") for u, a in ages.items()
    }
    users, items = (
        pq.read_table(result.folder / name / "raw.parquet").to_pandas()
        for name in ("users", "items")
    )
    assert len(set(people.values())) == 4
    for user, group in zip(users["user_id"], users["group"], strict=True):
        assert group == people.get(user), user
    for item, word in zip(items["item_id"], items["word"], strict=True):
        assert word == (titles[item].partition(" ")[2] or None if item in titles else None)
    for name in PARTS:
        who = users["user_id"][part(result, name)["user_row"]]
        assert decoded(result, name, "group") == [people.get(user) for user in who]
        hours = [str(pd.Timestamp(s, unit="s").hour) for s in part(result, name)["when"]]
        assert decoded(result, name, "second_hour") == hours
        month = pd.to_datetime(part(result, name)["when"], unit="s").dt.month
        raw_sine = np.sin(2 * np.pi * (month - 1) / 12)
        if name == "train":
            mean, std = raw_sine.mean(), raw_sine.std()
        assert part(result, name)["month_sin"].tolist() == pytest.approx(
            list((raw_sine - mean) / std), abs=1e-5
        )
    assert UNKNOWN_USER in set(users["user_id"])


def test_steps_read_what_earlier_steps_made_and_columns_that_are_no_features(world: World) -> None:
    for n, row in enumerate(world.log):
        row["born"] = f"{1990 + n % 3}-05-0{1 + n % 7}"
    world.write()
    year = "{kind: date_part, of: born, to: year, part: year}"
    era = "{kind: bins, of: year, to: era, edges: [1990, 1991], labels: [x, y, z]}"
    result = run(world, f"derive=[{year}, {era}]", "features.era={role: context}", "filter=[]")
    kept = [r for r in world.log if None not in (r["user_id"], r["item_id"], r["when"])]
    found = [era for name in PARTS for era in decoded(result, name, "era")]
    expected = [{"1990": "x", "1991": "y", "1992": "z"}[row["born"][:4]] for row in kept]
    assert sorted(found) == sorted(expected)
    assert set(found) == {"x", "y", "z"}


def test_derived_numbers_without_a_policy_are_refused_at_their_row(world: World) -> None:
    world.log[9]["born"] = None
    for n, row in enumerate(world.log):
        row["born"] = None if n == 9 else "1990-01-01"
    world.write()
    year = "derive=[{kind: date_part, of: born, to: year, part: year}]"
    with pytest.raises(DataError, match=r"log\.csv, row 10, column 'year': the number is missing"):
        run(world, year, "features.year={role: context, kind: number}")


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (
            "{kind: date_part, of: wen, to: x, part: day}",
            r"source 'log' \(log\.csv\) has no column 'wen', nor source 'people'.*mean 'when'",
        ),
        (
            "{kind: date_part, of: when, to: rating, part: day}",
            r"source 'log' \(log\.csv\) has a column 'rating', and the recipe derives one of that "
            r"name\. Remove the step, or give its column another name in `to`\.",
        ),
        (
            "{kind: path_level, of: title, to: x, level: 1, levels: 1, separator: ' '}",
            r"source 'films' \(films\.csv\), column 'title': 'Film 0' has more levels than 1",
        ),
    ],
)
def test_a_step_that_does_not_fit_the_files_is_named(world: World, step: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        run(world, f"derive=[{step}]")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "[{kind: bin, of: a, to: b}]",
            r"field derive\.0\.kind: Invalid value 'bin'\. Expected one of: ",
        ),
        ("[{kind: bins, of: a, to: b, edges: [2, 1], labels: [a, b, c]}]", "edges must rise, got"),
        (
            "[{kind: bins, of: a, to: b, edges: [1], labels: [a]}]",
            "1 edges part the line into 2 intervals, but there are 1 labels",
        ),
        ("[{kind: clip, of: a, to: b}]", "clip needs low, high or both"),
        (
            "[{kind: clip, of: a, to: b, low: 2, high: 1}]",
            "low must not be above high, got 2 and 1",
        ),
        (
            "[{kind: path_level, of: a, to: b, level: 3, levels: 2}]",
            r"derive\.0: level 3 is deeper than levels: 2",
        ),
        (
            "[{kind: date_part, of: when, to: b, part: day}, "
            "{kind: date_part, of: when, to: b, part: hour}]",
            "derive makes 'b' twice; give one of them another name in `to`",
        ),
        (
            "[{kind: bins, of: y, to: b, edges: [1], labels: [a, b]}, "
            "{kind: date_part, of: when, to: y, part: hour}]",
            "derive makes 'b' of 'y', which is made later; put that step first",
        ),
        (
            "[{kind: bins, of: city, to: b, edges: [1], labels: [a, b]}]",
            "derive makes 'b' of 'city', a text; expected a number",
        ),
        (
            "[{kind: date_part, of: price, to: b, part: day}]",
            "derive makes 'b' of 'price', a number; expected a time",
        ),
        (
            "[{kind: cyclic_month, of: when, to: city, part: sin}]",
            "derive makes 'city', a number, so features.city needs kind: number",
        ),
        (
            "[{kind: path_level, of: title, to: price, level: 1, levels: 2}]",
            "derive makes 'price', which is text, but features.price has kind number",
        ),
        (
            "[{kind: path_level, of: title, to: item_id, level: 1, levels: 2}]",
            "derive makes 'item_id', but among the features that is an id, a time or a list",
        ),
        (
            "[{kind: bins, of: z, to: b, edges: [1], labels: [a, b]}, "
            "{kind: path_level, of: z, to: c, level: 1, levels: 2}]",
            "'z' is read both as number and as text; declare it",
        ),
    ],
)
def test_steps_that_do_not_fit_each_other_are_refused(
    world: World, override: str, message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        world.recipe(f"derive={override}")


def test_declared_columns_become_what_the_feature_is() -> None:
    whole = column([1, None], pa.int64())
    assert derive.cast_to_feature(whole, None).type == pa.int64()
    number = Feature(role="user", kind="number")
    assert derive.cast_to_feature(whole, number).type == pa.float32()
    assert derive.cast_to_feature(whole, Feature(role="user")).to_pylist() == ["1", None]
