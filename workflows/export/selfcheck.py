"""Run as a script, in a fresh process with nothing but numpy, pyarrow and TensorFlow.

It loads an export as a stranger would, encodes sampled rows of both feature tables, and compares
with the embeddings beside them. If they differ: exit code 1, and one line that says how.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

#: Of a number below 1; of a larger one, its share.
TOLERANCE = 1e-5
SAMPLES = 200
SUFFIX = "_input"


def check(folder: Path, side: str, tower: str) -> str | None:
    """Return what is wrong with one tower, or None.

    Args:
        folder: the export.
        side: `user` or `item`.
        tower: `query_tower` or `item_tower`.
    """
    encode = tf.saved_model.load(str(folder / tower)).signatures["serving_default"]
    features = pq.read_table(folder / f"{side}_features.parquet")
    embeddings = pq.read_table(folder / f"{side}_embeddings.parquet")
    if features.num_rows != embeddings.num_rows:
        return f"{side}: {features.num_rows} rows of features, {embeddings.num_rows} embeddings"
    rows = np.unique(np.linspace(0, features.num_rows - 1, SAMPLES).astype(np.int64))
    specs = encode.structured_input_signature[1]
    inputs = {
        name: tf.constant(padded(features[f"{name}{SUFFIX}"].take(rows)), spec.dtype)
        for name, spec in specs.items()
    }
    vectors = embeddings["embedding"].combine_chunks()
    expected = vectors.flatten().to_numpy().reshape(len(vectors), -1)[rows]
    gaps = np.abs(encode(**inputs)["embedding"].numpy() - expected)
    gap = float((gaps / np.maximum(1.0, np.abs(expected))).max())
    if not gap <= TOLERANCE:  # NaN fails too
        return f"{tower}: embeddings differ by {gap:.2g} (at most {TOLERANCE} allowed)"
    return None


def padded(column: pa.ChunkedArray) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    """Return a column as an array; lists become a matrix padded with code 0."""
    if not pa.types.is_list(column.type):
        return column.to_numpy()
    rows = column.to_pylist()
    width = max(1, *map(len, rows)) if rows else 1
    return np.array([row + [0] * (width - len(row)) for row in rows], np.int32)


def main() -> None:
    """Check both towers of the folder named on the command line."""
    folder = Path(sys.argv[1])
    faults = [check(folder, "user", "query_tower"), check(folder, "item", "item_tower")]
    message = "; ".join(f for f in faults if f)
    strangers = [m for m in ("merlin", "nvtabular", "models", "workflows") if m in sys.modules]
    if strangers:
        message += f"; {strangers} had to be imported"
    sys.exit(message or 0)


if __name__ == "__main__":
    main()
