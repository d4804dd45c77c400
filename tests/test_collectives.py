"""Several ranks train as one process does: shares of batches, the loss, gradients, validation."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from rank_process import CASES
from test_callbacks import KS, valid  # noqa: F401 - a fixture
from toy_towers import toy_towers, weights_of

from models.core.collectives import ALONE, Alone, Share
from models.core.evaluation_set import EvaluationSet
from models.losses.sampled_loss import SampledLoss
from models.training.collectives import _round_up
from models.training.judge import CatalogueJudge
from workflows.ground.ranks import find_cluster

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of two ranks, and of one process, which run at the same time."""
    folder = tmp_path_factory.mktemp("ranks")
    cluster = find_cluster(2, {})
    assert cluster is not None
    together = ",".join(cluster.addresses)
    calls = [("0", together), ("1", together), ("0", "alone")]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    processes = [
        subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "rank_process.py"), rank, addresses, str(folder)],
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for rank, addresses in calls
    ]
    said = [process.communicate(timeout=600)[0].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], "\n".join(said)
    return folder


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_have_the_loss_and_the_weights_of_one_process(trained: Path, case: str) -> None:
    alone = np.load(trained / f"{case} 0 of 1.npz")
    ranks = [np.load(trained / f"{case} {rank} of 2.npz") for rank in (0, 1)]
    assert len(alone["losses"]) == 3
    assert alone["losses"][2] < alone["losses"][0]  # it learns something
    for name in alone.files:
        assert np.array_equal(ranks[0][name], ranks[1][name]), name
        np.testing.assert_allclose(ranks[0][name], alone[name], rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("n", [0, 1, 7, 64])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_shares_of_all_ranks_are_the_whole_in_order(n: int, size: int) -> None:
    parts = [np.arange(n)[Share(rank, size).of(n)] for rank in range(size)]
    assert np.concatenate(parts).tolist() == list(range(n))
    lengths = [len(part) for part in parts]
    assert max(lengths) - min(lengths) <= 1


def test_a_number_of_rows_is_rounded_up_by_an_eighth_to_one_of_few() -> None:
    numbers = [*range(1, 3000), 10**6, 2**30]
    rounded, keys = zip(*[map(int, _round_up(tf.constant(n))) for n in numbers], strict=True)
    assert all(n <= up <= max(n * 1.125, n) for n, up in zip(numbers, rounded, strict=True))
    assert len(set(rounded)) < 100
    assert len(set(zip(rounded, keys, strict=True))) == len(set(keys)) == len(set(rounded))
    assert max(keys) < 512


class _OfTwo(Alone):
    """Rank 0 or 1 of two, one after the other in one process: `collect` needs both calls."""

    def __init__(self, rank: int, given: list[np.ndarray]) -> None:
        self.share, self.given = Share(rank, 2), given

    def collect(self, rows: np.ndarray) -> np.ndarray:
        self.given.append(rows)
        return np.concatenate(self.given)


def test_the_validation_of_two_ranks_is_that_of_one_process(valid: EvaluationSet) -> None:  # noqa: F811
    toy = toy_towers()
    model = toy.build("user_id", "item_id", init_stddev=0.5)
    judge = CatalogueJudge(valid, toy.users, toy.items, KS)
    given: list[np.ndarray] = []
    for rank in (0, 1):
        shared = replace(judge, collectives=_OfTwo(rank, given)).measure(model)
    assert [len(rows) for rows in given] == [len(valid.queries) // 2] * 2
    assert shared == judge.measure(model)
    few = valid.take(np.arange(1))  # a share would be empty
    assert replace(judge, evaluation_set=few, collectives=_OfTwo(0, [])).measure(model)


def test_one_process_exchanges_nothing() -> None:
    rows = tf.constant([[1.0], [2.0]])
    assert ALONE.total(rows) is rows
    assert ALONE.gather(rows) == (rows, 0)
    assert ALONE.exchange([(rows, None)]) == [(rows, None)]


@pytest.mark.parametrize(
    ("settings", "splits"),
    [({}, False), ({"item_layers": (8,), "query_layers": (8,)}, True), ({"dropout": 0.1}, True)],
)
def test_items_are_embedded_in_parts_where_that_takes_time_or_draws_numbers(
    settings: dict[str, object], splits: bool
) -> None:
    model = toy_towers().build("user_id", "item_id", **settings)
    assert weights_of(model, SampledLoss).splits_items == splits
