"""Assign users to partitions by a stable hash of their ids.

The hash is the same on every machine, in every process and for every order of the rows. Two
spellings of one id that a file may mix, such as 12 and 12.0, have the same hash, because the reader
decides only later, from all texts of a file, whether they are one id.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from workflows.raw import spelling

#: Constants of the finaliser of MurmurHash3 (Appleby 2011) and of splitmix64.
_STEP, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53
#: Bytes that are hashed at a time, and texts: their arrays fit into a processor's cache.
_WORD, _BLOCK = 8, 1 << 14

Hashes = npt.NDArray[np.uint64]


def assign_partitions(ids: pa.StringArray, n: int) -> npt.NDArray[np.uint16]:
    """Return the partition of each user id, a number below n, uint16 [n_ids].

    Args:
        ids: user ids, text without null.
        n: number of partitions.
    """
    if n == 1:
        return np.zeros(len(ids), np.uint16)
    twins = spelling.canonical(ids)
    if twins.null_count < len(twins):
        ids = pc.coalesce(twins, ids)
    # the upper bits: with a product, all n partitions are equally likely
    upper = hash_texts(ids) >> np.uint64(32)
    return ((upper * np.uint64(n)) >> np.uint64(32)).astype(np.uint16)


def hash_texts(texts: pa.StringArray) -> Hashes:
    """Hash texts by their UTF-8 bytes, eight bytes of all texts at a time, uint64 [n]."""
    found = np.zeros(len(texts), np.uint64)
    for start in range(0, len(texts), _BLOCK):
        found[start : start + _BLOCK] = _hash_block(texts[start : start + _BLOCK])
    return found


def _hash_block(texts: pa.StringArray) -> Hashes:
    wide = np.int64 if pa.types.is_large_string(texts.type) else np.int32
    bounds = np.frombuffer(texts.buffers()[1], wide)[texts.offset : texts.offset + len(texts) + 1]
    start, lengths = bounds[:-1].astype(np.int64), np.diff(bounds).astype(np.int64)
    base, end = int(start[0]), int(bounds[-1])
    data = np.zeros(end - base + _WORD, np.uint8)
    if end > base:
        data[: end - base] = np.frombuffer(texts.buffers()[2], np.uint8)[base:end]
    start -= base
    words: Hashes = np.ndarray((len(data) - _WORD + 1,), "<u8", data.data, strides=(1,))
    found = _mix(lengths.astype(np.uint64))
    for place in range(0, int(lengths.max()), _WORD):
        rows = slice(None) if place + _WORD <= lengths.min() else np.flatnonzero(lengths > place)
        word = words[start[rows] + place]
        if not isinstance(rows, slice):  # the bytes of the next text are cut off
            left = np.minimum(lengths[rows] - place, _WORD)
            cut = (8 * (_WORD - left)).astype(np.uint64)
            word = (word << cut) >> cut
        found[rows] = _mix(found[rows] ^ word)
    return found


def _mix(numbers: Hashes) -> Hashes:
    mixed = numbers + np.uint64(_STEP)  # overflow is intended
    mixed = (mixed ^ (mixed >> np.uint64(33))) * np.uint64(_FIRST)
    mixed = (mixed ^ (mixed >> np.uint64(33))) * np.uint64(_SECOND)
    return mixed ^ (mixed >> np.uint64(33))
