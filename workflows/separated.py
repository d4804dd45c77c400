"""Text with a separator → lists."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def split(text: pa.ChunkedArray, separator: str) -> pa.ChunkedArray:
    """Return lists of text; empty parts, as of 'a||b' and '', are left out, and null stays null."""
    parts = pc.split_pattern(text, pattern=separator).combine_chunks()
    flat, rows = pc.list_flatten(parts), pc.list_parent_indices(parts)
    keep = pc.not_equal(flat, "")
    lengths = np.bincount(pc.filter(rows, keep).to_numpy(), minlength=len(text))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    null = np.append(text.is_null().to_numpy(), False)
    whole = pa.ListArray.from_arrays(pa.array(offsets, mask=null), pc.filter(flat, keep))
    return pa.chunked_array([whole])
