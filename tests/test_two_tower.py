from __future__ import annotations

from dataclasses import replace

import merlin.models.tf as mm
import numpy as np
import pytest
import tensorflow as tf
from conformance import PROMISES, finds_the_withheld
from merlin.schema import ColumnSchema, Schema, Tags
from merlin.schema.io.tensorflow_metadata import TensorflowMetadata
from toy_towers import FIRST, batches_of, compiled, tables, toy_towers, weights_of

from models.core.column_names import WEIGHTS_OF
from models.core.columns import as_array, take, take_rows
from models.core.reserved_codes import UNSEEN
from models.core.retriever import Queries, Ragged
from models.encoders.dropout import Dropout
from models.losses.config import LossConfig
from models.losses.in_batch import softmax_loss
from models.losses.sampled_loss import ITEM, QUERY
from models.towers import tower as tower_module
from models.towers.config import TwoTowerConfig
from models.towers.layers import History, ItemBias, WeightedMean
from models.towers.schema_file import read_schema
from models.towers.tower import TowerError, embed, tower_schemas, width
from models.training.two_tower import TwoTower, build, set_prior

TOY = toy_towers()
N_ITEMS = TOY.world.train.n_items
N_USERS = TOY.world.train.n_users
BATCH = np.arange(40)


def n_trainable(model: mm.RetrievalModelV2) -> int:
    return sum(int(np.prod(w.shape)) for w in model.trainable_weights)


# --- which columns feed which tower ---


def test_tags_choose_the_inputs_of_a_tower():
    model = TOY.build(
        "user_id", "age", "shop", "hobbies", "history_item_id", "item_id", "genres", "price"
    )
    assert sorted(model.query_encoder.schema.column_names) == [
        "age",
        "history_item_id",
        "hobbies",
        "shop",
        "user_id",
    ]
    assert sorted(model.candidate_encoder.schema.column_names) == ["genres", "item_id", "price"]
    assert {"user_row", "item_row"} < set(model.schema.column_names)


@pytest.mark.parametrize(
    ("column", "side"),
    [
        ("user_id", QUERY),
        ("age", QUERY),
        ("shop", QUERY),
        ("hobbies", QUERY),
        ("history_item_id", QUERY),
        ("history_group", QUERY),
        ("group", ITEM),
        ("genres", ITEM),
        ("price", ITEM),
    ],
)
def test_a_column_moves_its_own_tower_and_not_the_other(column, side):
    names = ["user_id", "history_item_id", "item_id", "group", column]
    model = TOY.build(*dict.fromkeys(names), item_bias=False)
    batch = take({n: TOY.train[n] for n in model.schema.column_names}, BATCH[-3:])
    key = f"{column}__values" if f"{column}__values" in batch else column
    values = batch[key]
    other = values + 0.5 if column in ("age", "price") else np.where(values == 3, 4, 3)
    changed = {**batch, key: other.astype(values.dtype)}
    assert values.size
    for tower, of in ((model.query_encoder, QUERY), (model.candidate_encoder, ITEM)):
        before, after = (
            tower({k: tf.constant(v) for k, v in b.items()}).numpy() for b in (batch, changed)
        )
        assert np.array_equal(before, after) == (of != side)


def test_an_id_that_is_no_input_feeds_nothing():
    """etl leaves the tag CATEGORICAL off an id with `input: false`."""
    silent = ColumnSchema("user_id", tags=[Tags.USER_ID], dtype=np.int32)
    schema = Schema([silent]) + TOY.schema("history_item_id", "item_id")
    query, item = tower_schemas(schema)
    assert (query.column_names, item.column_names) == (["history_item_id"], ["item_id"])


# --- weights ---


def test_m01_parameters_are_those_of_a_hand_calculation():
    users, items = FIRST + N_USERS, FIRST + N_ITEMS
    linear = TOY.build("user_id", "history_item_id", "item_id", "group", dim=8)
    # user table, item table (shared), group table (4 groups), 4 positions, item bias
    assert n_trainable(linear) == users * 8 + items * 8 + (FIRST + 4) * 8 + 4 + items
    deep = TOY.build(
        "user_id",
        "age",
        "item_id",
        "price",
        dim=8,
        combine="concat",
        query_layers=(16, 5),
        item_layers=(7, 5),
        item_bias=False,
    )
    query = users * 8 + (9 * 16 + 16) + (16 * 5 + 5)  # 8 and one number
    item = items * 8 + (9 * 7 + 7) + (7 * 5 + 5)
    assert n_trainable(deep) == query + item
    numbers = TOY.build("user_id", "age", "item_id", dim=8, item_bias=False)
    assert n_trainable(numbers) == users * 8 + 1 * 8 + items * 8  # a projection without bias


def test_a_history_alone_makes_no_table_of_its_own():
    model = TOY.build("history_item_id", "history_group", "item_id", "group", dim=8)
    items, groups = FIRST + N_ITEMS, FIRST + TOY.world.n_groups
    assert n_trainable(model) == (items + groups) * 8 + 2 * 4 + items
    assert sorted(tables(model)) == ["group", "item_id"]


def test_a_history_looks_into_the_item_towers_own_table():
    model = TOY.build("history_item_id", "item_id", item_bias=False)
    pool = weights_of(model.query_encoder, History)
    table = weights_of(model.candidate_encoder, mm.EmbeddingTable)
    assert pool.table is table.table
    # one item in the history: the query is that item's own vector
    one = Ragged(TOY.items["item_id"][:5], np.arange(6))
    queries = embed(model.query_encoder, {"history_item_id": one})
    np.testing.assert_allclose(queries, embed(model.candidate_encoder, TOY.items)[:5], rtol=1e-6)


def test_weights_depend_on_the_seeds_alone():
    """The seed given fixes the embeddings; that of TensorFlow, which train sets, the layers."""

    def fresh(*, seed: int, layers: int) -> mm.RetrievalModelV2:
        tf.keras.utils.set_random_seed(layers)
        return TOY.build("user_id", "age", "item_id", "genres", seed=seed, query_layers=(8,))

    model, again = fresh(seed=1, layers=1), fresh(seed=1, layers=1)
    for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    mine, theirs = tables(model), tables(fresh(seed=2, layers=1))
    assert sorted(mine) == ["genres", "item_id", "user_id"]
    assert not any((mine[name] == theirs[name]).any() for name in mine)


def test_fresh_embeddings_have_the_deviation_asked_for_and_are_no_copies():
    model = TOY.build("user_id", "hobbies", "item_id", "genres", dim=64, init_stddev=0.2)
    found = tables(model)
    assert sorted(found) == ["genres", "hobbies", "item_id", "user_id"]
    assert all(table.std() == pytest.approx(0.2, abs=0.02) for table in found.values())
    heads = np.stack([table[:7].ravel() for table in found.values()])
    assert np.abs(np.corrcoef(heads) - np.eye(4)).max() < 0.2


# --- shapes of the output ---


def test_sum_adds_the_inputs_and_concat_puts_them_side_by_side():
    for combine, join in (("sum", np.sum), ("concat", None)):
        model = TOY.build(
            *("user_id", "shop", "item_id", "group"), combine=combine, item_bias=False, dim=8
        )
        found = tables(model)
        rows = {n: found[n][as_array(TOY.items[n])] for n in ("item_id", "group")}
        vectors = embed(model.candidate_encoder, TOY.items)
        parts = [rows[n] for n in sorted(rows)]
        expected = join(parts, axis=0) if join else np.concatenate(parts, axis=1)
        np.testing.assert_allclose(vectors, expected, rtol=1e-6)


def test_numbers_alone_make_a_tower():
    model = TOY.build("age", "price", item_bias=False)
    vectors = embed(model.query_encoder, TOY.users)
    (kernel,) = model.query_encoder.trainable_weights
    np.testing.assert_allclose(vectors, TOY.users["age"][:, None] * kernel.numpy(), rtol=1e-6)


def test_a_list_counts_as_the_mean_of_its_values_and_an_empty_one_as_nothing():
    model = TOY.build("user_id", "genres", item_bias=False)
    table = tables(model)["genres"]
    lists = TOY.items["genres"]
    expected = [
        table[lists[i]].mean(axis=0) if len(lists[i]) else np.zeros(8) for i in range(N_ITEMS)
    ]
    assert min(lists.lengths) == 0
    np.testing.assert_allclose(
        embed(model.candidate_encoder, TOY.items), expected, rtol=1e-5, atol=1e-7
    )


def test_numbers_are_projected_where_inputs_are_added():
    model = TOY.build("user_id", "age", "item_id", item_bias=False)
    kernel = next(w.numpy() for w in model.query_encoder.trainable_weights if w.shape == (1, 8))
    users = {n: TOY.users[n][:20] for n in ("user_id", "age")}
    expected = tables(model)["user_id"][users["user_id"]] + users["age"][:, None] * kernel
    np.testing.assert_allclose(embed(model.query_encoder, users), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_m01_the_last_layer_is_linear_and_the_others_are_not(activation):
    model = TOY.build(
        *("user_id", "item_id"), query_layers=(6, 8), item_bias=False, activation=activation
    )
    by_shape = {
        w.shape.as_list().__str__(): w.numpy() for w in model.query_encoder.trainable_weights
    }
    first, last = by_shape["[8, 6]"], by_shape["[6, 8]"]
    inputs = tables(model)["user_id"][TOY.users["user_id"]].astype(np.float64)
    inner = inputs @ first  # fresh biases are zero
    hidden = np.maximum(inner, 0) if activation == "relu" else np.tanh(inner)
    outputs = embed(model.query_encoder, TOY.users)
    np.testing.assert_allclose(outputs, hidden @ last, rtol=1e-3, atol=1e-6)
    assert (outputs < 0).any()


def test_m06_normalized_outputs_have_length_one():
    names = ("user_id", "age", "item_id", "price")
    plain = TOY.build(*names, normalize=True, item_bias=False)
    for tower, columns in (
        (plain.query_encoder, TOY.users),
        (plain.candidate_encoder, TOY.items),
    ):
        vectors = embed(tower, columns)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
        assert vectors.std(axis=0).min() > 0.01


def test_lists_with_weights_enter_a_tower_by_their_weighted_mean_and_are_learnt():
    draw = np.random.default_rng(5)
    columns, train, users, items = [], dict(TOY.train), dict(TOY.users), dict(TOY.items)
    for name, side, table in (("hobbies", Tags.USER, users), ("genres", Tags.ITEM, items)):
        properties = {WEIGHTS_OF: name}
        dims = (None, None)
        column = ColumnSchema(
            f"{name}_weight", tags=[side], properties=properties, dtype=np.float32, dims=dims
        )
        columns.append(column)
        lists = table[name]
        weights = draw.uniform(0.5, 9, size=len(lists.values)).astype(np.float32)
        table[column.name] = Ragged(weights, lists.offsets)
        of = "user_row" if side == Tags.USER else "item_row"
        train[column.name] = take_rows(table[column.name], train[of])
    schema = TOY.schema("user_id", "hobbies", "item_id", "genres") + Schema(columns)
    config = TwoTowerConfig(dim=6, combine="concat", dropout=0.0, item_bias=False)
    facts = replace(TOY.facts(), items=items)
    model = build(schema, config, LossConfig(kind="full"), facts, seed=1)
    names = [weight.name for weight in model.trainable_weights]  # HDF5 asks for different ones
    assert len(set(names)) == len(names) == 4
    layers = []
    for tower, rows, (key, name) in (
        (model.query_encoder, users, ("user_id", "hobbies")),
        (model.candidate_encoder, items, ("item_id", "genres")),
    ):
        layers.append(weights_of(tower, WeightedMean).tables[name])
        table = layers[-1].get_weights()[0]
        means = np.zeros((len(rows[key]), 6))
        for row in np.flatnonzero(rows[name].lengths):
            vectors = table[rows[name][row]].astype(np.float64)
            means[row] = np.average(vectors, axis=0, weights=rows[f"{name}_weight"][row])
        expected = np.concatenate([means, tables(model)[key][rows[key]]], axis=1)
        found = embed(tower, rows)
        # the branches of a tower are joined in the order of their columns' names
        order = [name, key] if name < key else [key, name]
        halves = dict(zip((name, key), np.split(expected, 2, axis=1), strict=True))
        expected = np.concatenate([halves[n] for n in order], axis=1)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    before = [layer.get_weights()[0] for layer in layers]
    made = batches_of(train, model, batch_size=64)
    compiled(model).fit(made, epochs=1, verbose=0)
    for layer, fresh in zip(layers, before, strict=True):
        assert (np.abs(layer.get_weights()[0] - fresh).max(axis=1) > 1e-3).sum() > 3


def test_a_tower_says_the_same_before_and_after_it_is_traced():
    names = ("user_id", "age", "shop", "item_id")
    layers = {"query_layers": (9, 6), "item_layers": (6,), "item_bias": False}
    tower = TOY.build(*names, combine="concat", normalize=True, **layers).query_encoder
    rows = {name: take_rows(TOY.train[name], np.arange(5)) for name in tower.schema.column_names}
    said = [embed(tower, rows, batch_size=2) for _ in range(2)]
    assert tower not in tower_module._COMPILED
    said += [embed(tower, rows, batch_size=2) for _ in range(2)]
    assert tower in tower_module._COMPILED
    for again in said[1:]:
        np.testing.assert_allclose(again, said[0], rtol=1e-6, atol=1e-6)


def test_the_item_bias_is_one_more_dimension_beside_the_unit_vector():
    model = TOY.build("user_id", "item_id", normalize=True, item_bias=True)
    weights_of(model.candidate_encoder, ItemBias).table.assign(np.arange(FIRST + N_ITEMS) / 10)
    queries, items = (
        embed(model.query_encoder, TOY.users),
        embed(model.candidate_encoder, TOY.items),
    )
    assert queries.shape[1] == items.shape[1] == 9
    assert (queries[:, -1] == 1).all()
    np.testing.assert_allclose(items[:, -1], TOY.items["item_id"] / 10, rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(items[:, :-1], axis=1), 1, rtol=1e-5)


def test_dropout_is_for_training():
    model = TOY.build("user_id", "item_id", dropout=0.5, item_bias=False)
    batch = {"user_id": tf.constant(TOY.users["user_id"])}
    calm = model.query_encoder(batch, training=False).numpy()
    np.testing.assert_array_equal(calm, tables(model)["user_id"][TOY.users["user_id"]])
    shaken = model.query_encoder(batch, training=True).numpy()
    assert (shaken == 0).mean() == pytest.approx(0.5, abs=0.1)
    np.testing.assert_allclose(shaken[shaken != 0], 2 * calm[shaken != 0], rtol=1e-6)


@pytest.mark.parametrize(("rates", "query", "item"), [({}, 1, 1), ({"item_dropout": 0.0}, 1, 0)])
def test_the_item_tower_may_have_a_dropout_of_its_own(rates, query, item):
    model = TOY.build("user_id", "item_id", dropout=0.5, **rates)
    for tower, n in ((model.query_encoder, query), (model.candidate_encoder, item)):
        assert sum(isinstance(layer, Dropout) for layer in tower.submodules) == n


def test_id_dropout_trains_the_row_of_the_unseen_code():
    model = TOY.build("user_id", "item_id", id_dropout=0.5, item_bias=False)
    table = tables(model)["user_id"]
    batch = {"user_id": tf.constant(TOY.users["user_id"][:-1])}
    vectors = model.query_encoder(batch, training=True).numpy()
    unseen = (vectors == table[UNSEEN]).all(axis=1)
    assert 0.3 < unseen.mean() < 0.7
    own = table[TOY.users["user_id"][:-1]]
    np.testing.assert_array_equal(vectors[~unseen], own[~unseen])
    np.testing.assert_array_equal(model.query_encoder(batch, training=False), own)


@pytest.mark.parametrize(("rate", "trained"), [(0.0, False), (0.3, True)])
def test_id_dropout_trains_the_bias_of_unseen_items_too(rate, trained):
    model = compiled(TOY.build("user_id", "item_id", id_dropout=rate))
    model.fit(TOY.batches(model), epochs=1, verbose=0, shuffle=False)
    bias = weights_of(model.candidate_encoder, ItemBias).table.numpy()
    assert (bias[UNSEEN] != 0) == trained
    assert (bias[FIRST : FIRST + N_ITEMS - 1] != 0).all()


# --- what is refused ---


def test_m03_towers_of_different_width_are_refused():
    wrong = (
        r"query tower ends in 16 and the item tower in 8 dimensions \(query_layers \[16\], "
        r"item_layers \[\], combine 'sum', dims {}\)"
    )
    with pytest.raises(TowerError, match=wrong):
        TOY.build("user_id", "item_id", query_layers=(16,), item_bias=False)
    with pytest.raises(TowerError, match=r"ends in 17 and the item tower in 9 .* combine 'concat'"):
        TOY.build("user_id", "shop", "item_id", combine="concat")


def test_m03_widths_of_columns_add_up_to_the_other_towers():
    """A user of 28 stands against 16 + 6 + 6: id, group and the one-hots of seven genres' codes."""
    dims = {"user_id": 28, "item_id": 16, "group": 6, "genres": "one_hot"}
    config = {"combine": "concat", "item_bias": False, "dims": dims}
    names = ("user_id", "item_id", "group", "genres")
    model = TOY.build(*names, **config)
    assert width(model.query_encoder) == width(model.candidate_encoder) == 28
    assert tables(model)["group"].shape == (FIRST + 4, 6)
    wrong = r"query tower ends in 28 and the item tower in 27 dimensions .* or inputs whose widths"
    with pytest.raises(TowerError, match=wrong):
        TOY.build(*names, **{**config, "dims": {**dims, "group": 5}})


def test_m01_one_hots_and_widths_of_columns_by_hand():
    dims = {"group": "one_hot", "shop": "one_hot", "item_id": 5}
    model = TOY.build(
        *("user_id", "age", "shop", "item_id", "group"),
        combine="concat",
        dims=dims,
        dim=8,
        query_layers=[4],
        item_layers=[4],
        item_bias=False,
    )
    n_users, n_items = TOY.world.train.n_users + FIRST, TOY.world.train.n_items + FIRST
    n_groups = TOY.world.n_groups + FIRST
    query = n_users * 8 + (8 + 1 + (6 - 1)) * 4 + 4  # id, age, one-hot shop
    item = n_items * 5 + (5 + n_groups - 1) * 4 + 4
    assert model.query_encoder.count_params() == query
    assert model.candidate_encoder.count_params() == item


def test_m01_a_history_of_a_one_hot_column_is_the_share_of_each_value():
    names = ("user_id", "history_group", "item_id", "group")
    dims = {"group": "one_hot", "user_id": 8, "item_id": 8}
    model = TOY.build(*names, combine="concat", dims=dims, item_bias=False)
    rows = np.arange(len(TOY.train["user_row"]))
    found = embed(model.query_encoder, TOY.train)
    assert found.shape == (len(rows), 8 + FIRST + TOY.world.n_groups - 1)
    shares = found[:, :-8] if np.allclose(found[:, :-8].sum(axis=1).max(), 1) else found[:, 8:]
    lengths = TOY.train["history_group"].lengths
    assert shares.sum(axis=1) == pytest.approx((lengths > 0).astype(float), abs=1e-6)


def test_m06_cosines_without_a_temperature_cannot_lose_less_than_the_floor():
    """64 rows of unit vectors: at best log(1 + 63 exp(-2)) = 2.254; a temperature lifts that."""
    own = tf.range(64)
    losses = {}
    for temperature in (1.0, 0.05):
        unit = tf.eye(64)
        loss = softmax_loss(unit, unit, own, weights=tf.ones(64), temperature=temperature)
        losses[temperature] = float(loss.total) / 64
    assert losses[1.0] == pytest.approx(np.log(1 + 63 * np.exp(-1)), rel=1e-5)
    assert losses[1.0] > np.log(1 + 63 * np.exp(-2)) == pytest.approx(2.254, abs=1e-3)
    assert losses[0.05] < 1e-6


def test_a_query_is_asked_on_its_own_occasion():
    model = TOY.build("user_id", "shop", "item_id", "group")
    tower = TwoTower.of(model, TOY.users, TOY.items)
    users = np.array([3, 3, 3])
    usual = Queries(users, Ragged.empty(3))
    shops = np.array([1, 3, 4], np.int32)  # in the table everybody's is 1
    asked = tower.embed(replace(usual, contexts={"shop": shops}))
    assert asked[0] == pytest.approx(tower.embed(usual)[0])
    expected = embed(model.query_encoder, {"user_id": TOY.users["user_id"][users], "shop": shops})
    assert asked == pytest.approx(expected)
    assert np.ptp(asked, axis=0).max() > 0


def test_a_tower_without_inputs_is_refused():
    with pytest.raises(
        TowerError, match="the query tower has no inputs; give a feature of its role"
    ):
        TOY.build("item_id")
    with pytest.raises(TowerError, match="the item tower has no inputs"):
        TOY.build("user_id")


def test_a_bias_of_items_that_have_no_id_is_refused():
    with pytest.raises(TowerError, match="item_bias needs the item id; set `input: true` for it"):
        TOY.build("user_id", "group", item_bias=True)


def test_a_history_of_a_column_that_is_no_input_is_refused():
    with pytest.raises(
        TowerError, match=r"'history_group' shares the embeddings of 'group', which"
    ):
        TOY.build("history_group", "item_id")


def test_a_schema_is_read_as_etl_writes_it(tmp_path):
    schema = TOY.schema("user_id", "history_item_id", "item_id", "genres")
    TensorflowMetadata.from_merlin_schema(schema).to_proto_text_file(str(tmp_path))
    read = read_schema(tmp_path)
    assert sorted(read.column_names) == sorted(schema.column_names)
    model = build(read, TwoTowerConfig(), LossConfig(), TOY.facts(), seed=1)
    pool = weights_of(model.query_encoder, History)
    assert (pool.column, pool.encoder.max_len) == ("history_item_id", 4)


# --- embedding and ranking ---


def test_embeddings_do_not_depend_on_the_batch_size():
    model = TOY.build(
        *("user_id", "age", "hobbies", "item_id", "genres"),
        query_layers=(8,),
        item_layers=(8,),
        normalize=True,
    )
    for tower, columns in ((model.query_encoder, TOY.users), (model.candidate_encoder, TOY.items)):
        whole = embed(tower, columns)
        for batch_size in (1, 7):
            np.testing.assert_allclose(
                embed(tower, columns, batch_size=batch_size), whole, rtol=1e-5, atol=1e-6
            )
        assert whole.dtype == np.float32
        assert len(whole) == len(next(iter(columns.values())))
        nothing = {
            n: c.take(np.zeros(0, int)) if isinstance(c, Ragged) else c[:0]
            for n, c in columns.items()
        }
        assert embed(tower, nothing).shape == (0, 9)


def test_the_query_tower_reads_the_history_that_a_query_brings():
    model = TOY.build("user_id", "shop", "history_item_id", "history_group", "item_id", "group")
    two_tower = TwoTower.of(model, TOY.users, TOY.items)
    lists = [[5, 1, 2, 3, 9, 4], [], [7]]
    queries = Queries(
        np.array([3, -1, 0]), Ragged(np.concatenate(lists).astype(int), np.array([0, 6, 6, 7]))
    )
    inputs = two_tower.inputs(queries)
    assert inputs["user_id"].tolist() == [3 + FIRST, UNSEEN, FIRST]
    assert inputs["shop"].tolist() == [1, 1, 1]
    latest = [[2, 3, 9, 4], [], [7]]  # the latest four, oldest first
    for name in ("item_id", "group"):
        found = inputs[f"history_{name}"]
        codes = TOY.items[name]
        assert [found[i].tolist() for i in range(3)] == [codes[one].tolist() for one in latest]


def test_the_ranking_is_that_of_the_dot_products():
    model = TOY.build("user_id", "history_item_id", "item_id", init_stddev=0.5)
    two_tower = TwoTower.of(model, TOY.users, TOY.items)
    queries = TOY.world.queries.block(slice(0, 10))
    scores = two_tower.embed(queries).astype(np.float64) @ two_tower.vectors.T.astype(np.float64)
    top = two_tower.top_k(queries, 6)
    assert top.items.tolist() == [np.argsort(-row, kind="stable")[:6].tolist() for row in scores]
    np.testing.assert_allclose(
        top.scores, -np.sort(-scores, axis=1)[:, :6].astype(np.float32), rtol=1e-6
    )
    scores[queries.histories.owners(), queries.histories.values] = -np.inf
    candidates = np.arange(N_ITEMS) % 2 == 0
    scores[:, ~candidates] = -np.inf
    top = two_tower.top_k(queries, 6, exclude=queries.histories, candidates=candidates)
    assert top.items.tolist() == [np.argsort(-row, kind="stable")[:6].tolist() for row in scores]


def test_a_prior_lifts_items_and_those_that_share_a_code_share_its_mean():
    model = TOY.build("user_id", "item_id")
    codes = TOY.items["item_id"].copy()
    codes[[4, 5]] = UNSEEN
    items = {"item_id": codes}
    before = embed(model.candidate_encoder, items)
    prior = np.arange(N_ITEMS, dtype=np.float32)
    set_prior(model, codes, prior)
    after = embed(model.candidate_encoder, items)
    expected = prior.copy()
    expected[[4, 5]] = 4.5
    np.testing.assert_array_equal(after[:, :-1], before[:, :-1])
    np.testing.assert_allclose(after[:, -1] - before[:, -1], expected, rtol=1e-6)


@pytest.fixture(scope="module")
def trained() -> TwoTower:
    """Fit the toy world's groups: history and item id, all else at its default."""
    model = compiled(TOY.build("history_item_id", "item_id", dim=16, dropout=0.1), lr=0.05)
    model.fit(TOY.batches(model), epochs=12, verbose=0, shuffle=False)
    return TwoTower.of(model, TOY.users, TOY.items)


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_a_trained_model_keeps(trained, promise):
    assert promise(trained, TOY.world)


def test_a_trained_model_finds_what_was_withheld(trained):
    assert finds_the_withheld(trained, TOY.world)


def test_an_untrained_model_does_not():
    model = TOY.build("history_item_id", "item_id", dim=16)
    assert not finds_the_withheld(TwoTower.of(model, TOY.users, TOY.items), TOY.world)
