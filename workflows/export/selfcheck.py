"""Run as a script, in a fresh process with nothing but numpy, pyarrow and TensorFlow.

It loads an export as a stranger would, encodes sampled rows of both feature tables, and compares
with the embeddings beside them. If they differ: exit code 1, and one line that says how.
"""

from __future__ import annotations

import json
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
#: File of a tower's folder: column → argument.
INPUTS = "inputs.json"


def check(folder: Path, side: str, tower: str, *, suffix: str = SUFFIX) -> str | None:
    """Return what is wrong with one tower, or None.

    Args:
        folder: the export.
        side: `user` or `item`.
        tower: `query_tower`, `item_tower`, or one of these with `_raw`.
        suffix: of the columns that it takes: empty for a raw tower, whose columns people can read.
    """
    encode = tf.saved_model.load(str(folder / tower)).signatures["serving_default"]
    features = pq.read_table(folder / f"{side}_features.parquet")
    embeddings = pq.read_table(folder / f"{side}_embeddings.parquet")
    if features.num_rows != embeddings.num_rows:
        return f"{side}: {features.num_rows} rows of features, {embeddings.num_rows} embeddings"
    rows = np.unique(np.linspace(0, features.num_rows - 1, SAMPLES).astype(np.int64))
    specs = encode.structured_input_signature[1]
    named = json.loads((folder / tower / INPUTS).read_text(encoding="utf-8"))
    inputs = {}
    for name, argument in named.items():
        spec = specs[argument]
        width = spec.shape[1] if spec.shape.rank == 2 else None
        values = padded(features[f"{name}{suffix}"].take(rows), width)
        inputs[argument] = tf.constant(values, spec.dtype)
    vectors = embeddings["embedding"].combine_chunks()
    expected = vectors.flatten().to_numpy().reshape(len(vectors), -1)[rows]
    gaps = np.abs(encode(**inputs)["embedding"].numpy() - expected)
    gap = float((gaps / np.maximum(1.0, np.abs(expected))).max())
    if not gap <= TOLERANCE:  # NaN fails too
        return f"{tower}: embeddings differ by {gap:.2g} (at most {TOLERANCE} allowed)"
    return None


def padded(
    column: pa.ChunkedArray, width: int | None = None
) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    """Return a column as an array: lists as a padded matrix, gaps as "" or NaN.

    Args:
        column: single values, or lists; numbers are padded with 0, text with "".
        width: width of the matrix; None for that of the longest list.
    """
    kind = column.type
    if not pa.types.is_list(kind):
        return column.fill_null("").to_numpy() if pa.types.is_string(kind) else column.to_numpy()
    dtype: type = np.float32 if pa.types.is_floating(kind.value_type) else np.int32
    dtype = object if pa.types.is_string(kind.value_type) else dtype
    filler: str | int = "" if dtype is object else 0
    rows = [
        [filler if value is None else value for value in row or []] for row in column.to_pylist()
    ]
    width = width or max([1, *map(len, rows)])
    padded = [row + [filler] * (width - len(row)) for row in rows]
    return np.array(padded, dtype)


def faults(folder: Path) -> list[str]:
    """Return what is wrong with the towers of an export, by codes and by raw values."""
    found = [
        check(folder, side, tower) or check(folder, side, f"{tower}_raw", suffix="")
        for side, tower in (("user", "query_tower"), ("item", "item_tower"))
    ]
    return [fault for fault in found if fault]


def main() -> None:
    """Check the towers of the folder named on the command line."""
    message = "; ".join(faults(Path(sys.argv[1])))
    strangers = [m for m in ("merlin", "nvtabular", "models", "workflows") if m in sys.modules]
    if strangers:
        message += f"; {strangers} had to be imported"
    sys.exit(message or 0)


if __name__ == "__main__":
    main()
