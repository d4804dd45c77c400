"""Run as a script, in a fresh process with nothing but numpy, pyarrow and TensorFlow.

It loads an export of offer models as a stranger would, embeds users and offers from their lists,
and compares with the vectors beside them. If they differ: exit code 1, and one line that says how.
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
USERS, USER_VECTORS, OFFERS = "users.parquet", "user_vectors.npy", "offers.parquet"


def check_users(folder: Path) -> str | None:
    """Return what is wrong with the user tower, or None."""
    encode = tf.saved_model.load(str(folder / "user_tower")).signatures["serving_default"]
    table, expected = pq.read_table(folder / USERS), np.load(folder / USER_VECTORS)
    if table.num_rows != len(expected):
        return f"{table.num_rows} users, {len(expected)} vectors"
    rows = np.unique(np.linspace(0, len(expected) - 1, SAMPLES).astype(np.int64))
    inputs: dict[str, tf.Tensor] = {}
    for name in table.column_names[1:]:
        inputs |= ragged(name, table[name].take(rows))
    return _compared("user_tower", encode(**inputs)["users"].numpy(), expected[rows])


def check_offers(folder: Path) -> str | None:
    """Return what is wrong with the offer tower, or None."""
    encode = tf.saved_model.load(str(folder / "offer_tower")).signatures["serving_default"]
    table = pq.read_table(folder / OFFERS)
    attribute = table.schema.metadata[b"attribute"].decode()
    vectors = pq.read_table(folder / "offer_embeddings" / f"{attribute}.parquet")["embedding"]
    rows = np.unique(np.linspace(0, table.num_rows - 1, SAMPLES).astype(np.int64))
    inputs: dict[str, tf.Tensor] = {}
    asked = encode.structured_input_signature[1]
    for name in {key.rpartition("__")[0] for key in asked}:
        inputs |= ragged(name, table[name].take(rows))
        weights = table[f"{name}_weight"].take(rows).combine_chunks()
        inputs[f"{name}__weights"] = tf.constant(weights.flatten().to_numpy())
    found = encode(**inputs)["offers"].numpy()
    expected = vectors.combine_chunks().flatten().to_numpy().reshape(len(vectors), -1)[rows]
    return _compared("offer_tower", found.reshape(len(rows), -1), expected)


def ragged(name: str, column: pa.ChunkedArray) -> dict[str, tf.Tensor]:
    """Return a column of lists as a tower takes it."""
    lists = column.combine_chunks()
    offsets = np.concatenate([[0], np.cumsum(lists.value_lengths().to_numpy())])
    return {
        f"{name}__values": tf.constant(lists.flatten().to_numpy(), tf.int32),
        f"{name}__offsets": tf.constant(offsets, tf.int32),
    }


def _compared(tower: str, found: np.ndarray, expected: np.ndarray) -> str | None:
    gaps = np.abs(found - expected) / np.maximum(1.0, np.abs(expected))
    gap = float(gaps.max(initial=0.0))
    if not gap <= TOLERANCE:  # NaN fails too
        return f"{tower}: vectors differ by {gap:.2g} (at most {TOLERANCE} allowed)"
    return None


def faults(folder: Path) -> list[str]:
    """Return what is wrong with the towers of an export."""
    return [fault for fault in (check_users(folder), check_offers(folder)) if fault]


def main() -> None:
    """Check the towers of the folder named on the command line."""
    message = "; ".join(faults(Path(sys.argv[1])))
    strangers = [m for m in ("merlin", "nvtabular", "models", "workflows") if m in sys.modules]
    if strangers:
        message += f"; {strangers} had to be imported"
    sys.exit(message or 0)


if __name__ == "__main__":
    main()
