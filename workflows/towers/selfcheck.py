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
#: Number of row groups of a table from which the rows are taken.
GROUPS = 8
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
    with pq.ParquetFile(folder / what.inputs) as inputs_file:
        attribute = (inputs_file.schema_arrow.metadata or {}).get(b"attribute", b"").decode()
        n_rows = inputs_file.metadata.num_rows
        embeddings = folder / what.embeddings.format(attribute)
        n_vectors = count(embeddings)
        if n_rows != n_vectors:
            return f"{what.tower}: {n_rows} rows of inputs, {n_vectors} embeddings"
        rows = sample(inputs_file)
        table = take(inputs_file, rows)
    expected = vectors(embeddings, rows)
    specs = encode.structured_input_signature[1]
    names = folder / what.tower / INPUTS
    if names.is_file():
        inputs = {
            said["argument"]: _missing(len(rows), specs[said["argument"]])
            if said.get("derived_from")
            else _constant(table[f"{name}{what.suffix}"], specs[said["argument"]])
            for name, said in json.loads(names.read_text(encoding="utf-8")).items()
        }
    else:
        inputs = ragged(table, list(specs))
    (found,) = (output.numpy() for output in encode(**inputs).values())
    gaps = np.abs(found.reshape(len(rows), -1) - expected)
    gap = float((gaps / np.maximum(1.0, np.abs(expected))).max(initial=0.0))
    if not gap <= TOLERANCE:  # NaN fails too
        return f"{what.tower}: embeddings differ by {gap:.2g} (at most {TOLERANCE} allowed)"
    return None


def sample(file: pq.ParquetFile) -> Array:
    """Return the numbers of rows that are checked, evenly from at most `GROUPS` row groups."""
    sizes = [file.metadata.row_group(n).num_rows for n in range(file.metadata.num_row_groups)]
    starts = np.cumsum([0, *sizes])
    groups = np.unique(np.linspace(0, max(0, len(sizes) - 1), GROUPS).astype(np.int64))
    among = np.concatenate([np.arange(starts[n], starts[n + 1]) for n in groups if sizes])
    places = np.linspace(0, max(0, len(among) - 1), SAMPLES).astype(np.int64)
    return among[np.unique(places)] if len(among) else among.astype(np.int64)


def take(file: pq.ParquetFile, rows: Array, columns: list[str] | None = None) -> pa.Table:
    """Return some rows of a Parquet file, of which one row group at a time is in memory.

    Args:
        file: the file.
        rows: row numbers, rising.
        columns: names of the columns to read; None for all.
    """
    found = [file.schema_arrow.empty_table()] if columns is None else []
    start = 0
    for number in range(file.metadata.num_row_groups):
        stop = start + file.metadata.row_group(number).num_rows
        mine = rows[(rows >= start) & (rows < stop)]
        if len(mine):
            found.append(file.read_row_group(number, columns).take(mine - start))
        start = stop
    return pa.concat_tables(found) if found else file.read(columns)


def count(path: Path) -> int:
    """Return the number of embeddings in a Parquet or npy file."""
    if path.suffix == ".npy":
        return len(np.load(path, mmap_mode="r", allow_pickle=False))
    return int(pq.read_metadata(path).num_rows)


def vectors(path: Path, rows: Array) -> Array:
    """Return some embeddings of a Parquet or npy file as a matrix, one row per embedding.

    Args:
        path: the file.
        rows: numbers of the embeddings, rising.
    """
    if path.suffix == ".npy":
        found = np.load(path, mmap_mode="r", allow_pickle=False)[rows]
        return found.reshape(len(rows), -1)
    with pq.ParquetFile(path) as file:
        column = take(file, rows, ["embedding"])["embedding"].combine_chunks()
    return column.flatten().to_numpy().reshape(len(rows), -1)


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
