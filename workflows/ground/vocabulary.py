"""Build, write and read vocabularies, which map the values of a column to codes and back.

Codes are indices into embedding tables, in the order of NVTabular's Categorify (23.6 and later):

    0 padding | 1 null | 2 .. 1 + oov_buckets unseen or rare | then values by falling count,
    ties by value

Values are always text: '0108775015', '-8200171396217105230' and 'Ж' are decoded unchanged.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from models.core.reserved_codes import NULL, UNSEEN
from workflows.ground import large_text
from workflows.ground.errors import ArtifactError

#: The folder with one vocabulary file per column, in the folder of a stage.
FOLDER = "vocabulary"

Codes = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The values of one categorical column that have their own codes.

    Attributes:
        values: text [n_values], distinct, no nulls; the code of value i is `first_code + i`.
        counts: number of training cells of each value, int64 [n_values].
        oov_buckets: number of codes that unseen values share, at least 1.
        null_count: number of the column's training cells that were null.
        oov_count: number of training cells whose value is too rare to have its own code.
        rare: the rare values and their counts; empty if the vocabulary was read from a file.
    """

    values: pa.StringArray
    counts: npt.NDArray[np.int64]
    oov_buckets: int = 1
    null_count: int = 0
    oov_count: int = 0
    rare: tuple[pa.StringArray, npt.NDArray[np.int64]] | None = None

    @classmethod
    def build(
        cls,
        values: pa.StringArray,
        counts: npt.NDArray[np.int64],
        *,
        min_count: int = 1,
        max_values: int | None = None,
        oov_buckets: int = 1,
    ) -> Vocabulary:
        """Build a vocabulary of the values that are not rare, by falling count, ties by value.

        Args:
            values: distinct texts [n], at most one of them null.
            counts: number of training cells of each value, int64 [n].
            min_count: values with fewer training cells share the unseen codes.
            max_values: largest number of values that get their own codes; None for no limit.
            oov_buckets: number of codes that unseen values share.
        """
        if not pa.types.is_large_string(values.type):
            values = values.cast(pa.string())
        table = pa.table({"value": values, "count": pa.array(counts, pa.int64())})
        null_count = int(pc.sum(table.filter(pc.is_null(table["value"]))["count"]).as_py() or 0)
        table = table.filter(pc.is_valid(table["value"]))
        table = table.sort_by([("count", "descending"), ("value", "ascending")])
        keep = int(pc.sum(pc.greater_equal(table["count"], min_count)).as_py() or 0)
        keep = keep if max_values is None else min(keep, max_values)
        every = table["count"].to_numpy().astype(np.int64)
        texts = table["value"].combine_chunks()
        return cls(
            texts.slice(0, keep),
            every[:keep],
            oov_buckets=oov_buckets,
            null_count=null_count,
            oov_count=int(every[keep:].sum()),
            rare=(texts.slice(keep), every[keep:]),
        )

    def grow_from(self, older: Vocabulary) -> Vocabulary:
        """Return a vocabulary that keeps the codes of an older vocabulary; new values follow.

        Values of the older vocabulary are kept even if they are rare in the new data; values that
        do not occur in the new data have the count 0.

        Raises:
            ArtifactError: the older vocabulary has another number of unseen codes, so that codes
                would change.
        """
        if older.oov_buckets != self.oov_buckets:
            raise ArtifactError(
                f"the earlier vocabulary has {older.oov_buckets} oov_buckets, the recipe asks for "
                f"{self.oov_buckets}; codes can only be kept with the same number."
            )
        old = older.values.cast(self.values.type)
        new = pc.invert(pc.is_in(self.values, value_set=old))
        counts = pa.array(self.counts, pa.int64())
        kept = _counts_of(old, self.values, self.counts)
        again = 0
        if self.rare:
            rare = _counts_of(old, *self.rare)
            kept, again = kept + rare, int(rare.sum())
        return Vocabulary(
            large_text.concatenate([old, self.values.filter(new)]),
            np.concatenate([kept, counts.filter(new).to_numpy()]),
            oov_buckets=self.oov_buckets,
            null_count=self.null_count,
            oov_count=self.oov_count - again,
        )

    @property
    def first_code(self) -> int:
        """The code of the first value; lower codes mean padding, null and unseen values."""
        return UNSEEN + self.oov_buckets

    @property
    def size(self) -> int:
        """The number of codes, reserved ones included: the number of rows of an embedding table."""
        return self.first_code + len(self.values)

    def encode(self, values: pa.Array | pa.ChunkedArray) -> Codes:
        """Return the code of each value, int32 [n].

        Nulls get the code NULL, and unseen values get one of the out-of-vocabulary codes.
        """
        if isinstance(values, pa.ChunkedArray):
            values = values.combine_chunks()
        known = self.values
        if pa.types.is_large_string(values.type):
            known = known.cast(values.type)
        found = pc.index_in(values.cast(known.type), value_set=known, skip_nulls=True)
        is_known = found.is_valid().to_numpy(zero_copy_only=False)
        codes = found.fill_null(0).to_numpy().astype(np.int32) + np.int32(self.first_code)
        null = values.is_null().to_numpy(zero_copy_only=False)
        codes[null] = NULL
        unseen = ~is_known & ~null
        if unseen.any():
            codes[unseen] = self._oov_codes(values.filter(pa.array(unseen)))
        return codes

    def _oov_codes(self, values: pa.StringArray) -> Codes:
        if self.oov_buckets == 1:
            return np.full(len(values), UNSEEN, np.int32)
        distinct = values.dictionary_encode()
        # crc32 of the UTF-8 bytes is the same on every machine, process and Python version
        bucket = [
            zlib.crc32(v.encode()) % self.oov_buckets for v in distinct.dictionary.to_pylist()
        ]
        return (UNSEEN + np.array(bucket, np.int32))[distinct.indices.to_numpy()]

    def decode(self, codes: npt.NDArray[np.integer]) -> pa.StringArray:
        """Return the value of each code; null for padding, null and out-of-vocabulary codes.

        Raises:
            IndexError: a code is not one of the vocabulary's codes.
        """
        codes = np.asarray(codes)
        if len(codes) and (codes.min() < 0 or codes.max() >= self.size):
            raise IndexError(
                f"codes run from 0 to {self.size - 1}, got {codes.min()}..{codes.max()}"
            )
        reserved = codes < self.first_code
        index = np.where(reserved, 0, codes - self.first_code)
        return self.values.take(pa.array(index, mask=reserved))

    def write(self, path: Path) -> None:
        """Write the vocabulary as a Parquet file of values, codes and counts, with metadata."""
        codes = np.arange(self.first_code, self.size, dtype=np.int32)
        values = large_text.cut(self.values)
        table = pa.table({"value": values, "code": codes, "count": self.counts})
        facts = {
            "oov_buckets": self.oov_buckets,
            "null_count": self.null_count,
            "oov_count": self.oov_count,
        }
        pq.write_table(table.replace_schema_metadata({k: str(v) for k, v in facts.items()}), path)

    @classmethod
    def read(cls, path: Path) -> Vocabulary:
        """Read a vocabulary from the Parquet file that `write` wrote.

        Raises:
            ArtifactError: the content of the file is not a valid vocabulary.
        """
        try:
            table = pq.read_table(path)
        except (pa.ArrowException, OSError) as error:
            raise ArtifactError(
                f"{path} is not a vocabulary: {error}. Run `two-tower etl` again."
            ) from None
        facts = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
        if table.column_names != ["value", "code", "count"] or "oov_buckets" not in facts:
            raise ArtifactError(
                f"{path} is not a vocabulary: expected columns value, code, count, got "
                f"{', '.join(table.column_names)}. Run `two-tower etl` again."
            )
        return cls(
            large_text.concatenate(table["value"].chunks or [pa.array([], pa.string())]),
            table["count"].to_numpy().astype(np.int64),
            oov_buckets=int(facts["oov_buckets"]),
            null_count=int(facts["null_count"]),
            oov_count=int(facts["oov_count"]),
        )


def _counts_of(
    texts: pa.StringArray, values: pa.StringArray, counts: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return the training count of each text; 0 for a text that is not among the values."""
    found = pa.array(counts, pa.int64()).take(pc.index_in(texts, value_set=values))
    return pc.fill_null(found, 0).to_numpy()


def read_all(folder: Path) -> dict[str, Vocabulary]:
    """Read all vocabularies from the folder of a stage: column → vocabulary."""
    paths = sorted((folder / FOLDER).glob("*.parquet"))
    return {path.stem: Vocabulary.read(path) for path in paths}
