"""Hold more text than an Arrow array of type `string` can: its offsets are int32."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

#: Greatest number of bytes of text of an array of type `string`.
LARGEST = 2**31 - 1


def count_bytes(texts: pa.Array | pa.ChunkedArray) -> int:
    """Return the number of bytes of all texts of a column."""
    return int(pc.sum(pc.binary_length(texts)).as_py() or 0)


def concatenate(arrays: Sequence[pa.Array]) -> pa.Array:
    """Concatenate arrays of text; more text than `string` can hold becomes `large_string`."""
    if sum(map(count_bytes, arrays)) > LARGEST or any(_is_large(of) for of in arrays):
        arrays = [of.cast(pa.large_string()) for of in arrays]
    return pa.concat_arrays(arrays)


def cut(texts: pa.Array) -> pa.ChunkedArray:
    """Return text as chunks of type `string`, which readers of parquet files expect."""
    if not _is_large(texts):
        return pa.chunked_array([texts])
    n = count_bytes(texts) // LARGEST + 1
    size = -(-len(texts) // n)
    chunks = [texts[start : start + size] for start in range(0, len(texts), max(1, size))]
    found: list[pa.Array] = []
    for chunk in chunks:
        if count_bytes(chunk) > LARGEST and len(chunk) > 1:  # some texts are much longer
            found += cut(chunk).chunks
        else:
            found.append(chunk.cast(pa.string()))
    return pa.chunked_array(found, pa.string())


def _is_large(texts: pa.Array) -> bool:
    return bool(pa.types.is_large_string(texts.type))
