"""Reads index files of FAISS, and refuses damaged ones, which could crash the process.

FAISS itself does not check the content of index files. Therefore an index file is first read in
another process, with limits on memory and time. After that, this module checks that each link of a
graph and each entry of a cell is the number of an existing item, which a search does not check
(facebookresearch/faiss issue 5400).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from models.core.ivf import IVF_KINDS, IvfKind, pq_codes

#: Inverted files that are at least so large, in bytes, are mapped into memory.
_MAPPED = 256 << 20
#: Program that reads a FAISS index in another process, with a limit on memory.
_READER = """
import resource, sys
import faiss
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
faiss.read_index(sys.argv[1], int(sys.argv[3]))
"""
#: Bytes that Python, FAISS and the stacks of its threads take besides the index.
_OTHER_MEMORY = 4 << 30
#: Seconds that the process may take to start, and bytes per second that any disk can read.
_START_SECONDS, _BYTES_PER_SECOND = 60, 20 << 20


def read(
    path: Path, kind: Literal["hnsw", IvfKind], shape: tuple[int, int], *, to_grow: bool = False
) -> Any:
    """Read an index file of FAISS, and refuse it if it is damaged.

    Args:
        path: the index file.
        kind: the kind of index that the file should hold.
        shape: the number of items and of dimensions that the index should have.
        to_grow: whether items will be added, so that the file is not mapped into memory.

    Raises:
        ValueError: the index file is damaged, or holds another index.
    """
    import faiss

    is_mapped = kind in IVF_KINDS and not to_grow and path.stat().st_size >= _MAPPED
    flags = faiss.IO_FLAG_MMAP if is_mapped else 0
    _read_in_process(path, shape, flags)
    found = faiss.read_index(str(path), flags)
    if (found.ntotal, found.d) != shape:
        raise ValueError(
            f"{path} indexes {found.ntotal} items of {found.d} dimensions. "
            f"Received: {shape[0]} of {shape[1]}."
        )
    wanted = {
        "hnsw": faiss.IndexHNSWFlat,
        "ivf": faiss.IndexIVFFlat,
        "ivf_sq": faiss.IndexIVFScalarQuantizer,
        "ivf_pq": faiss.IndexIVFPQ,
    }[kind]
    if not isinstance(found, wanted) or found.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise ValueError(
            f"{path} holds a {type(found).__name__}, not a {kind} index of inner products."
        )
    fault = (_graph_fault if kind == "hnsw" else _cells_fault)(faiss, found)
    if fault:
        raise ValueError(f"{path} is damaged: {fault}.")
    return found


def _read_in_process(path: Path, shape: tuple[int, int], flags: int) -> None:
    """Read an index file in a separate process, because a damaged file may crash or stall FAISS.

    Args:
        path: the index file.
        shape: the number of items and of dimensions that the index should have.
        flags: FAISS's flags for reading.

    Raises:
        ValueError: FAISS cannot read the index file.
    """
    size = path.stat().st_size
    limit = _OTHER_MEMORY + 4 * (size + 4 * shape[0] * shape[1])
    seconds = _START_SECONDS + size / _BYTES_PER_SECOND
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", _READER, str(path), str(limit), str(flags)],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=seconds,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    except subprocess.TimeoutExpired:
        raise ValueError(
            f"{path} is damaged: FAISS did not read it within {seconds:.0f} s."
        ) from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        raise ValueError(f"{path} is damaged: FAISS cannot read it ({reason[:200]}).")


def _graph_fault(faiss: Any, index: Any) -> str:
    """Return the fault in the neighbour graph of an HNSW index as text; "" for none."""
    graph, n = index.hnsw, index.ntotal
    links, levels = _view(faiss, graph.neighbors), _view(faiss, graph.levels)
    until = _view(faiss, graph.cum_nneighbor_per_level).astype(np.int64)
    storage = faiss.downcast_index(index.storage)
    if (storage.ntotal, storage.d) != (n, index.d) or storage.codes.size() != 4 * n * index.d:
        return "its vectors are not those of its items"
    if len(levels) != n or not _within(levels, 1, len(until) - 1):
        return "items are on levels that do not exist"
    if not _within(until, 0, len(links)) or until[0] != 0 or (np.diff(until) < 0).any():
        return "the numbers of links on its levels are wrong"
    starts = np.concatenate([[0], np.cumsum(until[levels])])
    if not np.array_equal(_view(faiss, graph.offsets), starts.astype(np.uint64)):
        return "the places where the links of items begin are wrong"
    if len(links) != starts[-1] or not _within(links, -1, n - 1):
        return "links lead to items that do not exist"
    if n and not (0 <= graph.entry_point < n and graph.max_level < levels[graph.entry_point]):
        return "its entry point is not an item of the top level"
    return ""


def _cells_fault(faiss: Any, index: Any) -> str:
    """Return the fault in the cells (inverted lists) of an IVF index as text; "" for none."""
    lists = faiss.downcast_InvertedLists(index.invlists)
    centres = faiss.downcast_index(index.quantizer)
    structures = (faiss.ArrayInvertedLists, faiss.OnDiskInvertedLists)
    if not isinstance(centres, faiss.IndexFlat) or not isinstance(lists, structures):
        return "its cells have another structure"
    if (centres.ntotal, centres.d, lists.nlist) != (index.nlist, index.d, index.nlist):
        return "the numbers of cells and centres differ"
    if not _codes_fit(faiss, index) or lists.code_size != index.code_size:
        return "its vectors have another number of dimensions"
    if centres.codes.size() != 4 * index.nlist * index.d:
        return "its centres have another number of dimensions"
    if isinstance(lists, faiss.OnDiskInvertedLists) and not _is_whole(lists):
        return "its end is missing"
    is_in_cell = np.zeros(index.ntotal, bool)
    for cell in range(index.nlist):
        size = lists.list_size(cell)
        if size:
            ids = faiss.rev_swig_ptr(lists.get_ids(cell), size)
            if not _within(ids, 0, index.ntotal - 1):
                return "cells hold items that do not exist"
            is_in_cell[ids] = True
    return "" if is_in_cell.all() else "some items are in no cell"


def _is_whole(lists: Any) -> bool:
    """Return whether a mapped file has all cells; reading beyond its end would end the process."""
    bytes_per_item = lists.code_size + 8  # its code and its id
    cells = (lists.lists.at(number) for number in range(lists.nlist))
    return all(
        0 <= cell.size <= cell.capacity
        and 0 <= cell.offset <= lists.totsize - cell.capacity * bytes_per_item
        for cell in cells
    )


def _codes_fit(faiss: Any, index: Any) -> bool:
    """Return whether the codes of an IVF index are those of vectors of its dimensions."""
    if isinstance(index, faiss.IndexIVFFlat):
        return bool(index.code_size == 4 * index.d)
    if isinstance(index, faiss.IndexIVFScalarQuantizer):
        quantizer, size = index.sq, index.d
        # the smallest value and the range of each dimension
        learnt, expected = _view(faiss, quantizer.trained), 2 * index.d
        is_known = quantizer.qtype == faiss.ScalarQuantizer.QT_8bit and quantizer.d == index.d
    else:
        quantizer, size = index.pq, pq_codes(index.d)
        learnt, expected = _view(faiss, quantizer.centroids), 256 * index.d
        is_known = (quantizer.d, quantizer.M, quantizer.nbits) == (index.d, size, 8)
    fits = is_known and index.code_size == quantizer.code_size == size and len(learnt) == expected
    return bool(fits and np.isfinite(learnt).all())


def _view(faiss: Any, vector: Any) -> npt.NDArray[Any]:
    """Return a C++ vector of FAISS as an array, without a copy."""
    if not vector.size():
        return np.zeros(0, np.int64)
    found: npt.NDArray[Any] = faiss.rev_swig_ptr(vector.data(), vector.size())
    return found


def _within(numbers: npt.NDArray[Any], low: int, high: int) -> bool:
    return not len(numbers) or bool(numbers.min() >= low and numbers.max() <= high)
