"""user_blocks: the interactions of blocks of users, beside those of all users in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tiny_run import CPU, Run, Tiny

from workflows.export import export
from workflows.recipe import Recipe
from workflows.stages import user_blocks
from workflows.stages.etl import Prepared
from workflows.stages.user_blocks import UserBlocks

PARTS = ("train", "valid")
#: Users of a block, interactions of a block, and interactions that are sorted in memory.
SIZES = [(4, 1000, 1000), (4, 1000, 0), (1000, 12, 40), (1, 1, 1), (1000, 1000, 1)]


@pytest.fixture
def prepared(tiny: Tiny) -> Prepared:
    return Prepared.open(tiny.prepared.store, tiny.prepared.recipe)


def shrink(monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, int, int]) -> None:
    for name, size in zip(("USERS", "ROWS", "_SORTED"), sizes, strict=True):
        monkeypatch.setattr(user_blocks, name, size)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("timed", [True, False])
def test_blocks_have_the_histories_of_all_users(prepared, monkeypatch, tmp_path, sizes, timed):
    if not timed:  # histories are then in a random order, which must be the same in blocks
        monkeypatch.setattr(Recipe, "time", None)
    every = prepared.interactions(*PARTS).of_known_users()
    lists, times = every.histories(), every.history_times()
    shrink(monkeypatch, sizes)
    known = UserBlocks.of(prepared, PARTS)
    assert known.item_counts.tolist() == prepared.interactions(*PARTS).item_counts().tolist()
    end = 0
    for block in known.read(tmp_path):
        assert block.users.start == end
        end = block.users.stop
        rows = np.arange(block.users.start, end)
        found, expected = block.known.histories(), lists.take(rows)
        assert found.values.tolist() == expected.values.tolist()
        assert found.offsets.tolist() == expected.offsets.tolist()
        if timed:
            assert block.known.history_times().values.tolist() == times.take(rows).values.tolist()
        n_rows = len(block.known.users)
        assert len(rows) <= sizes[0]
        assert len(rows) == 1 or n_rows <= sizes[1]
    assert end == prepared.n_users == len(lists)
    assert not list(tmp_path.iterdir())  # no temporary file remains


def test_an_export_in_blocks_is_that_of_all_users_at_once(tiny, monkeypatch, tmp_path):
    whole: Run = tiny.exported
    parts = tiny.trained.branch(tmp_path / "run", stages=("etl", "train"))
    shrink(monkeypatch, (4, 1000, 30))
    result = export(parts.recipe, parts.store, CPU)
    assert result.rows == tiny.export_result.rows
    for name in ("user_features", "histories", "item_features"):
        one, other = (_read(run, name) for run in (whole, parts))
        assert one.equals(other)
    assert pq.read_metadata(_path(parts, "user_features")).num_row_groups > 1
    one, other = (_read(run, "user_embeddings") for run in (whole, parts))
    assert one.drop(["embedding"]).equals(other.drop(["embedding"]))
    vectors = [np.array(table["embedding"].to_pylist()) for table in (one, other)]
    np.testing.assert_allclose(*vectors, rtol=1e-5, atol=1e-6)


def _path(run: Run, name: str) -> Path:
    return run.store.folder("export") / f"{name}.parquet"


def _read(run: Run, name: str):
    return pq.read_table(_path(run, name))
