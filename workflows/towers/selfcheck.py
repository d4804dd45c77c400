"""Script that checks the towers of an export with only numpy, pyarrow and TensorFlow.

The script loads an export as another program would, embeds sampled rows of the tower's input
tables, and compares the results with the exported embeddings. Towers that take raw values get the
raw columns of these tables, and compute derived columns. If embeddings differ, the script prints
one line that describes the difference, and exits with code 1.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

#: Largest difference of an embedding's number below 1; of a larger number, the largest share.
TOLERANCE = 1e-5
SAMPLES = 200
SUFFIX = "_input"
#: File of a tower's folder that describes the argument of each column.
INPUTS = "inputs.json"
#: Files of an export of offer models.
USERS, USER_VECTORS, OFFERS = "users.parquet", "user_vectors.npy", "offers.parquet"

Array = np.ndarray[Any, np.dtype[Any]]


class Check(NamedTuple):
    """A tower of an export, and the exported embeddings that it must reproduce.

    Attributes:
        tower: the folder of the tower's SavedModel.
        inputs: the Parquet table of the tower's inputs.
        embeddings: the file of embeddings, parquet or npy, in the order of `inputs`; `{}` stands
            for the attribute that the metadata of `inputs` names.
        suffix: the suffix of the input columns' names in the table; empty if they have none.
    """

    tower: str
    inputs: str
    embeddings: str
    suffix: str = ""


_USERS, _ITEMS = (
    (f"{side}_features.parquet", f"{side}_embeddings.parquet") for side in ("user", "item")
)
#: The checks of each kind of export.
CHECKS = (
    (
        Check("query_tower", *_USERS, SUFFIX),
        Check("query_tower_raw", *_USERS),
        Check("item_tower", *_ITEMS, SUFFIX),
        Check("item_tower_raw", *_ITEMS),
    ),
    (
        Check("user_tower", USERS, USER_VECTORS),
        Check("offer_tower", OFFERS, "offer_embeddings/{}.parquet"),
    ),
)


def check(folder: Path, what: Check) -> str | None:
    """Return the fault of one tower of an export as text; None if it reproduces its embeddings."""
    encode = tf.saved_model.load(str(folder / what.tower)).signatures["serving_default"]
    table = pq.read_table(folder / what.inputs)
    attribute = (table.schema.metadata or {}).get(b"attribute", b"").decode()
    expected = vectors(folder / what.embeddings.format(attribute))
    if table.num_rows != len(expected):
        return f"{what.tower}: {table.num_rows} rows of inputs, {len(expected)} embeddings"
    rows = np.unique(np.linspace(0, len(expected) - 1, SAMPLES).astype(np.int64))
    specs = encode.structured_input_signature[1]
    names = folder / what.tower / INPUTS
    if names.is_file():
        inputs = {
            said["argument"]: _missing(len(rows), specs[said["argument"]])
            if said.get("derived_from")
            else _constant(table[f"{name}{what.suffix}"].take(rows), specs[said["argument"]])
            for name, said in json.loads(names.read_text(encoding="utf-8")).items()
        }
    else:
        inputs = ragged(table.take(rows), list(specs))
    (found,) = (output.numpy() for output in encode(**inputs).values())
    gaps = np.abs(found.reshape(len(rows), -1) - expected[rows])
    gap = float((gaps / np.maximum(1.0, np.abs(expected[rows]))).max(initial=0.0))
    if not gap <= TOLERANCE:  # NaN fails too
        return f"{what.tower}: embeddings differ by {gap:.2g} (at most {TOLERANCE} allowed)"
    return None


def vectors(path: Path) -> Array:
    """Return the embeddings in a Parquet or npy file as a matrix, one row per embedding."""
    if path.suffix == ".npy":
        found = np.load(path, allow_pickle=False)
        return found.reshape(len(found), -1)
    column = pq.read_table(path, columns=["embedding"])["embedding"].combine_chunks()
    return column.flatten().to_numpy().reshape(len(column), -1)


def _constant(column: pa.ChunkedArray, spec: tf.TensorSpec) -> tf.Tensor:
    """Return a column of inputs as a tensor of the type and shape of a tower's argument."""
    width = spec.shape[1] if spec.shape.rank == 2 else None
    return tf.constant(padded(column, width), spec.dtype)


def _missing(n_rows: int, spec: tf.TensorSpec) -> tf.Tensor:
    """Return an argument with missing values only; the tower derives it from other arguments."""
    gap = "" if spec.dtype == tf.string else np.nan
    return tf.fill([n_rows, 1][: spec.shape.rank], tf.constant(gap, spec.dtype))


def padded(column: pa.ChunkedArray, width: int | None = None) -> Array:
    """Return a column as an array: lists as a padded matrix, missing values as "" or NaN.

    Args:
        column: single values, or lists; codes are padded with 0, numbers with NaN, text with "".
        width: width of the matrix; None for the length of the longest list.
    """
    kind = column.type
    if not pa.types.is_list(kind):
        return column.fill_null("").to_numpy() if pa.types.is_string(kind) else column.to_numpy()
    dtype: type = np.float32 if pa.types.is_floating(kind.value_type) else np.int32
    dtype = object if pa.types.is_string(kind.value_type) else dtype
    filler: str | float = "" if dtype is object else np.nan if dtype is np.float32 else 0
    rows = [
        [filler if value is None else value for value in row or []] for row in column.to_pylist()
    ]
    width = width or max([1, *map(len, rows)])
    padded = [row + [filler] * (width - len(row)) for row in rows]
    return np.array(padded, dtype)


def ragged(table: pa.Table, arguments: list[str]) -> dict[str, tf.Tensor]:
    """Return list columns as tower arguments `<list>__values`, `__offsets` and `__weights`."""
    inputs: dict[str, tf.Tensor] = {}
    for argument in arguments:
        name, _, part = argument.rpartition("__")
        lists = table[f"{name}__weights" if part == "weights" else name].combine_chunks()
        if part == "offsets":
            offsets = np.concatenate([[0], np.cumsum(lists.value_lengths().to_numpy())])
            inputs[argument] = tf.constant(offsets, tf.int32)
        else:
            inputs[argument] = tf.constant(lists.flatten().to_numpy())
    return inputs


def faults(folder: Path) -> list[str]:
    """Return a text for each tower of an export that does not reproduce its embeddings."""
    for checks in CHECKS:
        if (folder / checks[0].tower).is_dir():
            return [fault for fault in (check(folder, what) for what in checks) if fault]
    return ["there is no tower"]


def main() -> None:
    """Check the towers of the export whose folder is named on the command line."""
    message = "; ".join(faults(Path(sys.argv[1])))
    ours = [m for m in ("merlin", "nvtabular", "models", "workflows") if m in sys.modules]
    if ours:
        message += f"; {ours} had to be imported"
    sys.exit(message or 0)


if __name__ == "__main__":
    main()
