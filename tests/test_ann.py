"""Approximate search compared with exact search: lists are full, and exclusions are kept."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest

from models.core import ann, index_file, ivf
from models.core.ann import KINDS, Ann, FaissNotInstalled, Index
from models.core.ann_tuning import recalls, tune_effort
from models.core.exact import Exact, search
from models.core.ivf import IVF_KINDS, TooFewItems
from models.core.retriever import BrokenModel, Queries, Ragged, TopK

WIDTH = 16


def world(n_items: int, n_queries: int = 60, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Items and queries around the same forty centres."""
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(40, WIDTH))
    made = [
        centres[draw.integers(0, 40, n)] + 0.4 * draw.normal(size=(n, WIDTH))
        for n in (n_items, n_queries)
    ]
    items, queries = (part.astype(np.float32) for part in made)
    return items, queries


@pytest.fixture(scope="module", params=KINDS)
def index(request: pytest.FixtureRequest) -> Index:
    items, queries = world(3000)
    return tune_effort(Index.build(items, request.param), queries, at=20, recall=0.99)


def lists(*of: list[int]) -> Ragged:
    return Ragged(np.array([i for one in of for i in one], np.int64), np.cumsum([0, *map(len, of)]))


def overlap(found: TopK, truth: TopK) -> float:
    """Recall, counted by hand."""
    pairs = zip(found.items.tolist(), truth.items.tolist(), strict=True)
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in pairs]))


def test_a_tuned_index_finds_what_exact_search_finds(index):
    queries = world(3000, 260)[1][60:]  # other ones than it was tuned by
    truth = search(queries, index.items, 20)
    found = index.search(queries, 20)
    assert overlap(found, truth) >= (1.0 if index.kind == "flat" else 0.98)
    np.testing.assert_allclose(recalls(found, truth).mean(), overlap(found, truth))
    same = found.items == truth.items
    np.testing.assert_array_equal(found.scores[same], truth.scores[same])
    assert (np.diff(found.scores, axis=1) <= 0).all()


def test_the_effort_is_raised_if_it_is_too_small():
    items, queries = world(5000)
    truth = search(queries, items, 50)
    lazy = replace(Index.build(items, "ivf"), effort=1, at=50)
    proposed, _ = lazy.search_proposals(queries, 50, exclude=Ragged.empty(len(queries)))
    better = tune_effort(lazy, queries, at=50, recall=0.99)
    assert recalls(proposed, truth).mean() < 0.9
    assert 1 < better.effort < lazy.faiss.nlist
    assert recalls(better.search(queries, 50), truth).mean() >= 0.99
    # where too little is proposed the exact search stands in, so that no list is short
    assert (lazy.search(queries, 50).items >= 0).all()


@pytest.mark.parametrize("n_items", [1, 31, 256, 10_000])
@pytest.mark.parametrize("kind", KINDS)
def test_lists_are_as_long_as_they_can_be(kind, n_items):
    items, queries = world(n_items, 12)
    if kind == "ivf_pq" and n_items < 256:
        with pytest.raises(TooFewItems, match=f"at least 256 items. Received: {n_items}"):
            Index.build(items, kind)
        return
    index = tune_effort(Index.build(items, kind), queries, at=10, recall=0.95)
    for k in (1, 10, 40):
        found, truth = index.search(queries, k), search(queries, items, k)
        np.testing.assert_array_equal(found.items >= 0, truth.items >= 0)
        assert all(len(set(row)) == len(row) for row in (r[r >= 0].tolist() for r in found.items))
        assert recalls(found, truth).mean() >= 0.95
    whole = index.search(queries, n_items + 3) if n_items < 1000 else None
    if whole:  # longer than the catalogue
        np.testing.assert_array_equal(np.sort(whole.items)[:, 3:], [range(n_items)] * 12)
        assert (whole.items[:, n_items:] == -1).all()
        assert (whole.scores[:, n_items:] == -np.inf).all()


@pytest.mark.parametrize("few", [0, 3000])
def test_lists_hold_only_candidates_and_no_excluded_items(index, few, monkeypatch):
    monkeypatch.setattr(ann, "FEW", few)
    queries = world(3000)[1]
    draw = np.random.default_rng(3)
    best = search(queries, index.items, 200).items
    exclude = lists(*([*row[: draw.integers(0, 200)].tolist(), -1] for row in best))
    for share in (0.9, 0.3, 0.004, 0.0):
        candidates = draw.random(3000) < share
        found = index.search(queries, 15, exclude=exclude, candidates=candidates)
        truth = search(queries, index.items, 15, exclude=exclude, candidates=candidates)
        np.testing.assert_array_equal(found.items >= 0, truth.items >= 0)
        for row, items in enumerate(found.items):
            shown = items[items >= 0]
            assert candidates[shown].all()
            assert not np.isin(shown, exclude[row]).any()
        assert recalls(found, truth).mean() >= (1 if few else 0.97)
    everything = lists(*([list(range(3000))] * len(queries)))
    nobody = index.search(queries, 5, exclude=everything)
    assert (nobody.items == -1).all()
    assert (nobody.scores == -np.inf).all()


def test_a_query_has_the_same_list_alone_and_in_a_batch(index, monkeypatch):
    monkeypatch.setattr(ann, "FEW", 0)
    queries = world(3000)[1]
    exclude = lists(*([list(range(7 * n)) for n in range(60)]))
    candidates = np.arange(3000) % 3 > 0
    together = index.search(queries, 20, exclude=exclude, candidates=candidates)
    for row in range(0, 60, 7):
        alone = index.search(
            queries[[row]], 20, exclude=exclude.take(np.array([row])), candidates=candidates
        )
        np.testing.assert_array_equal(alone.items[0], together.items[row])
        np.testing.assert_array_equal(alone.scores[0], together.scores[row])


def test_a_filter_that_leaves_few_items_finds_the_best_of_them(index):
    """It also finds items that are far from all queries."""
    queries = world(3000)[1]
    worst = search(-queries, index.items, 60).items
    for row in range(0, 60, 11):
        candidates = np.zeros(3000, bool)
        candidates[worst[row]] = True
        exclude = lists(worst[row, -3:].tolist())
        found = index.search(queries[[row]], 20, exclude=exclude, candidates=candidates)
        truth = search(queries[[row]], index.items, 20, exclude=exclude, candidates=candidates)
        np.testing.assert_array_equal(found.items, truth.items)
        np.testing.assert_array_equal(found.scores, truth.scores)


@pytest.mark.parametrize("kind", KINDS)
def test_ties_are_broken_by_the_tie_rule(kind):
    items, queries = world(400)
    items[50:] = items[np.arange(350) % 50]  # each embedding eight times
    index = replace(Index.build(items, kind), effort=400 if kind == "hnsw" else 10, at=5)
    for k in (3, 5, 20):
        found, truth = index.search(queries, k), search(queries, items, k)
        np.testing.assert_array_equal(found.items, truth.items)
        np.testing.assert_array_equal(found.scores, truth.scores)


@pytest.mark.parametrize("kind", ["hnsw", *IVF_KINDS])
def test_the_same_items_give_the_same_file(kind, tmp_path):
    items, queries = world(2000)
    files = [tmp_path / "one", tmp_path / "two"]
    for file in files:
        Index.build(items, kind).write(file)
    assert files[0].read_bytes() == files[1].read_bytes()
    built = replace(Index.build(items, kind), effort=30, at=10)
    read = Index.read(files[0], items, kind, effort=30, at=10)
    np.testing.assert_array_equal(read.search(queries, 10).items, built.search(queries, 10).items)
    with pytest.raises(ValueError, match=r"indexes 2000 items of 16 dim.* Received: 1999 of 16"):
        Index.read(files[0], items[1:], kind, effort=30, at=10)


@pytest.mark.parametrize("kind", IVF_KINDS)
def test_a_large_file_is_mapped_and_answers_as_the_index_in_memory(kind, tmp_path, monkeypatch):
    items, queries = world(2000)
    built = replace(Index.build(items[:1500], kind), effort=30, at=10)
    built.write(tmp_path / "index")
    monkeypatch.setattr(index_file, "_MAPPED", 0)

    def read(*, to_grow: bool) -> Index:
        return Index.read(tmp_path / "index", items[:1500], kind, effort=30, at=10, to_grow=to_grow)

    mapped = read(to_grow=False)
    lists_of_file = faiss.downcast_InvertedLists(mapped.faiss.invlists)
    assert isinstance(lists_of_file, faiss.OnDiskInvertedLists)
    np.testing.assert_array_equal(mapped.search(queries, 10).items, built.search(queries, 10).items)
    grown = read(to_grow=True).with_items(items[1500:])
    assert len(grown.items) == grown.faiss.ntotal == 2000
    content = (tmp_path / "index").read_bytes()
    (tmp_path / "index").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="is damaged: its end is missing"):
        read(to_grow=False)


@pytest.mark.parametrize("kind", IVF_KINDS)
def test_an_index_of_many_items_learns_from_a_sample_and_adds_them_in_blocks(kind, monkeypatch):
    items, queries = world(12_000)
    monkeypatch.setattr(ivf, "_MANY", 100)
    monkeypatch.setattr(ivf, "_MAX_VECTORS_PER_CELL", 5)
    monkeypatch.setattr(ivf, "_CELLS_PER_ROOT", 1)
    monkeypatch.setattr(ann, "_ADDED", 1_000)
    index = tune_effort(Index.build(items, kind), queries, at=20, recall=0.95)
    assert index.faiss.ntotal == 12_000
    assert overlap(index.search(queries, 20), search(queries, items, 20)) >= 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_added_items_are_found(kind):
    items, _ = world(2000)
    index = replace(Index.build(items[:1500], kind), effort=64, at=10).with_items(items[1500:])
    found = index.search(items[1500:], 10)
    truth = search(items[1500:], items, 10)
    assert (found.items[:, 0] == truth.items[:, 0]).mean() > 0.98
    assert (found.items >= 1500).any()


def test_users_are_given_by_rows_as_in_exact_search(index):
    users = world(3000)[1]
    asked = Queries(np.array([4, -1, 0]), Ragged.empty(3))
    found = Ann(users, index).top_k(asked, 5)
    truth = Exact(users, index.items).top_k(asked, 5)
    assert recalls(found, truth).mean() >= 0.9
    np.testing.assert_array_equal(found.items[1], index.search(users[-1:], 5).items[0])
    with pytest.raises(ValueError, match=r"User rows must lie in \[-1, 59\). Received: 59"):
        Ann(users, index).top_k(Queries(np.array([59]), Ragged.empty(1)), 5)


def test_embeddings_that_cannot_be_searched_are_refused(index, monkeypatch):
    queries = world(3000)[1]
    with pytest.raises(ValueError, match="k must be at least 1"):
        index.search(queries, 0)
    with pytest.raises(ValueError, match="equally wide"):
        index.search(queries[:, 1:], 3)
    with pytest.raises(BrokenModel, match="1 of 60 query embeddings hold NaN"):
        index.search(np.where(np.arange(60)[:, None] == 7, np.nan, queries), 3)
    with pytest.raises(BrokenModel, match="item embeddings hold NaN"):
        Index.build(np.full((3, 2), np.nan, np.float32), "flat")
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(FaissNotInstalled, match=r"pip install 'merlin-two-tower\[index\]'"):
        Index.build(queries, "flat")


# ── damaged files ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "damage"),
    [("hnsw", "emptied"), ("ivf", "halved"), ("hnsw", "random"), ("ivf", "huge")],
)
def test_a_damaged_index_is_refused_and_does_not_end_the_process(
    tmp_path: Path, kind: str, damage: str
) -> None:
    rng = np.random.default_rng(1)
    items = rng.normal(size=(500, 8)).astype(np.float32)
    path = tmp_path / "index.faiss"
    Index.build(items, kind).write(path)
    content = path.read_bytes()
    assert len(Index.read(path, items, kind, effort=16, at=10).items) == 500
    spoilt = {
        "emptied": b"",
        "halved": content[: len(content) // 2],
        "random": content[:4] + rng.bytes(len(content) - 4),
        "huge": content[:4] + b"\xff" * 40 + content[44:],
    }
    path.write_bytes(spoilt[damage])
    with pytest.raises(ValueError, match=r"index\.faiss is damaged: FAISS cannot read it"):
        Index.read(path, items, kind, effort=16, at=10)


def test_a_flat_index_is_built_from_the_embeddings_and_not_from_its_file(tmp_path: Path) -> None:
    items = np.random.default_rng(1).normal(size=(50, 8)).astype(np.float32)
    (tmp_path / "index.faiss").write_bytes(b"rubbish")
    read = Index.read(tmp_path / "index.faiss", items, "flat", effort=0, at=10)
    assert (read.search(items[:5], 1).items[:, 0] >= 0).all()
    assert read.at == 10
