"""The models that can be put together, their two paths, and a fit."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import tensorflow as tf
import toy_offers as toy

from models.core.columns import take
from models.core.partitions import PartitionInMemory
from models.offers.batches import DayLoader, day_batches
from models.offers.config import OfferModel, OffersConfig
from models.offers.judge import MONITOR, PairJudge
from models.offers.model import InferenceModel, Model
from models.offers.offers import items_as_offers
from models.offers.pairs import Pairs
from models.training.config import OptimizerConfig, TrainConfig
from models.training.fit import Fit

VALID = [
    (group_by, mask_net, bilinear)
    for group_by, mask_net, bilinear in np.ndindex(2, 2, 2)
    if group_by or not mask_net
]
ROWS = 10


def batch(n: int = ROWS) -> dict[str, tf.Tensor]:
    return {k: tf.constant(v) for k, v in take(toy.events(n), np.arange(n)).items()}


def fit(made: Model, *, epochs: int = 3, seed: int = 1) -> Fit:
    n = 400
    rows = {**toy.events(n), "when": np.random.default_rng(0).integers(0, 10**7, n)}
    loader = DayLoader(made.schema.column_names, "when", max_per_day=8, seed=seed)
    batches = day_batches(PartitionInMemory(rows), loader, batch_size=50, negatives=4, seed=seed)
    loop = TrainConfig(batch_size=50, epochs=epochs, monitor=MONITOR, patience=epochs)
    judge = PairJudge(Pairs(toy.events(200, seed=1), np.arange(200), 5), "item")
    return Fit(made, batches, loop, OptimizerConfig(lr=0.02), judge)


# ── what can be built ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("group_by", "mask_net", "bilinear"), VALID)
def test_m13_the_six_combinations_build(group_by: bool, mask_net: bool, bilinear: bool) -> None:
    made = toy.built(group_by, mask_net, bilinear)
    prediction = made(batch(), training=True)
    versions = toy.CONFIG.augmentations if group_by else 1
    assert prediction.outputs.shape == (ROWS * 5, versions)
    assert prediction.targets.numpy().sum() == ROWS * versions
    assert made(batch(), testing=True).outputs.shape == (ROWS * 5, 1), "evaluation has no groups"


def test_m13_mask_net_without_group_by_is_refused() -> None:
    assert len(VALID) == 6
    with pytest.raises(msgspec.ValidationError, match="mask_net needs group_by"):
        msgspec.convert({"group_by": False}, OfferModel)


def test_m13_a_mono_model_looks_at_one_attribute() -> None:
    made = toy.model(OfferModel(attributes=("kind",), group_by=False, mask_net=False))
    asked = InferenceModel(made)
    assert asked.attributes == ["kind"]
    assert asked.columns == ["history_item", "history_kind"]
    columns = toy.events(40)
    offers = asked.offers(items_as_offers({"kind": columns["kind"]}))
    assert len(np.unique(offers.reshape(40, -1).round(5), axis=0)) == toy.KINDS


def test_m13_an_attribute_that_is_none_is_named() -> None:
    blocks = OfferModel(attributes=("color",), group_by=False, mask_net=False)
    with pytest.raises(ValueError, match="'color' is none of item, kind"):
        toy.model(blocks)


@pytest.mark.parametrize(
    ("group_by", "mask_net", "bilinear", "shape"),
    [
        (True, True, True, (3, 6)),
        (False, False, True, (2, 6)),
        (True, True, False, (4,)),
        (False, False, False, (4,)),
    ],
)
def test_m14_offer_vectors_have_the_published_shapes(
    group_by: bool, mask_net: bool, bilinear: bool, shape: tuple[int, ...]
) -> None:
    # (B, 3, d), (B, o, d) and (B, last layer), here with d = 6, o = 2 and layers 8, 4
    asked = InferenceModel(toy.built(group_by, mask_net, bilinear))
    codes = {name: toy.events(7)[name] for name in ("item", "kind")}
    assert asked.offers(items_as_offers(codes)).shape == (7, *shape)
    users = asked.users(toy.events(7))
    assert users.shape == ((7, 5, 6) if bilinear else (7, 4))


@pytest.mark.parametrize(("group_by", "mask_net", "bilinear"), VALID)
def test_m14_both_paths_give_the_same_scores_of_items(
    group_by: bool, mask_net: bool, bilinear: bool
) -> None:
    made = toy.built(group_by, mask_net, bilinear)
    asked, columns = InferenceModel(made), toy.events(ROWS)
    trained = made(batch(), testing=True).outputs.numpy().reshape(2, 5, 5)
    codes = {name: columns[name] for name in ("item", "kind")}
    offers = asked.offers(items_as_offers(codes)).reshape(2, 5, *asked.towers[1].shape_out)
    users = asked.users(columns).reshape(2, 5, *asked.towers[0].shape_out)
    np.testing.assert_allclose(asked.score(users, offers), trained, rtol=1e-4, atol=1e-5)
    other = asked.score(users, offers[:, ::-1])
    assert abs(other - trained).max() > 1e-4, "other offers must have other scores"


def test_m14_asking_makes_no_weights() -> None:
    made = toy.built(True, True, True)
    names = [weight.ref() for weight in made.weights]
    InferenceModel(made).users(toy.events(5))
    assert [weight.ref() for weight in made.weights] == names


@pytest.mark.parametrize(("share", "n_tables"), [(False, 4), (True, 2)])
def test_m15_histories_have_tables_of_their_own_unless_shared(share: bool, n_tables: int) -> None:
    config = msgspec.structs.replace(toy.CONFIG, share_tables=share)
    made = toy.model(OfferModel(group_by=False, mask_net=False), config)
    shapes = [(toy.ITEMS, toy.CONFIG.dim), (toy.KINDS, toy.CONFIG.dim)]
    tables = {weight.ref() for weight in made.weights if tuple(weight.shape) in shapes}
    assert len(tables) == n_tables


# ── training ────────────────────────────────────────────────────────────────────────────


@pytest.mark.quality
def test_t06_t07_a_fit_learns_repeats_and_validates_without_chance() -> None:
    one = fit(toy.model())
    best = one.run()
    assert best.metrics[MONITOR] > 0.6, "users buy again what they bought"
    assert one.judge is not None
    first, second = (one.judge.measure(one.model)[MONITOR] for _ in range(2))
    assert first == second == best.metrics[MONITOR], "the best weights are kept"
    again = fit(toy.model())
    again.run()
    for epoch, same in zip(one.clock.epochs, again.clock.epochs, strict=True):
        assert epoch.metrics == pytest.approx(same.metrics, abs=1e-6)


def test_t05_the_penalty_is_on_tables_and_dense_layers_and_reported_apart() -> None:
    config = OffersConfig(dim=6, layers=(8, 4), l1=0.01)
    made = toy.model(OfferModel(), config)
    users, offers = InferenceModel(made).towers
    meet = made.last.to_call
    weights = [table.table for table in (*users.tables, *offers.tables)]
    weights += [weight for dense in meet.head.dense for weight in dense.weights]
    weights.append(meet.kernel)
    hand = 0.01 * sum(abs(weight.numpy()).sum() for weight in weights)
    assert float(tf.add_n(made.losses)) == pytest.approx(hand, rel=1e-5)
    everything = 0.01 * sum(abs(w.numpy()).sum() for w in made.trainable_weights)
    assert hand < 0.8 * everything, "compressors and mask are free of it"
