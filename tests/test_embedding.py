"""Rows that are embedded together: all of them once, and no long list pads many short ones."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflows.raw.values import TEXTS
from workflows.recipe.kinds.form import Form
from workflows.stages import embedding
from workflows.stages.embedding import RawTower


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(embedding, "BATCH", 5)
    monkeypatch.setattr(embedding, "CELLS", 12)


WIDTHS = st.lists(st.integers(0, 20), max_size=30)


@given(WIDTHS)
def test_every_row_is_in_one_batch_and_batches_are_bounded(widths):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedding, "BATCH", 5)
        patch.setattr(embedding, "CELLS", 12)
        batches = embedding._batches(np.array(widths, np.int64))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(widths)))
    for batch in batches:
        cells = len(batch) * max((widths[row] for row in batch), default=0)
        assert len(batch) == 1 or (len(batch) <= 5 and cells <= 12)


def test_rows_of_short_lists_stay_in_their_order(small):
    batches = embedding._batches(np.array([2, 1, 0, 2, 1, 2, 0]))
    assert [batch.tolist() for batch in batches] == [[0, 1, 2, 3, 4], [5, 6]]
    assert [batch.tolist() for batch in embedding._batches(np.array([], np.int64))] == [[]]


def test_embeddings_do_not_depend_on_the_batches(tiny, small, monkeypatch):
    """A list of 30 beside 8 empty ones: 12 cells at a time, and the same embeddings."""
    tower = RawTower.open(tiny.exported.store.folder("export") / "query_tower_raw")
    lists = [[], ["003"] * 30, ["001"], [], ["003", "001"], None, ["000"] * 4, [], ["9", "001"]]
    ages = pa.array([float(20 + n) for n in range(9)], pa.float32())
    rows = pa.table({"history_item_id": pa.array(lists, TEXTS), "age": ages})
    shapes = []
    padded = Form.array
    monkeypatch.setattr(
        Form, "array", lambda form, column: shapes.append(padded(form, column)) or shapes[-1]
    )
    vectors = tower.embed(rows)
    assert max(array.size for array in shapes) == 30  # the long one, alone
    assert len({len(array) for array in shapes}) > 1  # the control: there were several batches
    monkeypatch.undo()
    np.testing.assert_allclose(vectors, tower.embed(rows), atol=1e-5)
    one_by_one = [tower.embed(rows.slice(row, 1))[0] for row in range(9)]
    np.testing.assert_allclose(vectors, one_by_one, atol=1e-5)
