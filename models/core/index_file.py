"""Reads FAISS's files. FAISS checks nothing: a damaged file can crash whoever reads or asks it.

A file is first read by a process of its own, with a limit of memory and of time. Then its structure
is looked at here: each link of a graph and each entry of a cell must lead to an item that exists,
because a search follows them without a look (facebookresearch/faiss issue 5400).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

#: Reads an index in a process of its own, with a limit of memory.
_READER = """
import resource, sys
import faiss
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
faiss.read_index(sys.argv[1])
"""
#: Bytes that Python, FAISS and the stacks of its threads take beside an index.
_BESIDE = 4 << 30
#: Seconds that a process may take to start, and bytes a second that any disk gives.
_PATIENCE, _PACE = 60, 20 << 20


def read(path: Path, kind: Literal["hnsw", "ivf"], shape: tuple[int, int]) -> Any:
    """Return FAISS's index of a file.

    Args:
        path: of the file.
        kind: of the index that was written.
        shape: number of items, and their dimensions.

    Raises:
        ValueError: the file is damaged, or holds another index.
    """
    import faiss

    _try(path, shape)
    found = faiss.read_index(str(path))
    if (found.ntotal, found.d) != shape:
        raise ValueError(
            f"{path} indexes {found.ntotal} items of {found.d} dimensions. "
            f"Received: {shape[0]} of {shape[1]}."
        )
    wanted = {"hnsw": faiss.IndexHNSWFlat, "ivf": faiss.IndexIVFFlat}[kind]
    if not isinstance(found, wanted) or found.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise ValueError(f"{path} holds a {type(found).__name__}, no {kind} of inner products.")
    fault = (_graph_fault if kind == "hnsw" else _cells_fault)(faiss, found)
    if fault:
        raise ValueError(f"{path} is damaged: {fault}.")
    return found


def _try(path: Path, shape: tuple[int, int]) -> None:
    """Refuse a file that crashes FAISS, keeps it busy, or asks for far more memory than it needs.

    Raises:
        ValueError: it cannot be read.
    """
    size = path.stat().st_size
    limit = _BESIDE + 4 * (size + 4 * shape[0] * shape[1])
    seconds = _PATIENCE + size / _PACE
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", _READER, str(path), str(limit)],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=seconds,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"{path} is damaged, FAISS did not read it in {seconds:.0f} s.") from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        raise ValueError(f"{path} is damaged, FAISS cannot read it ({said[:200]}).")


def _graph_fault(faiss: Any, index: Any) -> str:
    """Return what is wrong with a graph; empty for nothing."""
    graph, n = index.hnsw, index.ntotal
    links, levels = _view(faiss, graph.neighbors), _view(faiss, graph.levels)
    until = _view(faiss, graph.cum_nneighbor_per_level).astype(np.int64)
    storage = faiss.downcast_index(index.storage)
    if (storage.ntotal, storage.d) != (n, index.d) or storage.codes.size() != 4 * n * index.d:
        return "it holds other vectors than its items'"
    if len(levels) != n or not _within(levels, 1, len(until) - 1):
        return "items stand on levels that do not exist"
    if not _within(until, 0, len(links)) or until[0] != 0 or (np.diff(until) < 0).any():
        return "its levels have no number of links"
    starts = np.concatenate([[0], np.cumsum(until[levels])])
    if not np.array_equal(_view(faiss, graph.offsets), starts.astype(np.uint64)):
        return "links do not begin where items' links begin"
    if len(links) != starts[-1] or not _within(links, -1, n - 1):
        return "links lead to items that do not exist"
    if n and not (0 <= graph.entry_point < n and graph.max_level < levels[graph.entry_point]):
        return "it is entered where nothing is"
    return ""


def _cells_fault(faiss: Any, index: Any) -> str:
    """Return what is wrong with an inverted file; empty for nothing."""
    lists = faiss.downcast_InvertedLists(index.invlists)
    centres = faiss.downcast_index(index.quantizer)
    if not isinstance(centres, faiss.IndexFlat) or not isinstance(lists, faiss.ArrayInvertedLists):
        return "its cells are of another kind"
    if (centres.ntotal, centres.d, lists.nlist) != (index.nlist, index.d, index.nlist):
        return "it has other cells than centres"
    if lists.code_size != 4 * index.d or centres.codes.size() != 4 * index.nlist * index.d:
        return "its vectors have other dimensions"
    met = np.zeros(index.ntotal, bool)
    for cell in range(index.nlist):
        size = lists.list_size(cell)
        if size:
            ids = faiss.rev_swig_ptr(lists.get_ids(cell), size)
            if not _within(ids, 0, index.ntotal - 1):
                return "cells hold items that do not exist"
            met[ids] = True
    return "" if met.all() else "some items are in no cell"


def _view(faiss: Any, vector: Any) -> npt.NDArray[Any]:
    """Return a vector of FAISS as an array, without a copy."""
    if not vector.size():
        return np.zeros(0, np.int64)
    found: npt.NDArray[Any] = faiss.rev_swig_ptr(vector.data(), vector.size())
    return found


def _within(numbers: npt.NDArray[Any], low: int, high: int) -> bool:
    return not len(numbers) or bool(numbers.min() >= low and numbers.max() <= high)
