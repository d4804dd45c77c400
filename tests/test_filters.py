"""Filter rules: compared with naive loops; train never depends on valid or test."""

from __future__ import annotations

import operator
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from stages import FITTED, PARTS, content, decoded, part, run
from world import World

from workflows.etl.shape import filters
from workflows.ground.errors import DataError, RecipeError
from workflows.recipe import Condition

COMPARE = {
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
}


def met(cells: list[Any], kind: pa.DataType, is_: Any, value: Any = None) -> list[bool]:
    """Return which cells meet a condition, after seeing that chunks do not matter."""
    condition = Condition(column="x", is_=is_, value=value)
    column = pa.chunked_array([pa.array(cells, kind)])
    chunks = pa.chunked_array([column.slice(n, 1).chunk(0) for n in range(len(cells))])
    found = [bool(keep) for keep in filters.meets(condition, column).to_pylist()]
    assert [bool(keep) for keep in filters.meets(condition, chunks).to_pylist()] == found
    return found


@pytest.mark.parametrize("is_", list(COMPARE))
def test_e03_comparisons_are_those_of_python_and_a_null_meets_none(is_: str) -> None:
    numbers = [1.0, 2.0, 3.3, None, 5.0, -1.0]
    texts = ["buy", "view", None, "buy2", "", "BUY"]
    for cells, kind, value in (
        (numbers, pa.float32(), 2.0),
        ([1, 2, 3, None, -5], pa.int64(), 2.5),
        (texts, pa.string(), "buy"),
    ):
        found = met(cells, kind, is_, value)
        assert found == [c is not None and COMPARE[is_](c, value) for c in cells]
        assert not all(found)


def test_e03_in_and_not_null() -> None:
    assert met(["a", "b", None, "c"], pa.string(), "in", ("c", "a")) == [True, False, False, True]
    assert met([1.5, 2.5, None], pa.float32(), "in", (2.5, 9.0)) == [False, True, False]
    assert met([7, None], pa.int64(), "in", (7.0,)) == [True, False]
    assert met(["", None], pa.string(), "not_null") == [True, False]


def test_a_float32_number_equals_the_decimal_it_was_read_from() -> None:
    assert met([3.3, 3.2999, 3.3001], pa.float32(), "==", 3.3) == [True, False, False]
    assert met([3.3, 3.2999], pa.float32(), "in", (3.3,)) == [True, False]


@pytest.mark.parametrize("declared", [False, True])
def test_a_large_number_is_compared_with_all_its_digits(world: World, declared: bool) -> None:
    """float32 knows no odd number above 2**24: 20200101 and 20200103 would be one."""
    world.log = [{**row, "order": 20_200_101 + 2 * n} for n, row in enumerate(world.log)]
    world.write()
    wanted = [20_200_103, 20_200_105]
    rule = f"{{kind: keep, column: order, is: in, value: {wanted}}}"
    feature = ["features.order={role: context, kind: number}"] if declared else []
    split = "split={kind: random, valid: 0, test: 0}"
    result = run(world, f"filter=[{rule}]", split, *feature)
    assert result.report.dropped["not order in 20200103, 20200105"] == 158  # of 160 with ids
    kept = pq.read_table(result.folder / "train" / "part-0.parquet")
    assert kept.num_rows == 2
    if declared:
        assert kept.schema.field("order").type == pa.float32()


@pytest.mark.parametrize(
    ("earlier", "rule", "names"),
    [
        (
            "{kind: top_users, n: 2}",
            "{kind: keep, column: rating, is: '>=', value: 3}",
            "keep.*top_users",
        ),
        ("{kind: per_day}", "{kind: sample_users, share: 0.5}", "sample_users.*per_day"),
    ],
)
def test_a_rule_that_would_be_done_before_an_earlier_one_is_refused(
    world: World, earlier: str, rule: str, names: str
) -> None:
    world.recipe(f"filter=[{rule}, {earlier}]")
    world.recipe(f"filter=[{earlier}, {rule[:-1]}, stage: after}}]")
    with pytest.raises(RecipeError, match=f"filter {names}, but is done first"):
        world.recipe(f"filter=[{earlier}, {rule}]")


def test_a_time_is_compared_with_seconds_or_a_date() -> None:
    new_year = [1_577_836_799, 1_577_836_800]  # the last second of 2019 in UTC, and the next
    assert met(new_year, pa.int64(), ">=", "2020-01-01") == [False, True]
    assert met(new_year, pa.int64(), ">=", "2020-01-01T01:00:00+01:00") == [False, True]
    assert met(new_year, pa.int64(), "<", 1_577_836_800.0) == [True, False]


def test_a_rule_tells_what_it_asks() -> None:
    told = [
        str(Condition(column="n", is_=">=", value=3.0)),
        str(Condition(column="n", is_="in", value=("a", "b"))),
        str(Condition(column="n", is_="not_null")),
    ]
    assert told == ["n >= 3", "n in a, b", "n not_null"]


# ── in etl ──────────────────────────────────────────────────────────────────────────────


def whole(world: World) -> list[dict[str, Any]]:
    keys = ("user_id", "item_id", "when")
    return [row for row in world.log if None not in [row[key] for key in keys]]


def values(world: World, column: str, rows: list[dict[str, Any]]) -> set[Any]:
    return {row[column] for row in rows} - {None}


def vocabulary(result: Any, column: str) -> set[str]:
    return set(
        pq.read_table(result.folder / "vocabulary" / f"{column}.parquet")["value"].to_pylist()
    )


def test_e03_the_stage_decides_what_the_vocabulary_knows(world: World) -> None:
    """The films that are only ever disliked have a code of their own, or not."""
    for row in world.log:
        row["rating"] = 1 if row["item_id"] in ("000", "001", "ghost") else 5
    world.write()
    rule = "filter=[{{kind: keep, column: rating, is: '>=', value: 3, stage: {}}}]"
    split = "split={kind: by_user, valid: 0.2, test: 0.2}"
    before, after = (
        run(world, split, rule.format(stage), name=stage) for stage in ("before", "after")
    )
    for result in (before, after):
        rows = whole(world)
        train_users = set(decoded(result, "train", "user_id"))
        train = [row for row in rows if row["user_id"] in train_users]
        liked = [row for row in train if row["rating"] >= 3]
        assert result.report.rows["train"] == len(liked)
        disliked = sum(row["rating"] < 3 for row in rows)
        assert result.report.dropped["not rating >= 3"] == disliked
        known = liked if result is before else train
        assert vocabulary(result, "item_id") == values(world, "item_id", known)
        # the tables know what is left
        assert result.report.items["in_train"] == len(values(world, "item_id", liked))
    assert len(vocabulary(after, "item_id")) == len(vocabulary(before, "item_id")) + 3


def test_e04_users_without_a_target_event_go_and_the_others_keep_all(world: World) -> None:
    for row in world.log:
        row["rating"] = 5 if row["user_id"] in ("Ж", "u6", "u7", "u8", "a,b") else 1
    one = next(row for row in world.log if row["user_id"] == 'say "hi"')
    one["rating"] = 5
    world.write()
    rule = "filter=[{kind: users_with, column: rating, is: '==', value: 5}]"
    result = run(world, rule, "split={kind: by_user, valid: 0.2, test: 0.2}")
    rows = whole(world)
    buyers = {row["user_id"] for row in rows if row["rating"] == 5}
    assert len(buyers) == 6
    kept = [row for row in rows if row["user_id"] in buyers]
    assert sum(result.report.rows.values()) == len(kept)
    assert result.report.dropped["user without rating == 5"] == len(rows) - len(kept)
    found = sorted(when for name in PARTS for when in part(result, name)["when"])
    assert found == sorted(row["when"] for row in kept)


def test_e04_a_later_event_keeps_no_earlier_row(world: World) -> None:
    """The one purchase that is withheld decides nothing about the rows of train."""
    for row in world.log:
        row["rating"] = 5 if row["user_id"] != "Ж" else 1
    last = [row for row in whole(world) if row["user_id"] == "Ж"][-1]
    last["rating"] = 5
    world.write()
    rule = "filter=[{kind: users_with, column: rating, is: '==', value: 5}]"
    result = run(world, rule)
    assert "Ж" not in decoded(result, "train", "user_id")
    users = pq.read_table(result.folder / "users" / "raw.parquet")["user_id"].to_pylist()
    row = users.index("Ж")  # of the table of people
    assert (part(result, "valid")["user_row"] == row).sum() == 0
    assert (part(result, "test")["user_row"] == row).sum() == 1


def test_a_rule_that_leaves_nothing_is_refused_after_the_split_too(world: World) -> None:
    late = "filter=[{kind: keep, column: rating, is: '>', value: 9, stage: after}]"
    with pytest.raises(
        DataError, match=r"The train split is empty \(train 0, valid 0, test 0 rows"
    ):
        run(world, late)


def test_a_column_that_is_nowhere_is_named(world: World) -> None:
    with pytest.raises(DataError, match=r"has no column 'rting', nor source .*mean 'rating'\?"):
        run(world, "filter=[{kind: keep, column: rting, is: '>', value: 3}]")


def test_lists_are_only_asked_whether_they_are_there(world: World) -> None:
    result = run(world, "filter=[{kind: keep, column: genres, is: not_null}]")
    films = {row["item_id"]: row["genres"] for row in world.films}
    kept = [row for row in whole(world) if films.get(row["item_id"])]
    assert sum(result.report.rows.values()) == len(kept)
    with pytest.raises(RecipeError, match="filter compares 'genres', a lists column, with 'a'"):
        world.recipe("filter=[{kind: keep, column: genres, is: '==', value: a}]")


@pytest.mark.parametrize("n", [1, 4, 50])
def test_e13_the_users_with_most_training_rows_are_those_of_pandas(world: World, n: int) -> None:
    split = "split={kind: time, valid: 0.2, test: 0.2}"
    whole_result = run(world, split, name="whole")
    counts = pd.Series(decoded(whole_result, "train", "user_id")).value_counts()
    assert counts.duplicated().any()  # ties
    top = sorted(counts.index, key=lambda user: (-counts[user], user))[:n]
    result = run(world, split, f"filter=[{LIKED}, {{kind: top_users, n: {n}}}]")
    for name in PARTS:
        known = [user for user in decoded(whole_result, name, "user_id") if user in top]
        assert decoded(result, name, "user_id") == known
    gone = sum(whole_result.report.rows.values()) - sum(result.report.rows.values())
    assert result.report.dropped[f"not of the {n} users with most rows of train"] == gone
    assert vocabulary(result, "user_id") == set(top)


def test_e17_at_most_n_rows_of_a_user_and_day(world: World) -> None:
    for n, row in enumerate(world.log):
        row["when"] = row["when"] and 86_400 * (10 + n // 80) - 20 + n % 40  # two midnights
    world.write()
    split = "split={kind: by_user, valid: 0.2, test: 0.2}"
    when = "features.when={role: time, unit: s}"  # days of January 1970 are meant
    everything = run(world, split, when, "filter=[]", name="everything")
    results = [
        run(world, split, when, f"filter=[{{kind: per_day, n: 2, seed: {seed}}}]", name=f"seed-{n}")
        for n, seed in enumerate((1, 1, 2))
    ]
    for name in PARTS:
        rows = part(everything, name)
        days = rows["user_row"] * 10**6 + rows["when"] // 86_400
        expected = days.value_counts().clip(upper=2).to_dict()
        assert max(days.value_counts()) > 2
        for result in results:
            rows = part(result, name)
            user = pq.read_table(result.folder / "users" / "raw.parquet")["user_id"].to_pylist()
            found = Counter(
                (user[row] if row >= 0 else row, when // 86_400)
                for row, when in zip(rows["user_row"], rows["when"], strict=True)
            )
            assert sorted(found.values()) == sorted(expected.values())
    kept = sum(results[0].report.rows.values())
    assert results[0].report.dropped["beyond 2 of a user and day"] == 160 - kept
    first, again, other = (content(result.folder, "train") for result in results)
    assert first == again
    assert first != other


def test_e17_which_rows_are_kept_depends_on_those_of_the_day_alone() -> None:
    n = 200
    users = pa.chunked_array([[f"u{k % 3}" for k in range(n)]])
    items = pa.chunked_array([[f"i{k % 40}" for k in range(n)]])
    times = pa.chunked_array([[k * 3_000 for k in range(n)]])
    table = pa.table({"u": users, "i": items, "t": times})
    keep = filters.choose_per_day(users, items, times, n=3, seed=1)
    rows = {tuple(row.values()) for row in table.filter(pa.array(keep)).to_pylist()}
    # of the days before the change, in another order
    early = table.filter(pc.less(times, 86_400 * 3)).take(list(range(87))[::-1])
    again = filters.choose_per_day(early["u"], early["i"], early["t"], n=3, seed=1)
    same = {tuple(row.values()) for row in early.filter(pa.array(again)).to_pylist()}
    assert same == {row for row in rows if row[2] < 86_400 * 3}
    assert 0 < len(same) < 87


def test_a_sample_of_users_is_whole_and_of_about_its_share() -> None:
    ids = pa.array([f"user-{n}" for n in range(4000)])
    chosen = filters.sample_ids(ids, share=0.25, seed=1).to_pylist()
    assert len(chosen) == pytest.approx(1000, abs=100)
    few = filters.sample_ids(ids.slice(1000, 500), share=0.25, seed=1).to_pylist()
    assert set(few) == set(chosen) & set(ids.slice(1000, 500).to_pylist())
    other = filters.sample_ids(ids, share=0.25, seed=2).to_pylist()
    assert len(set(other) & set(chosen)) == pytest.approx(250, abs=60)


def test_etl_samples_users(world: World) -> None:
    result = run(world, "filter=[{kind: sample_users, share: 0.5, seed: 3}]")
    users = {row["user_id"] for row in whole(world)}
    chosen = set(decoded(result, "train", "user_id"))
    assert 0 < len(chosen) < len(users)
    kept = [row for row in whole(world) if row["user_id"] in chosen]
    assert sum(result.report.rows.values()) == len(kept)
    assert result.report.dropped["user outside the sample of 0.5"] == 160 - len(kept)


def test_rows_of_a_day_need_a_time(world: World) -> None:
    with pytest.raises(RecipeError, match="filter per_day needs a feature with role time"):
        world.recipe(
            "filter=[{kind: per_day}]", "features.when={role: context}", "split={kind: random}"
        )


LIKED = "{kind: keep, column: rating, is: '>=', value: 3}"
LEAKY = [
    "{kind: keep, column: rating, is: '>=', value: 2, stage: after}",
    "{kind: users_with, column: rating, is: '==', value: 5}",
    "{kind: top_users, n: 8}",
    "{kind: per_day, n: 3}",
]


@pytest.mark.parametrize("rule", LEAKY, ids=lambda rule: rule.split(",")[0][7:])
def test_e15_no_rule_lets_a_withheld_row_change_a_fitted_file(world: World, rule: str) -> None:
    overrides = [f"filter=[{rule}]", "split={kind: time, valid: 0.1, test: 0.1}"]
    before = run(world, *overrides, name="before")
    cut = part(before, "train")["when"].max()
    changed = 0
    for row in whole(world):
        if row["when"] > cut:
            user = f"late-{changed}" if changed % 3 else "u7"
            row.update(rating=5 if changed % 3 else 2, item_id="new", user_id=user)
            changed += 1
    assert changed > 20
    world.write()
    after = run(world, *overrides, name="after")
    assert content(after.folder, *FITTED) == content(before.folder, *FITTED)
    assert content(after.folder, "test") != content(before.folder, "test")
    assert np.isfinite(part(after, "train")["price"]).all()
