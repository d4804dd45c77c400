"""Fitted columns: naive clusters and counts; they never depend on valid or test."""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stages import DEVICE, FITTED, PARTS, content, decoded, part, run
from world import ITEMS, UNSEEN, World

from workflows import recipe as recipes
from workflows.derive import fitted
from workflows.etl import etl
from workflows.etl.shape import fitted_columns
from workflows.ground.errors import ArtifactError, RecipeError
from workflows.recipe import Recipe
from workflows.stages.store import Store


def learn(of: Recipe, train: pa.Table) -> fitted.States:
    """Fit the derived columns on training rows that are all in one partition."""
    found = [fitted_columns.look(of, train, partition=None)]
    return fitted_columns.fit(of, found, older={})


def recipe(*steps: dict[str, Any]) -> Recipe:
    raw: dict[str, Any] = {
        "name": "t",
        "sources": {"log": {"files": "log.csv"}},
        "interactions": "log",
        "split": {"kind": "random"},
        "features": {"user": {"role": "user", "id": True}, "item": {"role": "item", "id": True}},
        "derive": list(steps),
    }
    return recipes.parse(raw, where="test")


def clusters(prices: list[float | None], **settings: Any) -> list[str | None]:
    """Return the labels of the prices that they themselves are clustered into."""
    of = recipe({"kind": "price_cluster", "of": "price", "to": "cluster", **settings})
    table = pa.table({"price": pa.array(prices, pa.float32())})
    state = learn(of, table)["cluster"]
    labels = fitted.apply(table["price"], state).to_pylist()
    chunked = pa.chunked_array([table["price"].slice(n, 1).chunk(0) for n in range(len(prices))])
    assert fitted.apply(chunked, state).to_pylist() == labels
    return labels


# ── price clusters ──────────────────────────────────────────────────────────────────────


def test_e10_few_distinct_prices_are_their_own_clusters() -> None:
    prices = [3.0, 1.25, 8.0, 1.25, 1.75, 100.0, 55.5, 9.0, None]
    labels = clusters(prices, k=20)
    assert labels == ["3", "1", "8", "1", "2", "100", "56", "9", None]
    assert len(set(labels) - {None}) <= 7
    assert clusters(prices, k=20, digits=2)[:2] == ["3.00", "1.25"]


def test_e10_clusters_that_lie_apart_are_found_whatever_the_seed() -> None:
    rng = random.Random(1)
    groups = [10.0, 50.0, 200.0, 1000.0]
    prices = [rng.choice(groups) * rng.uniform(0.99, 1.01) for _ in range(400)]
    found = set()
    for seed in range(5):
        labels = clusters(prices, k=4, seed=seed)
        if len(set(labels)) == 4:
            near = [min(groups, key=lambda group: abs(group - price)) for price in prices]
            if len(set(zip(labels, near, strict=True))) == 4:
                found.add(seed)
    assert len(found) >= 4  # Lloyd may stop in a local optimum


def test_e10_the_same_seed_gives_the_same_labels_in_any_order() -> None:
    rng = random.Random(2)
    prices: list[float | None] = [round(rng.lognormvariate(4, 1), 2) for _ in range(500)]
    order = list(range(500))
    rng.shuffle(order)
    first = clusters(prices, k=20, seed=7, sample=200)
    assert 10 < len(set(first)) <= 20
    again = clusters([prices[n] for n in order], k=20, seed=7, sample=200)
    assert again == [first[n] for n in order]
    assert clusters(prices, k=20, seed=8, sample=200) != first


@given(
    values=st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=60),
    k=st.integers(1, 8),
    seed=st.integers(0, 3),
)
def test_e10_each_centre_is_the_mean_of_what_lies_nearest(
    values: list[float], k: int, seed: int
) -> None:
    numbers = np.array(values, np.float64)
    centres = fitted_columns.k_means(numbers, k, np.random.default_rng(seed))
    assert len(centres) == min(k, len(set(values)))
    assert (np.diff(centres) > 0).all()
    nearest = [int(np.argmin(np.abs(centres - value))) for value in numbers]
    for number, centre in enumerate(centres):
        own = [v for v, place in zip(numbers, nearest, strict=True) if place == number]
        assert centre == pytest.approx(np.mean(own), abs=1e-6)


def test_no_prices_make_no_clusters() -> None:
    assert clusters([None, None], k=3) == [None, None]


# ── top values ──────────────────────────────────────────────────────────────────────────


def test_top_values_are_those_of_naive_counts_ties_by_value() -> None:
    cells = ["b", "a", "c", "a", "b", None, None, None, "d", "", "é"]
    of = recipe({"kind": "top_values", "of": "brand", "to": "top", "n": 4, "other": "rest"})
    table = pa.table({"brand": cells})
    state = learn(of, table)["top"]
    counts = Counter(cell for cell in cells if cell is not None)
    top = sorted(counts, key=lambda value: (-counts[value], value))[:4]
    assert top == ["a", "b", "", "c"]
    assert state == fitted.Frequent(values=top, other="rest")
    made = fitted.apply(pa.chunked_array([["a", "x"], [None, ""]]), state)
    assert made.to_pylist() == ["a", "rest", None, ""]


def test_states_survive_the_disk(tmp_path: Any) -> None:
    states = {
        "a": fitted.Centres(centres=[1.5, 2.25], digits=1),
        "b": fitted.Frequent(values=["x"], other="y"),
    }
    fitted.write(states, tmp_path)
    assert fitted.read(tmp_path) == states
    assert [p.name for p in tmp_path.iterdir()] == ["derived.json"]
    (tmp_path / "derived.json").unlink()
    fitted.write({}, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert fitted.read(tmp_path) == {}


# ── in etl ──────────────────────────────────────────────────────────────────────────────

STEPS = (
    "derive=[{kind: price_cluster, of: price, to: cluster, k: 4, digits: 1}, "
    "{kind: top_values, of: shop, to: top_shop, n: 1}]",
    "features.cluster={role: item}",
    "features.top_shop={role: context}",
)


def test_e10_clusters_are_features_of_items_and_fitted_on_train(world: World) -> None:
    result = run(world, *STEPS)
    told = json.loads((result.folder / "derived.json").read_text(encoding="utf-8"))
    items = pq.read_table(result.folder / "items" / "raw.parquet").to_pandas()
    prices = {row["item_id"]: row["price"] for row in world.films}
    rows = items["item_id"][part(result, "train")["item_row"]]
    bought = [prices[item] for item in rows if prices.get(item) is not None]
    assert told["cluster"]["centres"][0] >= min(bought)
    assert told["cluster"]["centres"][-1] <= max(bought)
    for item, label in zip(items["item_id"], items["cluster"], strict=True):
        price = prices.get(item)
        if price is None:
            assert label is None
        else:
            nearest = min(told["cluster"]["centres"], key=lambda c: (abs(c - price), c))
            assert label == f"{nearest:.1f}"
    for name in PARTS:
        who = items["cluster"][part(result, name)["item_row"].clip(0)]
        assert decoded(result, name, "cluster") == list(who)
    assert set(decoded(result, "train", "top_shop")) == {None, "other", *told["top_shop"]["values"]}


def test_e15_no_row_after_the_cut_changes_what_is_learnt(world: World) -> None:
    split = "split={kind: time, valid: 0.1, test: 0.1}"
    before = run(world, split, *STEPS, name="before")
    cut = part(before, "train")["when"].max()
    for row in world.log:
        if row["when"] is not None and row["when"] > cut and row["rating"] >= 3:
            row.update(item_id=UNSEEN, shop="fax")
    world.write()
    after = run(world, split, *STEPS, name="after")
    fitted = (*FITTED, "derived.json")
    assert content(after.folder, *fitted) == content(before.folder, *fitted)
    assert content(after.folder, "test") != content(before.folder, "test")
    # and a row before the cut does change it
    for row in world.log:
        if row["when"] is not None and row["when"] <= cut and row["item_id"] in ITEMS[:2]:
            row.update(item_id=UNSEEN)
    world.write()
    control = run(world, split, *STEPS, name="control")
    assert content(control.folder, "derived.json") != content(before.folder, "derived.json")


def test_a_grown_stage_keeps_what_was_learnt(world: World) -> None:
    old = run(world, *STEPS)
    for row in world.log:
        row["shop"] = "fax"
    for row in world.films:
        row["price"] = 7.0
    world.write()
    grown = etl(
        world.recipe(*STEPS),
        Store(world.folder.parent / "grown"),
        DEVICE,
        data=world.folder,
        grow_from=Store(old.folder.parent),
    )
    assert content(grown.folder, "derived.json") == content(old.folder, "derived.json")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("features.age.fill=mean", r"features.age.fill: 'median', now 'mean'"),
        ("derive=[{kind: top_values, of: shop, to: top_shop, n: 1}]", "derive step of top_shop"),
    ],
)
def test_a_grown_stage_refuses_to_learn_by_other_rules(
    world: World, setting: str, said: str
) -> None:
    steps = ["derive=[{kind: top_values, of: shop, to: top_shop, n: 2}]"]
    old = run(world, *steps)
    with pytest.raises(ArtifactError, match=said):
        etl(
            world.recipe(*steps, setting),
            Store(world.folder.parent / "grown"),
            DEVICE,
            data=world.folder,
            grow_from=Store(old.folder.parent),
        )


def test_rules_may_ask_what_was_learnt_after_it_only(world: World) -> None:
    rule = "filter=[{{kind: keep, column: top_shop, is: '!=', value: other, stage: {}}}]"
    result = run(world, *STEPS, rule.format("after"))
    assert "other" not in decoded(result, "train", "top_shop")
    assert result.report.dropped["not top_shop != other"] > 10
    with pytest.raises(RecipeError, match=r"'top_shop', which is learnt.*stage: after"):
        world.recipe(*STEPS, rule.format("before"))
    late = "derive=[{kind: top_values, of: shop, to: a, n: 1}, {kind: path_level, of: a, to: b, "
    with pytest.raises(RecipeError, match=r"of 'a', which is learnt from the training rows"):
        world.recipe(late + "level: 1, levels: 1}]")
