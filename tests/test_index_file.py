"""An undamaged FAISS file is read; a damaged one that could crash a search is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from models.core import index_file
from models.core.ann import Index

N, WIDTH = 600, 4
ITEMS = np.random.default_rng(5).normal(size=(N, WIDTH)).astype(np.float32)


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the process that reads first: test_ann.py shows it, and it takes a second."""
    monkeypatch.setattr(index_file, "_read_in_process", lambda path, shape, flags: None)


def set_to(vector: Any, place: int, value: int) -> None:
    numbers = faiss.vector_to_array(vector)
    numbers[place] = value
    faiss.copy_array_to_vector(numbers, vector)


def cell(index: Any, value: int) -> None:
    lists = index.invlists
    number = next(n for n in range(index.nlist) if lists.list_size(n))
    faiss.rev_swig_ptr(lists.get_ids(number), 1)[0] = value


@pytest.mark.parametrize("kind", ["hnsw", "ivf", "ivf_sq", "ivf_pq"])
def test_an_undamaged_file_gives_the_index_that_was_written(tmp_path: Path, kind: Any) -> None:
    made = Index.build(ITEMS, kind)
    made.write(tmp_path / "index.faiss")
    found = Index.read(tmp_path / "index.faiss", ITEMS, kind, effort=16, at=10)
    assert np.array_equal(found.faiss.search(ITEMS[:20], 5)[1], made.faiss.search(ITEMS[:20], 5)[1])


FAULTS: dict[str, tuple[str, Callable[[Any], object], str]] = {
    "a link beyond the items": (
        "hnsw", lambda i: set_to(i.hnsw.neighbors, 3, N), "lead to items that do not exist"),
    "a link before the items": (
        "hnsw", lambda i: set_to(i.hnsw.neighbors, 3, -7), "lead to items that do not exist"),
    "an item on a high level": (
        "hnsw", lambda i: set_to(i.hnsw.levels, 3, 10**6), "levels that do not exist"),
    "an offset elsewhere": (
        "hnsw", lambda i: set_to(i.hnsw.offsets, 3, 10**9), "links of items begin"),
    "levels without links": (
        "hnsw", lambda i: set_to(i.hnsw.cum_nneighbor_per_level, 1, -5), "numbers of links"),
    "no entry": ("hnsw", lambda i: setattr(i.hnsw, "entry_point", N), "entry point"),
    "too high an entry": ("hnsw", lambda i: setattr(i.hnsw, "max_level", 99), "entry point"),
    "an item that does not exist": ("ivf", lambda i: cell(i, N), "items that do not exist"),
    "an item before the first": ("ivf", lambda i: cell(i, -1), "items that do not exist"),
    "an item twice": ("ivf", lambda i: cell(i, 1 if i.invlists.list_size(0) else 0), "no cell"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_structure_is_refused(tmp_path: Path, fault: str) -> None:
    kind, spoil, message = FAULTS[fault]
    made = Index.build(ITEMS, kind)  # type: ignore[arg-type]
    spoil(made.faiss)
    made.write(tmp_path / "index.faiss")
    with pytest.raises(ValueError, match=rf"index\.faiss is damaged: .*{message}"):
        index_file.read(tmp_path / "index.faiss", kind, (N, WIDTH))  # type: ignore[arg-type]


def test_an_index_of_another_kind_or_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "index.faiss"
    Index.build(ITEMS, "ivf").write(path)
    with pytest.raises(
        ValueError, match="holds a IndexIVFFlat, not a hnsw index of inner products"
    ):
        index_file.read(path, "hnsw", (N, WIDTH))
    with pytest.raises(ValueError, match=r"indexes 600 items of 4 dimensions\. Received: 5 of 4"):
        index_file.read(path, "ivf", (5, WIDTH))
    faiss.write_index(faiss.IndexHNSWFlat(WIDTH, 8), str(path))
    with pytest.raises(ValueError, match="not a hnsw index of inner products"):  # of distances
        index_file.read(path, "hnsw", (0, WIDTH))
