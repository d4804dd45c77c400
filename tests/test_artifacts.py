from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tiny_run import Run, Tiny
from toy_towers import toy_towers

from models.core.prior import Prior
from models.core.user_sample import UserSample
from models.towers.tower import embed
from models.training.epoch import Epoch
from workflows.ground.errors import ArtifactError, MissingStage, StaleInput
from workflows.recipe.protocol import EvaluateConfig
from workflows.stages.etl import KNOWN, Prepared
from workflows.stages.train import apply_prior, build_model, load_model
from workflows.stages.train_files import TrainFiles

UNCUT = EvaluateConfig(exclude_seen=False)


@pytest.fixture
def run(tiny: Tiny) -> Run:
    return tiny.prepared


@pytest.fixture
def prepared(run: Run) -> Prepared:
    return Prepared.open(run.store, run.recipe)


def rows(prepared: Prepared, *parts: str) -> list[dict]:
    """Return the encoded rows of some parts, sorted by time, ties in the order of the files."""
    paths = [prepared.folder / part / "part-0.parquet" for part in parts]
    found = [row for path in paths for row in pq.read_table(path).to_pylist()]
    return sorted(found, key=lambda row: row["when"])


def test_tables_and_parts_are_read_as_they_were_written(prepared, run):
    raw_users = prepared.raw_users["user_id"].to_pylist()
    assert raw_users[-1] is None  # the last is nobody
    assert sorted(raw_users[:-1]) == sorted(run.users)
    assert len(prepared.users["user_id"]) == len(raw_users)
    assert sorted(prepared.raw_items["item_id"].to_pylist()) == sorted(run.items)
    assert len(prepared.items["item_id"]) == len(run.items)
    train = prepared.part("train")
    assert train["item_row"].tolist() == [r["item_row"] for r in rows(prepared, "train")]
    genres = [train["genres"][i].tolist() for i in range(len(train["genres"]))]
    assert genres == [r["genres"] for r in rows(prepared, "train")]
    codes = prepared.items["item_id"]
    assert codes[train["item_row"]].tolist() == train["item_id"].tolist()


def test_items_are_counted_in_training_alone(prepared, run):
    met = [item for of_user in run.histories(withheld=2).values() for item in of_user]
    ids = prepared.raw_items["item_id"].to_pylist()
    assert prepared.item_counts.tolist() == [met.count(item) for item in ids]


@pytest.mark.parametrize("parts", [("train",), ("train", "valid"), ("train", "valid", "test")])
def test_interactions_of_parts_come_in_order_of_time(prepared, run, parts):
    found = prepared.interactions(*parts)
    expected = rows(prepared, *parts)
    assert found.users.tolist() == [r["user_row"] for r in expected]
    assert found.items.tolist() == [r["item_row"] for r in expected]
    assert found.times.tolist() == [r["when"] for r in expected]
    assert (np.diff(found.times) >= 0).all()
    assert (found.n_users, found.n_items) == (len(run.users), len(run.items))


def test_histories_are_those_of_the_raw_log(prepared, run):
    users, items = (prepared.raw_users["user_id"], prepared.raw_items["item_id"].to_pylist())
    for part, withheld in (("valid", 2), ("test", 1), ("latest", 0)):
        histories, expected = prepared.histories(*KNOWN[part]), run.histories(withheld=withheld)
        assert len(histories) == len(run.users)
        for row, user in enumerate(users.to_pylist()[:-1]):
            assert [items[i] for i in histories[row]] == expected[user]


@pytest.mark.parametrize("part", ["valid", "test"])
def test_a_trial_asks_for_the_part_with_what_came_before(prepared, part):
    evaluation_set = prepared.evaluation_set(part, EvaluateConfig())
    held = rows(prepared, part)
    assert evaluation_set.queries.users.tolist() == sorted({r["user_row"] for r in held})
    for i, user in enumerate(evaluation_set.queries.users):
        earlier = [r for r in rows(prepared, *KNOWN[part]) if r["user_row"] == user]
        assert evaluation_set.queries.histories[i].tolist() == [r["item_row"] for r in earlier]
        targets = [r["item_row"] for r in held if r["user_row"] == user]
        assert evaluation_set.targets[i].tolist() == targets
    assert evaluation_set.exclude is evaluation_set.queries.histories
    assert prepared.evaluation_set(part, UNCUT).exclude is None


@pytest.mark.parametrize("part", ["train", "valid", "test"])
def test_a_sample_of_users_has_the_queries_that_these_users_have_among_all(prepared, part):
    every = prepared.evaluation_set(part, EvaluateConfig())
    some = prepared.evaluation_set(part, EvaluateConfig(), UserSample(5, 2))
    assert every.sampled_from is None
    assert some.sampled_from == len(set(every.queries.users.tolist()))
    users = sorted(set(some.queries.users.tolist()))
    assert len(users) == 5
    theirs = every.take(np.flatnonzero(np.isin(every.queries.users, users)))
    assert some.queries.users.tolist() == theirs.queries.users.tolist()
    for of_some, of_every in (
        (some.targets, theirs.targets),
        (some.exclude, theirs.exclude),
        (some.queries.histories, theirs.queries.histories),
        (some.queries.times, theirs.queries.times),
    ):
        assert of_some.values.tolist() == of_every.values.tolist()
        assert of_some.offsets.tolist() == of_every.offsets.tolist()
    held = prepared.rows_of_sample(part, UserSample(5, 2))
    assert sorted(set(held["user_row"].tolist())) == users
    assert len(held["item_row"]) == len(some.targets.values)


def test_an_empty_part_has_no_trial(prepared, tmp_path):
    for part in ("train", "valid"):
        (tmp_path / part).mkdir()
        table = pq.read_table(prepared.folder / part / "part-0.parquet")
        table = table if part == "train" else table.slice(0, 0)
        pq.write_table(table, tmp_path / part / "part-0.parquet")
    for name in ("users", "items"):
        (tmp_path / name).symlink_to(prepared.folder / name)
    assert Prepared(tmp_path, prepared.recipe).evaluation_set("valid", EvaluateConfig()) is None


def test_the_history_of_a_fit_comes_back(tiny):
    files = TrainFiles(tiny.trained.store.folder("train"))
    epochs = files.read_history()
    assert [type(epoch) for epoch in epochs] == [Epoch] * 3
    assert [epoch.epoch for epoch in epochs] == [0, 1, 2]
    assert files.read_prior() is None


def test_a_prior_comes_back(tmp_path):
    files = TrainFiles(tmp_path)
    files.prior.write_text('{"days": 7.0, "weight": 0.5}')
    assert files.read_prior() == Prior(7.0, 0.5)


def test_the_trained_weights_are_loaded_and_not_fresh_ones(tiny):
    run = tiny.trained
    prepared = Prepared.open(run.store, run.recipe)
    fresh = build_model(run.recipe, prepared).candidate_encoder
    first, again = (load_model(run.store, run.recipe, prepared).candidate_encoder for _ in range(2))
    vectors = embed(first, prepared.items)
    np.testing.assert_array_equal(vectors, embed(again, prepared.items))
    assert np.abs(vectors - embed(fresh, prepared.items)).max() > 0.01


TOY = toy_towers()


@pytest.mark.parametrize(
    ("columns", "config"),
    [
        (("history_item_id", "item_id"), {}),
        (("user_id", "item_id"), {"item_bias": False, "normalize": True}),
        (
            tuple(name for name in TOY.columns if not name.endswith("_row")),
            {
                "query_layers": (8, 6),
                "item_layers": (7, 6),
                "combine": "concat",
                "dropout": 0.1,
                "id_dropout": 0.1,
            },
        ),
    ],
    ids=["history", "ids", "everything"],
)
def test_weights_of_any_towers_come_back_from_hdf5(tmp_path, columns, config):
    files = TrainFiles(tmp_path)
    model, other = (TOY.build(*columns, seed=seed, **config) for seed in (1, 2))
    draw = np.random.default_rng(0)
    weights = [draw.random(w.shape).astype(w.dtype) for w in model.get_weights()]
    model.set_weights(weights)
    model.save_weights(files.weights)
    other.load_weights(files.weights)
    for kept, found in zip(weights, other.get_weights(), strict=True):
        np.testing.assert_array_equal(found, kept)


@pytest.mark.parametrize("as_of", ["valid", "test", "latest"])
def test_a_prior_counts_what_is_known_at_the_cut(prepared, run, as_of):
    model = build_model(run.recipe, prepared)
    before = embed(model.candidate_encoder, prepared.items)[:, -1]
    prior, before_cut = Prior(days=1e-4, weight=2.0), prepared.interactions(*KNOWN[as_of])
    apply_prior(model, prepared, prior, known=before_cut)
    lift = embed(model.candidate_encoder, prepared.items)[:, -1] - before

    known = rows(prepared, *KNOWN[as_of])
    counts = np.full(len(run.items), 1e-3)
    for row in known:
        counts[row["item_row"]] += np.exp(-(known[-1]["when"] - row["when"]) / 8.64)
    z = (np.log(counts) - np.log(counts).mean()) / np.log(counts).std()
    codes = prepared.items["item_id"]
    shared = [z[codes == code].mean() for code in codes]  # the rare share a code and its mean
    np.testing.assert_allclose(lift, 2 * np.array(shared), rtol=1e-3, atol=1e-4)


def test_stages_are_refused_where_they_do_not_fit(tiny, tmp_path):
    run = tiny.trained
    with pytest.raises(MissingStage, match="Run `two-tower etl`"):
        Prepared.open(run.branch(tmp_path / "none", stages=()).store, run.recipe)
    other = run.world.recipe("history.max_len=3")
    with pytest.raises(StaleInput, match=r"recipe: history\.max_len was 4 and is 3 now"):
        Prepared.open(run.store, other)
    prepared = Prepared.open(run.store, run.recipe)
    with pytest.raises(StaleInput, match=r"another recipe: model\.dim was 8 and is 4 now"):
        load_model(run.store, run.world.recipe("model.dim=4"), prepared)


def test_changed_weights_are_refused(tiny, tmp_path: Path):
    run = tiny.trained.branch(tmp_path / "run", stages=("etl", "train"))
    weights = TrainFiles(run.store.folder("train")).weights
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    prepared = Prepared.open(run.store, run.recipe)
    with pytest.raises(ArtifactError, match=r"model.weights.h5 is not the file that its manifest"):
        load_model(run.store, run.recipe, prepared)
