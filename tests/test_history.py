"""Histories: windows are compared with a loop that remembers the events of each user."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from world import RECIPE, World, write_csv

from workflows import recipe as recipes
from workflows.etl import etl
from workflows.etl.shape.history import (
    EventKinds,
    final_histories,
    find_windows,
    find_windows_by_kind,
)
from workflows.ground import device
from workflows.ground.errors import RecipeError
from workflows.recipe import Events, History
from workflows.stages.etl import Prepared
from workflows.stages.store import Store

DAY = 86_400
EVENTS = Events(column="event", kinds=("cart", "purchase"), target="purchase")
HISTORY = History(columns=("i",), max_len=100, before="day", events=EVENTS)


def remembered(users, times, items, config):
    """Return each row's history by the words of the recipe: earlier, the latest max_len."""
    bucket = {"second": 1, "day": DAY}.get(config.before)
    lists = []
    for row in range(len(users)):
        if config.before == "others":
            others = [o for o in range(len(users)) if users[o] == users[row] and o != row]
            lists.append([items[other] for other in others][-config.max_len :])
            continue
        earlier = [
            items[other]
            for other in range(row)
            if users[other] == users[row]
            and (bucket is None or times[other] // bucket < times[row] // bucket)
        ]
        lists.append(earlier[-config.max_len :])
    return lists


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5 * DAY)), max_size=40),
    st.integers(1, 6),
    st.sampled_from(["event", "second", "day", "others"]),
)
def test_windows_are_what_a_loop_remembers(rows, max_len, before):
    rows = sorted(rows, key=lambda row: row[1])
    users = np.array([user for user, _ in rows], np.int64)
    times = np.array([time for _, time in rows], np.int64)
    items = np.arange(100, 100 + len(rows), dtype=np.int32)
    config = History(columns=("x",), max_len=max_len, before=before)
    found = find_windows(users, times, config)
    lists = found.gather(pa.array(items), np.arange(len(rows))).to_pylist()
    assert lists == remembered(users, times, items.tolist(), config)


def test_some_rows_can_be_asked_for_in_any_order():
    users, times = np.array([1, 1, 2, 1]), np.arange(4)
    found = find_windows(users, times, History(columns=("x",)))
    lists = found.gather(pa.array([10, 11, 12, 13]), np.array([3, 0])).to_pylist()
    assert lists == [[10, 11], []]


@pytest.fixture
def with_history(world: World) -> World:
    world.text += "history: {columns: [item_id], max_len: 3}\n"
    return world.write()


def read(store: Store, part: str) -> list[dict[str, object]]:
    return pq.read_table(store.folder("etl") / part / "part-0.parquet").to_pylist()


def test_etl_writes_each_users_earlier_codes_and_never_the_target(with_history, tmp_path):
    recipe, store = with_history.recipe(), Store(tmp_path / "run")
    etl(recipe, store, device.Device("cpu", "test"), data=with_history.folder)
    past: dict[object, list[object]] = {}
    lengths = set()
    for part in ("train", "valid", "test"):
        for row in read(store, part):
            mine = past.setdefault(row["user_row"], [])
            assert row["history_item_id"] == mine[-3:]
            lengths.add(len(row["history_item_id"]))
            mine.append(row["item_id"])
    assert lengths == {0, 1, 2, 3}


def test_what_is_tested_does_not_reach_a_training_history(with_history, tmp_path):
    recipe = with_history.recipe("split={kind: random, valid: 0.2, test: 0.2, seed: 3}")
    store = Store(tmp_path / "run")
    etl(recipe, store, device.Device("cpu", "test"), data=with_history.folder)
    train = read(store, "train")
    trained = {(row["user_row"], row["item_id"]) for row in train}
    for row in train:
        assert all((row["user_row"], code) in trained for code in row["history_item_id"])


@pytest.mark.parametrize("column", ["genres", "title", "city", "nothing"])
def test_a_history_is_of_item_categories(with_history, column):
    with pytest.raises(RecipeError, match=f"history column '{column}' is no item feature of kind"):
        with_history.recipe(f"history.columns=[{column}]")


def test_a_bag_is_the_default_without_time_and_an_order_is_refused_with_the_cure(with_history):
    untimed = ("features.when.role=context", "split={kind: random}")
    bag = with_history.recipe("history={columns: [item_id]}", *untimed)
    assert (bag.history.before, bag.history.max_len) == ("others", 200)
    assert bag.model.encoder.decay is None
    said = with_history.recipe("history.max_len=7", "model.encoder.decay=3", *untimed)
    assert (said.history.max_len, said.model.encoder.decay) == (7, 3.0)
    timed = with_history.recipe()
    assert (timed.history.before, timed.model.encoder.decay) == ("event", 10.0)
    with pytest.raises(RecipeError, match=r"before: second needs.* role time.*set before: others"):
        with_history.recipe("history.before=second", *untimed)


def bags(store: Store, part: str) -> dict[tuple[str, str], set[str]]:
    """Return the ids of the history of each pair of a user and an item, which stand there once."""
    users = pq.read_table(store.folder("etl") / "users" / "raw.parquet")["user_id"].to_pylist()
    codes = pq.read_table(store.folder("etl") / "vocabulary" / "item_id.parquet").to_pylist()
    item_of = {row["code"]: row["value"] for row in codes}
    return {
        (users[row["user_row"]], item_of[row["item_id"]]): {
            item_of[code] for code in row["history_item_id"]
        }
        for row in read(store, part)
    }


PAIRS = [(f"u{user}", f"i{item}") for user in range(6) for item in range(user, user + 9)]
UNTIMED = """\
name: pairs
sources: {log: {files: log.csv}}
interactions: log
split: {kind: random, valid: 0.2, test: 0.2}
history: {columns: [item_id]}
features:
  user_id: {role: user, id: true, input: false}
  item_id: {role: item, id: true}
"""


def prepared(folder, pairs, *overrides):
    folder.mkdir()
    rows = [{"user_id": user, "item_id": item} for user, item in pairs]
    write_csv(folder / "log.csv", rows)
    (folder / "pairs.yaml").write_text(UNTIMED)
    store = Store(folder / "run")
    recipe = recipes.load(folder / "pairs.yaml", overrides)
    etl(recipe, store, device.Device("cpu", "test"), data=folder)
    return recipe, store


def test_two_columns_without_time_give_bags_that_hold_no_row_of_their_own_part(tmp_path):
    recipe, store = prepared(tmp_path / "a", PAIRS)
    rows = {part: bags(store, part) for part in ("train", "valid", "test")}
    assert [len(of) for of in rows.values()] == [54 - 2 * 11, 11, 11]
    known: set[tuple[str, str]] = set(rows["train"])
    for part, of in rows.items():
        for (user, item), bag in of.items():
            mine = {other for name, other in known if name == user}
            # an item that train never met has no code: it is missing on both sides
            assert bag - {None} == mine - {item, None}
        known |= set(of) if part != "train" else set()
    asked = Prepared.open(store, recipe).evaluation_set("test", recipe.evaluate)
    assert asked.queries.histories.lengths.sum() > 0


@pytest.mark.parametrize("split", ["{kind: random}", "{kind: by_user}"])
def test_the_order_of_the_file_does_not_matter_without_time(tmp_path, split):
    """Of 9 rows of a user at most 3 are shown: a sample by the seed, not the file's last ones."""
    overrides = (f"split={split}", "history.max_len=3")
    shuffled = [PAIRS[n] for n in np.random.default_rng(5).permutation(len(PAIRS))]
    stores = [
        prepared(tmp_path / name, pairs, *overrides)[1]
        for name, pairs in (("a", PAIRS), ("b", PAIRS[::-1]), ("c", shuffled))
    ]
    first, *others = [[bags(store, part) for part in ("train", "valid")] for store in stores]
    assert others == [first, first]
    assert {len(bag) for bag in first[0].values()} <= {2, 3}
    seeded = prepared(tmp_path / "d", PAIRS, *overrides, "history.seed=2")[1]
    assert bags(seeded, "train") != first[0]
    assert bags(seeded, "train").keys() == first[0].keys()  # the split has a seed of its own


def test_evaluate_takes_the_sample_that_training_took(tmp_path):
    recipe, store = prepared(tmp_path / "a", PAIRS, "history.max_len=3")
    opened = Prepared.open(store, recipe)
    asked = opened.evaluation_set("valid", recipe.evaluate)
    users = opened.raw_users["user_id"].to_pylist()
    items = opened.raw_items["item_id"].to_pylist()
    latest = asked.queries.histories.last(3)
    shown = {users[row]: {items[i] for i in latest[n]} for n, row in enumerate(asked.queries.users)}
    for (user, _), bag in bags(store, "valid").items():
        assert bag == shown[user]


def by_kind(users, times, kinds, items, config):
    """Return, for each kind, each row's list by the words of the recipe."""
    found = []
    for kind in range(len(config.events.kinds)):
        lists = []
        for row in range(len(users)):
            earlier = [
                items[other]
                for other in range(row)
                if users[other] == users[row]
                and kinds[other] == kind
                and times[other] // DAY < times[row] // DAY
            ]
            cut = earlier[-config.max_len :] if config.keep == "latest" else earlier
            lists.append(cut[: config.max_len])
        found.append(lists)
    return found


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 5 * DAY), st.integers(-1, 1)), max_size=40
    ),
    st.integers(1, 4),
    st.sampled_from(["latest", "earliest"]),
)
def test_e16_lists_by_kind_are_what_a_loop_remembers(rows, max_len, keep):
    rows = sorted(rows, key=lambda row: row[1])
    users, times, kinds = (np.array([row[n] for row in rows], np.int64) for n in range(3))
    items = np.arange(100, 100 + len(rows))
    config = History(columns=("i",), max_len=max_len, keep=keep, before="day", events=EVENTS)
    found = find_windows_by_kind(users, times, kinds, config)
    every = np.arange(len(rows))
    lists = [w.gather(pa.array(items), every).to_pylist() for w in found]
    assert lists == by_kind(users, times, kinds, items, config)


def test_e16_the_example_of_the_original() -> None:
    """A cart and a purchase of one day, a purchase of the next, another user's in between."""
    users, times = np.array([1, 1, 2, 1]), np.array([10, 20, 30, DAY + 1])
    happened = EventKinds.of(pa.chunked_array([["cart", "purchase", "cart", "purchase"]]), EVENTS)
    assert happened.targets.tolist() == [False, True, False, True]
    found = find_windows_by_kind(users, times, happened.kinds, HISTORY)
    lists = [w.gather(pa.array([7, 8, 9, 8]), np.arange(4)).to_pylist() for w in found]
    assert lists == [[[], [], [], [7]], [[], [], [], [8]]]


def test_a_kind_that_nobody_asked_for_is_none() -> None:
    happened = EventKinds.of(pa.chunked_array([["view", None, "cart"], ["purchase"]]), EVENTS)
    assert happened.kinds.tolist() == [-1, -1, 0, 1]
    assert happened.targets.tolist() == [False, False, False, True]


def test_e16_of_101_events_100_are_kept() -> None:
    users = np.zeros(102, np.int64)
    times = np.append(np.zeros(101, np.int64), DAY)
    kinds = np.append(np.zeros(101, np.int64), 1)
    items = pa.array(np.arange(102))
    for keep, expected in (("latest", range(1, 101)), ("earliest", range(100))):
        config = History(columns=("i",), max_len=100, keep=keep, before="day", events=EVENTS)
        carts, bought = find_windows_by_kind(users, times, kinds, config)
        assert carts.gather(items, np.array([101])).to_pylist() == [list(expected)]
        assert bought.gather(items, np.array([101])).to_pylist() == [[]]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 1)), max_size=30), st.integers(1, 4))
def test_what_is_known_of_a_user_is_all_he_did(rows, max_len):
    users, kinds = (np.array([row[n] for row in rows], np.int64) for n in range(2))
    config = History(columns=("i",), max_len=max_len, before="day", events=EVENTS)
    for kind, found in enumerate(final_histories(users, kinds, config, n_users=4)):
        for user in range(4):
            mine = [n for n, row in enumerate(rows) if row == (user, kind)]
            assert found[user].tolist() == mine[-max_len:]


def test_events_are_for_offer_models(world: World) -> None:
    events = "history={columns: [item_id], events: {column: shop, kinds: [web], target: app}}"
    with pytest.raises(
        RecipeError, match=r"history\.events is for models of kind offers; set model"
    ):
        world.recipe(events)
    with pytest.raises(RecipeError, match="models of kind offers need a history"):
        world.recipe("model={kind: offers}")
    with pytest.raises(RecipeError, match="names the attribute 'color'; expected columns of hist"):
        world.recipe(
            "history.columns=[item_id]",
            "model={kind: offers, models: {m: {attributes: [color], mask_net: false}}}",
        )
    with pytest.raises(RecipeError, match=r"offers do not read train\.max_rows_per_user: model"):
        world.recipe(
            "history.columns=[item_id]", "model={kind: offers}", "train.max_rows_per_user=5"
        )
    with pytest.raises(RecipeError, match="before: others goes with keep: latest"):
        world.recipe("history={columns: [item_id], before: others, keep: earliest}")


def test_contexts_stay_beside_their_rows_without_time(tmp_path):
    """Histories are drawn in another order than rows stand in; occasions are told by the rows."""
    pairs = [(f"u{n % 3}", f"i{n}") for n in range(30)]
    folder = tmp_path / "a"
    folder.mkdir()
    rows = [{"user_id": user, "item_id": item, "shop": f"shop of {item}"} for user, item in pairs]
    write_csv(folder / "log.csv", rows)
    (folder / "pairs.yaml").write_text(UNTIMED + "  shop: {role: context}\n")
    recipe, store = recipes.load(folder / "pairs.yaml"), Store(folder / "run")
    etl(recipe, store, device.Device("cpu", "test"), data=folder)
    opened = Prepared.open(store, recipe)
    asked = opened.evaluation_set("train", recipe.evaluate)
    shops = {
        row["code"]: row["value"]
        for row in pq.read_table(store.folder("etl") / "vocabulary" / "shop.parquet").to_pylist()
    }
    items = opened.raw_items["item_id"].to_pylist()
    for n, code in enumerate(asked.queries.contexts["shop"]):
        assert [f"shop of {items[row]}" for row in asked.targets[n]] == [shops[code]]


@pytest.mark.parametrize(
    ("overrides", "kind", "batch_size"),
    [
        ((), "attention", 1600),
        (("model={encoder: {blocks: 2}}",), "attention", 1600),
        (("model={encoder: {kind: decay_pool}}",), "decay_pool", 512),
        (("history.before=second",), "decay_pool", 512),
        (("history.keep=earliest",), "decay_pool", 512),
        (("train.batch_size=64",), "attention", 64),
    ],
)
def test_attention_is_the_default_where_rows_are_sequences(
    tmp_path: Path, overrides: tuple[str, ...], kind: str, batch_size: int
):
    world = World(tmp_path, text=RECIPE + "history: {columns: [item_id]}\n").write()
    recipe = world.recipe(*overrides)
    assert recipe.model.encoder.__struct_config__.tag == kind
    assert recipe.train.batch_size == batch_size
    assert recipe.optimizer.lr == (0.002 if kind == "attention" else 0.003)
    adagrad = world.recipe(*overrides, "optimizer.kind=adagrad")
    assert adagrad.optimizer.lr == 0.003, "the rate was measured with adam"
