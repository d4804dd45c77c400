"""A model whose histories are encoded by attention, from training on sequences to serving."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from tiny_run import CPU, Run, Tiny, check_here

from models.core.column_names import HISTORY_AGES
from models.core.retriever import Queries
from models.towers import tower as tower_module
from models.towers.layers import History
from models.towers.tower import rows_at_a_time
from models.training.two_tower import TwoTower
from workflows.export import export
from workflows.feature_files import rows as raw_rows
from workflows.ground.errors import DataError
from workflows.model_kinds.protocol import build_fresh
from workflows.model_kinds.two_tower import TwoTowers
from workflows.recommend import recommend
from workflows.recommend.request import RecommendRequest
from workflows.serve.raw_values import table_of
from workflows.serve.wire import Refusal
from workflows.stages.export import Export
from workflows.stages.recommender import ListOptions
from workflows.towers import checks
from workflows.train import train

ATTENTION = (
    "model.encoder={kind: attention, dropout: 0.0}",
    "model.dropout=0.0",
    "model.id_dropout=0.0",
)
HISTORY = "history_item_id"


@pytest.fixture(scope="module")
def exported(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = tiny.prepared.branch(tmp_path_factory.mktemp("sequences"), *ATTENTION)
    train(run.recipe, run.store, CPU)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checks, "check_from_outside", check_here)
        export(run.recipe, run.store, CPU)
    return run


def test_a_batch_of_sequences_has_the_loss_of_its_rows(tiny: Tiny, tmp_path: Path):
    run = tiny.prepared.branch(tmp_path / "run", *ATTENTION, "train.batch_size=1000")
    towers = TwoTowers.open(run.store, run.recipe)
    model = build_fresh(towers, "model")
    (batch,) = towers.fit(model, None).batches
    rows = one_by_one(batch)
    (history,) = (m for m in model.query_encoder.submodules if isinstance(m, History))
    rng = np.random.default_rng(0)
    for weight in [*history.trainable_weights, history.table.embeddings]:
        weight.assign(rng.normal(size=weight.shape) * 0.5)
    losses = []
    for history.in_sequences, given in ((True, batch), (False, rows)):
        tensors = {name: tf.constant(values) for name, values in given.items()}
        losses.append(float(model(tensors, training=True).outputs[0, 0]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    rows[f"{HISTORY}__values"] = rng.permutation(rows[f"{HISTORY}__values"])
    tensors = {name: tf.constant(values) for name, values in rows.items()}
    assert float(model(tensors, training=True).outputs[0, 0]) != pytest.approx(losses[0], rel=1e-3)


def test_attention_embeds_fewer_rows_at_a_time(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = tiny.prepared.branch(tmp_path / "run", *ATTENTION)
    towers = TwoTowers.open(run.store, run.recipe)
    prepared, model = towers.prepared, build_fresh(towers, "model")
    assert rows_at_a_time(model.query_encoder) == 8192  # histories of 4 items are short
    assert rows_at_a_time(model.candidate_encoder) == 8192
    known = prepared.interactions("train").of_known_users()
    queries = Queries(np.arange(known.n_users), known.histories(), times=known.history_times())
    retriever = TwoTower.of(model, prepared.users, prepared.items)
    whole = retriever.embed(queries)
    monkeypatch.setattr(tower_module, "_SCORES", 4 * 4 * 2)
    assert rows_at_a_time(model.query_encoder) == 2
    np.testing.assert_allclose(retriever.embed(queries), whole, rtol=1e-5, atol=1e-6)


def one_by_one(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return a batch of sequences as rows: each has the part of its sequence before it."""
    offsets = batch[f"{HISTORY}__offsets"]
    rows = {name: values for name, values in batch.items() if not name.startswith("history")}
    for name in (HISTORY, HISTORY_AGES):
        lists = [batch[f"{name}__values"][a:b] for a, b in pairwise(offsets)]
        prefixes = [values[:n] for values in lists for n in range(len(values) + 1)]
        rows[f"{name}__values"] = np.concatenate(prefixes)
        rows[f"{name}__offsets"] = np.cumsum([0, *map(len, prefixes)]).astype(np.int32)
    return rows


def test_an_export_has_the_ages_of_histories_and_reproduces_its_embeddings(exported: Run):
    found = Export.open(exported.store, exported.recipe)
    table = pq.read_table(found.files.features("user"))
    log = [r for r in exported.world.log if None not in (r["user_id"], r["item_id"], r["when"])]
    log = sorted((r for r in log if r["rating"] >= 3), key=lambda row: row["when"])
    for row in table.to_pylist():
        # the last event of a user is withheld for the test part
        mine = [r for r in log if r["user_id"] == row["user_id"]][:-1][-4:]
        assert row[HISTORY] == [r["item_id"] for r in mine]
        assert row[HISTORY_AGES] == [mine[-1]["when"] - r["when"] for r in mine]
    assert set(found.query_tower.inputs) >= {HISTORY, HISTORY_AGES}


def lists(run: Run, folder: Path, **columns: list[object]) -> list[list[tuple[str, float]]]:
    """Return the lists of unknown users with the given raw features."""
    n = len(next(iter(columns.values())))
    path = folder / "users.parquet"
    pq.write_table(pa.table({"user_id": [f"new {i}" for i in range(n)], **columns}), path)
    options = ListOptions(k=3, keep_seen=True)
    recommend(run.recipe, run.store, CPU, options=options, request=RecommendRequest(file=path))
    rows = pq.read_table(run.store.folder("recommend") / "lists").to_pylist()
    users = dict.fromkeys(row["user_id"] for row in rows)
    return [[(r["item_id"], r["score"]) for r in rows if r["user_id"] == user] for user in users]


def test_given_ages_matter_and_only_their_differences(exported: Run, tmp_path: Path):
    items = [["001", "004"]] * 4
    ages = [[86_400.0, 0.0], [86_500.0, 100.0], [5.0, 0.0], None]
    (day, shifted, seconds, unknown) = lists(
        exported, tmp_path, **{HISTORY: items, HISTORY_AGES: ages}
    )
    (without, *_) = lists(exported, tmp_path, **{HISTORY: items})
    np.testing.assert_allclose([s for _, s in day], [s for _, s in shifted], rtol=1e-4)
    assert day != seconds
    assert unknown == without


@pytest.mark.parametrize(
    ("columns", "fault"),
    [
        ({HISTORY: [["001", "004"]], HISTORY_AGES: [[5.0]]}, "row 1: 1 ages for 2 values"),
        ({HISTORY: [["001", "004"]], HISTORY_AGES: [[0.0, 5.0]]}, "row 1: 5 is no age here"),
        ({HISTORY: [["001"]], HISTORY_AGES: [[None]]}, "row 1: nan is no age here"),
        ({HISTORY: [["001"]], HISTORY_AGES: [["old"]]}, "'old'"),
        ({HISTORY_AGES: [[5.0]]}, "history_item_id, which is not given. Give both"),
    ],
)
def test_wrong_ages_are_refused(exported: Run, columns: dict[str, list[object]], fault: str):
    with pytest.raises(DataError, match=fault):
        raw_rows.with_types(pa.table(columns), exported.recipe, "users.csv")


@pytest.mark.parametrize(
    ("features", "fault"),
    [
        ({HISTORY: ["001", "004"], HISTORY_AGES: [5.0]}, "2 numbers of seconds, one for each item"),
        ({HISTORY: ["001", "004"], HISTORY_AGES: [0.0, 5.0]}, "no age is above the one before"),
        ({HISTORY_AGES: [5.0]}, "together with their history"),
        ({HISTORY: ["001"], HISTORY_AGES: ["old"]}, "a list of numbers, or null"),
        ({HISTORY: ["001", "004"], HISTORY_AGES: [9.0, 5.0]}, None),
        ({HISTORY: ["001", "004"], HISTORY_AGES: None}, None),
    ],
)
def test_a_server_checks_ages(exported: Run, features: dict[str, list[object]], fault: str | None):
    tower = Export.open(exported.store, exported.recipe).query_tower
    weights = {HISTORY_AGES: HISTORY}
    if fault is None:
        assert table_of([features], tower, "users", weights=weights).num_columns == 2
        return
    with pytest.raises(Refusal) as refused:
        table_of([features], tower, "users", weights=weights)
    assert fault in str(refused.value.body.faults)


@pytest.mark.parametrize(
    ("override", "sequences", "ages"),
    [
        ((), True, True),
        (("features.when.unit=order",), True, False),
        (("history.before=second",), False, False),
        (("history.keep=earliest",), False, False),
        (("model.encoder={kind: decay_pool}",), False, False),
    ],
)
def test_sequences_need_causal_histories_of_all_rows(
    tiny: Tiny, override: tuple[str, ...], sequences: bool, ages: bool
):
    recipe = tiny.prepared.world.recipe(*ATTENTION, *override)
    assert recipe.trains_on_sequences == sequences
    assert recipe.history_with_ages == (HISTORY if ages else None)
