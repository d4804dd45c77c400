from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_run import Tiny

from workflows.towers import selfcheck
from workflows.towers.selfcheck import check, padded


@pytest.fixture
def folder(tiny: Tiny, tmp_path: Path) -> Path:
    """A copy of a good export, to tamper with."""
    shutil.copytree(tiny.exported.store.folder("export"), tmp_path / "export")
    return tmp_path / "export"


def tamper(path: Path, *, by: float, row: int = -1) -> None:
    """Add something to the first number of one embedding."""
    table = pq.read_table(path)
    vectors = np.stack(table["embedding"].to_numpy())
    vectors[row, 0] += np.float32(by)
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    pq.write_table(table.set_column(2, "embedding", fixed), path)


USERS, _, ITEMS, _ = selfcheck.CHECKS[0]
SIDES = pytest.mark.parametrize("of", [USERS, ITEMS], ids=["users", "items"])


@SIDES
def test_a_good_export_passes(folder, of):
    assert check(folder, of) is None


@SIDES
@pytest.mark.parametrize("by", [2e-4, -0.5, float("nan")])
def test_a_changed_embedding_is_found(folder, of, by):
    tamper(folder / of.embeddings, by=by)
    size = f"{abs(by):.2g}"[:3]
    assert check(folder, of).startswith(f"{of.tower}: embeddings differ by {size}")


@SIDES
def test_the_last_digit_may_differ(folder, of):
    tamper(folder / of.embeddings, by=5e-6)
    assert check(folder, of) is None


def test_large_numbers_may_differ_by_their_share(folder, monkeypatch):
    tamper(folder / "item_embeddings.parquet", by=500.0)
    monkeypatch.setattr(selfcheck, "TOLERANCE", 1.01)
    assert check(folder, ITEMS) is None
    monkeypatch.setattr(selfcheck, "TOLERANCE", 0.9)
    assert check(folder, ITEMS).startswith("item_tower: embeddings differ by 1 ")


def test_a_missing_row_is_found(folder):
    path = folder / "item_embeddings.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    n = pq.read_metadata(path).num_rows
    expected = f"item_tower: {n + 1} rows of inputs, {n} embeddings"
    assert check(folder, ITEMS) == expected


def test_no_more_rows_are_encoded_than_the_sample(folder, monkeypatch):
    monkeypatch.setattr(selfcheck, "SAMPLES", 2)  # the first and the last
    path = folder / "user_embeddings.parquet"
    tamper(path, by=1.0, row=4)
    assert check(folder, USERS) is None
    tamper(path, by=1.0, row=-1)
    assert check(folder, USERS) is not None


def test_lists_are_padded_with_code_0():
    lists = pa.chunked_array([pa.array([[3, 4], [], [5]], pa.list_(pa.int32()))])
    assert padded(lists).tolist() == [[3, 4], [0, 0], [5, 0]]
    assert padded(lists.slice(1, 1)).tolist() == [[0]]
    assert padded(pa.chunked_array([pa.array([1, 2])])).tolist() == [1, 2]


def test_it_ends_with_one_line_that_says_what_is_wrong(folder, monkeypatch):
    tamper(folder / "user_embeddings.parquet", by=0.25)
    path = folder / "item_features.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    n = pq.read_metadata(path).num_rows
    monkeypatch.setattr(sys, "argv", [selfcheck.__file__, str(folder)])
    with pytest.raises(SystemExit) as end:
        selfcheck.main()
    # a text is printed to stderr, and the process ends with 1
    assert end.value.code == (
        "query_tower: embeddings differ by 0.25 (at most 1e-05 allowed); "
        "query_tower_raw: embeddings differ by 0.25 (at most 1e-05 allowed); "
        f"item_tower: {n} rows of inputs, {n + 1} embeddings; "
        f"item_tower_raw: {n} rows of inputs, {n + 1} embeddings; "
        "['merlin', 'nvtabular', 'models', 'workflows'] had to be imported"
    )


def test_an_export_without_a_tower_is_no_sound_one(tmp_path: Path) -> None:
    assert selfcheck.faults(tmp_path) == ["there is no tower"]
