"""stored_interactions: counts that are read in blocks, beside those of the rows in memory."""

from __future__ import annotations

import pytest
from tiny_run import Tiny

import workflows.stages.etl
from models.baselines.popularity import Popularity, RecentPopularity
from workflows.stages.etl import Prepared
from workflows.stages.stored_interactions import StoredInteractions

PARTS = ("train", "valid")


@pytest.fixture
def prepared(tiny: Tiny) -> Prepared:
    return Prepared.open(tiny.prepared.store, tiny.prepared.recipe)


@pytest.mark.parametrize("block", [1, 7, 10_000])
def test_popularity_and_the_last_time_are_counted_without_reading_all_rows(
    prepared, monkeypatch, block
):
    rows = prepared.interactions(*PARTS)

    def never(*_: object) -> None:
        raise AssertionError("all rows are read")

    monkeypatch.setattr(workflows.stages.etl, "BLOCK_ROWS", block)
    monkeypatch.setattr(Prepared, "interactions", never)
    stored = StoredInteractions(prepared, PARTS)
    assert stored.last_time() == rows.last_time() == max(rows.times.tolist())
    assert stored.item_counts().tolist() == rows.item_counts().tolist()
    assert Popularity().fit(stored).counts.tolist() == Popularity().fit(rows).counts.tolist()
    assert (stored.n_users, stored.n_items) == (rows.n_users, rows.n_items)


def test_other_models_get_all_rows(prepared):
    rows, stored = prepared.interactions(*PARTS), StoredInteractions(prepared, PARTS)
    for name in ("users", "items", "times"):
        assert getattr(stored, name).tolist() == getattr(rows, name).tolist()
    assert stored.histories().values.tolist() == rows.histories().values.tolist()
    of_known = stored.of_known_users()
    assert of_known.items.tolist() == rows.of_known_users().items.tolist()
    recent = RecentPopularity(days=2.0)
    assert recent.fit(stored).counts.tolist() == recent.fit(rows).counts.tolist()
