from __future__ import annotations

import inspect
from typing import get_args

import merlin.models.tf as mm
import msgspec
import numpy as np
import pytest
import tensorflow as tf
from toy_towers import FIRST, batches_of, compiled, tables, toy_towers, weights_of

from models.encoders.dropout import Draws
from models.losses.config import FUNCTIONS, LossConfig
from models.losses.negatives import NEGATIVES
from models.losses.sampled_loss import (
    ITEM,
    QUERY,
    BatchLoss,
    LossFunction,
    SampledLoss,
    function_named,
)
from models.towers.tower import embed

TOY = toy_towers()
N_ITEMS = TOY.world.train.n_items
BATCH = np.arange(40)


def row_losses(model: mm.RetrievalModelV2, batch: dict[str, np.ndarray]) -> np.ndarray:
    """Return the training loss of each row of a batch."""
    tensors = {name: tf.constant(values) for name, values in batch.items()}
    vectors = {QUERY: model.query_encoder(tensors), ITEM: model.candidate_encoder(tensors)}
    output = weights_of(model, SampledLoss)
    return output.loss_of(vectors, tensors, training=True).rows.numpy()


def drawn_anew(output: SampledLoss) -> None:
    """Let the negatives be drawn as in the first step."""
    if isinstance(output.negatives, Draws):
        output.negatives.count.assign(0)


def a_batch(model: mm.RetrievalModelV2, rows: np.ndarray = BATCH) -> dict[str, np.ndarray]:
    return TOY.batch(model, rows)


def losses_by_hand(model, batch, columns: np.ndarray, *, temperature, log_q, mask) -> np.ndarray:
    """State the loss in float64 from the vectors; `columns` are the items of the comparison."""
    queries = embed(model.query_encoder, {"user_id": batch["user_id"]}).astype(np.float64)
    items = embed(model.candidate_encoder, TOY.items).astype(np.float64)
    users, own = batch["user_row"], batch["item_row"]
    likes = TOY.world.train.histories()
    losses = []
    for b in range(len(own)):
        terms, mine = [], None
        for c, item in enumerate(columns):
            term = queries[b] @ items[item] / temperature - log_q[item]
            is_own = c == b if len(columns) != N_ITEMS else item == own[b]
            masked = {"none": False, "item": item == own[b], "user": item in likes[users[b]]}
            if is_own:
                mine = term
            if is_own or not masked[mask]:
                terms.append(term)
        losses.append(np.log(np.exp(terms).sum()) - mine)
    return np.array(losses)


@pytest.mark.parametrize("mask", ["none", "item", "user"])
@pytest.mark.parametrize("kind", ["in_batch", "mixed", "full"])
def test_the_loss_is_that_of_the_vectors_in_float64(kind, mask):
    config = LossConfig(kind=kind, mask=mask, temperature=0.3, negatives=30)
    model = TOY.build("user_id", "item_id", loss=config, init_stddev=0.5)
    batch = a_batch(model)
    counts = np.maximum(TOY.facts().item_counts, 1)
    share = counts / counts.sum()
    drawn = Draws(1).integers([30], N_ITEMS, tf.int32).numpy()
    columns, q = {
        "in_batch": (batch["item_row"], share),
        # facts say 64 rows a step
        "mixed": (np.append(batch["item_row"], drawn), (64 * share + 30 / N_ITEMS) / 94),
        "full": (np.arange(N_ITEMS), np.ones(N_ITEMS)),
    }[kind]
    expected = losses_by_hand(model, batch, columns, temperature=0.3, log_q=np.log(q), mask=mask)
    found = row_losses(model, batch)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    weights_of(model, SampledLoss).merged = False  # as if dropout made repeats unequal
    drawn_anew(weights_of(model, SampledLoss))
    np.testing.assert_allclose(row_losses(model, batch), found, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["in_batch", "mixed"])
@pytest.mark.parametrize("mask", ["item", "user"])
def test_repeats_as_one_column_give_the_gradients_of_many(kind, mask):
    config = LossConfig(kind=kind, mask=mask, temperature=0.3, negatives=30)
    model = TOY.build("user_id", "item_id", "group", "genres", loss=config, init_stddev=0.5)
    batch = {name: tf.constant(values) for name, values in a_batch(model).items()}
    output = weights_of(model, SampledLoss)
    gradients = []
    for merged in (True, False):
        assert merged == output.merged
        with tf.GradientTape() as tape:
            vectors = {QUERY: model.query_encoder(batch), ITEM: model.candidate_encoder(batch)}
            total = output.loss_of(vectors, batch, training=True).total
        gradients.append(
            [
                tf.convert_to_tensor(gradient).numpy()
                for gradient in tape.gradient(total, model.trainable_variables)
            ]
        )
        output.merged = False
        drawn_anew(output)
    for one, many in zip(*gradients, strict=True):
        assert many.any()
        np.testing.assert_allclose(one, many, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("config", "mask", "merged"),
    [
        ({}, "item", True),
        ({}, "user", True),
        ({}, "none", False),
        ({"dropout": 0.1}, "user", False),
        ({"id_dropout": 0.1}, "user", False),
    ],
)
def test_repeats_are_one_column_where_they_are_equal_and_no_negatives(config, mask, merged):
    model = TOY.build("user_id", "item_id", loss=LossConfig(mask=mask), **config)
    assert weights_of(model, SampledLoss).merged == merged


def test_without_correction_q_does_not_count():
    config = LossConfig(kind="in_batch", logq=False, mask="none")
    model = TOY.build("user_id", "item_id", loss=config, init_stddev=0.5)
    batch = a_batch(model)
    setting = {"temperature": 1.0, "log_q": np.zeros(N_ITEMS), "mask": "none"}
    expected = losses_by_hand(model, batch, batch["item_row"], **setting)
    np.testing.assert_allclose(row_losses(model, batch), expected, rtol=1e-4)


def test_full_is_in_batch_where_the_batch_holds_every_item_once():
    rows = np.array([np.flatnonzero(TOY.train["item_row"] == i)[0] for i in range(N_ITEMS - 1)])
    losses = []
    for kind in ("in_batch", "full"):
        config = LossConfig(kind=kind, logq=False, mask="user")
        model = TOY.build("user_id", "item_id", loss=config, init_stddev=0.5)
        batch = a_batch(model, np.append(rows, 0))
        batch["item_row"][-1] = N_ITEMS - 1  # the cold item, so that none is missing
        batch["item_id"][-1] = TOY.items["item_id"][-1]
        losses.append(row_losses(model, batch))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def test_auto_is_full_up_to_a_number_of_items_and_mixed_above_it():
    kinds = [
        weights_of(TOY.build("user_id", "item_id", loss=LossConfig(full_up_to=n)), SampledLoss).kind
        for n in (N_ITEMS, N_ITEMS - 1)
    ]
    assert kinds == ["full", "mixed"]


def test_mixed_negatives_are_drawn_anew_and_repeat_with_the_seed():
    config = LossConfig(kind="mixed", negatives=5, mask="none")
    batches = []
    for seed in (1, 1, 2):
        model = TOY.build("user_id", "item_id", loss=config, init_stddev=0.5)
        weights_of(model, SampledLoss).negatives.seed = seed
        batches.append([row_losses(model, a_batch(model)) for _ in range(2)])
    (first, second), (again, _), (other, _) = batches
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_at_inference_the_output_is_the_score_of_the_own_item():
    model = TOY.build("user_id", "item_id", init_stddev=0.5)
    batch = a_batch(model)
    scores = model({n: tf.constant(v) for n, v in batch.items()}, training=False).numpy()
    queries = embed(model.query_encoder, {"user_id": batch["user_id"]})
    items = embed(model.candidate_encoder, {"item_id": batch["item_id"]})
    np.testing.assert_allclose(scores[:, 0], (queries * items).sum(axis=1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_what_fit_reports_and_differentiates_is_the_reduced_loss(reduction):
    config = LossConfig(kind="full", reduction=reduction, mask="none")
    model = TOY.build("user_id", "item_id", loss=config, init_stddev=0.5)
    batch = a_batch(model)
    losses = row_losses(model, batch)
    model.compile(tf.keras.optimizers.SGD(1.0), loss=BatchLoss(), metrics=[], run_eagerly=True)
    users, items = (
        embed(t, TOY.items | TOY.users) for t in (model.query_encoder, model.candidate_encoder)
    )
    before = tables(model)["user_id"].copy()
    columns = {n: TOY.train[n][BATCH] for n in model.schema.column_names}
    made = batches_of(columns, model, batch_size=40)
    fit = model.fit(made, epochs=1, verbose=0, shuffle=False)
    reduce = np.mean if reduction == "mean" else np.sum
    assert fit.history["loss"] == [pytest.approx(reduce(losses), rel=1e-5)]
    # the step of plain SGD on a user's row, by hand: sum over his rows of (softmax - own) · items
    step = np.zeros_like(before)
    for user, own in zip(batch["user_row"], batch["item_row"], strict=True):
        scores = np.exp(items @ users[user])
        slope = scores / scores.sum() - np.eye(N_ITEMS)[own]
        step[FIRST + user] += (slope @ items)[:-1] / (len(BATCH) if reduction == "mean" else 1)
    np.testing.assert_allclose(before - tables(model)["user_id"], step, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_row_counts_in_the_loss_by_its_weight(reduction):
    config = LossConfig(kind="in_batch", reduction=reduction)
    model = TOY.build("user_id", "item_id", loss=config, init_stddev=0.5)
    batch = {n: tf.constant(v) for n, v in a_batch(model).items()}
    vectors = {QUERY: model.query_encoder(batch), ITEM: model.candidate_encoder(batch)}
    output = weights_of(model, SampledLoss)
    weights = np.random.default_rng(0).uniform(size=len(BATCH)).astype(np.float32)
    found = output.loss_of(vectors, {**batch, "row_weight": tf.constant(weights)}, training=True)
    losses = output.loss_of(vectors, batch, training=True).rows.numpy()
    expected = (weights * losses).sum() / (len(BATCH) if reduction == "mean" else 1)
    assert float(found.total) == pytest.approx(expected, rel=1e-5)
    plain = output.loss_of(vectors, batch, training=True).total
    assert float(plain) != pytest.approx(expected, rel=0.05)


def sizes_of_constants(function: object, *arguments: object) -> list[int]:
    """Return the numbers of values of the constants in the traced graph of a function."""
    traced = tf.function(function, autograph=False).get_concrete_function(*arguments)
    graph = traced.graph.as_graph_def()
    nodes = [*graph.node, *(node for of in graph.library.function for node in of.node_def)]
    shapes = [node.attr["value"].tensor.tensor_shape for node in nodes if node.op == "Const"]
    return [int(np.prod([dim.size for dim in shape.dim])) for shape in shapes]


def test_item_table_and_positives_are_no_constants_of_the_traced_step():
    model = compiled(TOY.build("user_id", "item_id", "genres", loss=LossConfig(mask="user")))
    batch = {name: tf.TensorSpec([None], v.dtype) for name, v in TOY.batches(model)[0].items()}
    model.fit(TOY.batches(model), epochs=1, verbose=0)  # which makes Keras' own variables
    assert max(sizes_of_constants(model.train_step, batch)) < N_ITEMS
    table = np.arange(N_ITEMS)
    assert max(sizes_of_constants(lambda: tf.gather(table, 0))) == N_ITEMS, "a control"


# ── what a recipe can name ──


def test_every_kind_of_negatives_that_a_recipe_can_name_is_there():
    kinds = next(f for f in msgspec.structs.fields(LossConfig) if f.name == "kind").type
    assert {"auto", *NEGATIVES} == set(get_args(kinds))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_loss_function_takes_what_training_gives_it(name):
    wanted = inspect.signature(LossFunction.__call__).parameters.keys() - {"self"}
    assert wanted <= inspect.signature(function_named(name)).parameters.keys()
    model = TOY.build("user_id", "item_id", loss=LossConfig(function=name), init_stddev=0.5)
    losses = row_losses(model, a_batch(model))
    assert losses.shape == (len(BATCH),)
    assert np.isfinite(losses).all()
