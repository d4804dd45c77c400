"""The pivot of an event log: compared with pandas and naive loops, whole and in chunks."""

from __future__ import annotations

import random
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from stages import PARTS, decoded, part, run
from world import World

from workflows.etl.shape import pivot
from workflows.ground.errors import DataError, RecipeError
from workflows.recipe import Pivot

KINDS = ["pageView", "purchased", "addToCart", "addToWishlist"]
PIVOT = "pivot={event: eventtype, counts: {purchased: purchases, pageView: views}}"
LEAN = (
    "features={user_id: {role: user, id: true}, item_id: {role: item, id: true}, "
    "when: {role: time}, purchases: {role: weight, kind: number}, "
    "views: {role: context, kind: number}}"
)


def events(n: int = 300) -> pd.DataFrame:
    rng = random.Random(5)
    return pd.DataFrame(
        {
            "user": [f"u{rng.randrange(9)}" for _ in range(n)],
            "item": [f"-{rng.randrange(12)}" for _ in range(n)],
            "type": [rng.choice([*KINDS, None]) for _ in range(n)],
            "at": [rng.randrange(10**9) for _ in range(n)],
        }
    )


SETTINGS: dict[str, Any] = {"keys": ("user", "item"), "time": "at"}
CONFIG = Pivot(event="type", counts={kind: f"n_{kind}" for kind in KINDS})


def merged(frame: pd.DataFrame) -> pa.Table:
    table = pa.Table.from_pandas(frame, preserve_index=False)
    return pivot.merge(pivot.tally(table, CONFIG, **SETTINGS), CONFIG, **SETTINGS)


def test_e11_a_pivot_is_that_of_pandas() -> None:
    frame = events()
    counts = frame.assign(n=1).pivot_table(
        index=["user", "item"], columns="type", values="n", aggfunc="sum", fill_value=0
    )
    found = merged(frame).to_pandas().set_index(["user", "item"])
    pairs = frame.groupby(["user", "item"])
    assert list(found.index) == list(pairs.groups)  # in their order, whatever that of the log
    assert len(found) < len(frame)
    for kind in KINDS:
        expected = counts[kind].reindex(found.index).fillna(0).astype(int)
        assert found[f"n_{kind}"].tolist() == expected.tolist()
    assert found["at"].tolist() == pairs["at"].min().tolist()


@pytest.mark.parametrize("size", [1, 7, 100])
def test_e11_a_log_may_come_in_chunks(size: int) -> None:
    frame = events()
    table = pa.Table.from_pandas(frame, preserve_index=False)
    parts = [
        pivot.merge(pivot.tally(table.slice(n, size), CONFIG, **SETTINGS), CONFIG, **SETTINGS)
        for n in range(0, len(table), size)
    ]
    assert pivot.merge(pa.concat_tables(parts), CONFIG, **SETTINGS).equals(merged(frame))


# ── in etl ──────────────────────────────────────────────────────────────────────────────


def shop(world: World) -> pd.DataFrame:
    """Give the world's log event types, and return its rows that have ids and a time."""
    rng = random.Random(9)
    for row in world.log:
        row["eventtype"] = rng.choice(KINDS)
    world.write()
    return pd.DataFrame(world.log).dropna(subset=["user_id", "item_id", "when"])


def test_e11_etl_splits_pairs_instead_of_events(world: World) -> None:
    log = shop(world)
    month = "{kind: date_part, of: when, to: month, part: month}"
    result = run(
        world,
        *(PIVOT, LEAN, "features.month={role: context}", f"derive=[{month}]"),
        *("join=[]", "split={kind: random}", "filter=[]"),
    )
    pairs = log.groupby(["user_id", "item_id"])
    assert sum(result.report.rows.values()) == len(pairs)
    assert result.report.read["log"] == 163
    assert result.report.dropped == {
        "no user_id": 1,
        "no item_id": 1,
        "no when": 1,
        "merged with another event of its user and item": 160 - len(pairs),
    }
    first = sorted(pairs["when"].min().astype(int))
    assert sorted(when for name in PARTS for when in part(result, name)["when"]) == first
    weights = [w for name in PARTS for w in part(result, name)["row_weight"]]
    assert sorted(weights) == sorted(pairs["eventtype"].agg(lambda of: (of == "purchased").sum()))
    assert set(decoded(result, "train", "month")) == {"11"}


def test_counts_may_be_asked_by_a_filter(world: World) -> None:
    log = shop(world)
    bought = log[log["eventtype"] == "purchased"].groupby(["user_id", "item_id"]).ngroups
    features = LEAN.replace("purchases: {role: weight, kind: number}, ", "")
    rule = "filter=[{kind: keep, column: purchases, is: '>=', value: 1}]"
    result = run(world, PIVOT, features, "join=[]", "split={kind: random}", rule)
    assert sum(result.report.rows.values()) == bought


def test_a_feature_that_a_pivot_loses_is_named(world: World) -> None:
    shop(world)
    with pytest.raises(
        DataError,
        match=r"source 'log' \(log\.csv\), column 'shop': `pivot:` merges many rows into one, and "
        r"keeps only ids, time and counts\. Remove features\.shop, or the pivot\.$",
    ):
        run(world, PIVOT, "filter=[]")
    with pytest.raises(DataError, match="has no column 'evnt'"):
        run(world, PIVOT.replace("eventtype", "evnt"), LEAN, "join=[]", "filter=[]")


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ("{a: n, b: n}", r"each kind of event needs a column of its own, got \['n', 'n'\]"),
        ("{}", "field pivot.counts: Expected `object` of length >= 1"),
        ("{a: when}", "pivot makes 'when', but among the features that is an id, a time or a list"),
    ],
)
def test_a_pivot_that_does_not_fit_is_refused(world: World, counts: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        world.recipe(f"pivot={{event: eventtype, counts: {counts}}}")
