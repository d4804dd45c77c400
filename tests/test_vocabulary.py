"""The vocabulary: values survive, and no machine, hash seed or row order changes the codes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.core.reserved_codes import NULL, PAD, UNSEEN
from workflows.ground.errors import ArtifactError
from workflows.ground.vocabulary import Vocabulary

ROOT = Path(__file__).resolve().parent.parent

#: Text of every kind that ids come in.
texts = st.one_of(
    st.text(st.characters(blacklist_categories=["Cs"]), max_size=12),
    st.from_regex(r"0{1,3}[0-9]{1,9}", fullmatch=True),
    st.integers(-(2**63), 2**63 - 1).map(str),
    st.sampled_from(
        ["0108775015", "108775015", "-8200171396217105230", "Ж", "\u00e9", "e\u0301", "", " "]
    ),
)


def build(cells: Sequence[str | None], **rules: int) -> Vocabulary:
    """Count cells by hand and build from the counts."""
    counts = Counter(cells)
    return Vocabulary.build(
        pa.array(list(counts), pa.string()), np.array(list(counts.values()), np.int64), **rules
    )


@given(st.lists(texts, min_size=1, max_size=40), st.integers(1, 5))
def test_e02_decode_gives_back_what_encode_took(cells: list[str], oov_buckets: int) -> None:
    vocabulary = build([*cells], oov_buckets=oov_buckets)
    codes = vocabulary.encode(pa.array(cells))
    assert vocabulary.decode(codes).to_pylist() == cells
    # different values have different codes, equal ones the same
    assert len(set(codes.tolist())) == len(set(cells))
    assert codes.min() >= UNSEEN + oov_buckets


@given(st.lists(st.one_of(st.none(), texts), min_size=1, max_size=40))
def test_codes_are_those_of_a_naive_table(cells: list[str | None]) -> None:
    counts = Counter(c for c in cells if c is not None)
    ordered = sorted(counts, key=lambda value: (-counts[value], value.encode()))
    naive: dict[str | None, int] = {value: 3 + n for n, value in enumerate(ordered)}
    naive[None] = 1
    vocabulary = build(cells)
    assert vocabulary.encode(pa.array(cells, pa.string())).tolist() == [naive[c] for c in cells]
    assert vocabulary.values.to_pylist() == ordered
    assert vocabulary.counts.tolist() == [counts[value] for value in ordered]
    assert vocabulary.null_count == cells.count(None)


def test_reserved_codes_by_hand() -> None:
    vocabulary = build(["b", "a", "b", None, "c"])
    assert (PAD, NULL, UNSEEN) == (0, 1, 2)
    assert (vocabulary.first_code, vocabulary.size) == (3, 6)
    cells = pa.array(["b", "a", "c", None, "unseen", "B"])
    codes = vocabulary.encode(cells)
    assert codes.tolist() == [3, 4, 5, 1, 2, 2]
    assert codes.dtype == np.int32
    assert vocabulary.decode(np.arange(6)).to_pylist() == [None, None, None, "b", "a", "c"]


def test_ties_are_ordered_by_value_however_the_counts_come() -> None:
    values = ["10", "9", "-1", "a", "Z", "Ж", "é"]
    for turned in (values, values[::-1], sorted(values)):
        vocabulary = Vocabulary.build(pa.array(turned), np.full(7, 4))
        # by UTF-8 bytes: digits and signs, capitals, small letters, then the rest
        assert vocabulary.values.to_pylist() == ["-1", "10", "9", "Z", "a", "é", "Ж"]


def test_e14_min_count_leaves_out_the_rare_and_counts_them() -> None:
    vocabulary = build(["a", "a", "a", "b", "b", "c", "d", None], min_count=2)
    assert vocabulary.values.to_pylist() == ["a", "b"]
    assert (vocabulary.oov_count, vocabulary.null_count) == (2, 1)
    assert vocabulary.encode(pa.array(["c", "d", "a"])).tolist() == [2, 2, 3]


def test_e14_max_values_keeps_the_most_frequent_ties_by_value() -> None:
    cells = ["z"] * 3 + ["y"] * 2 + ["x"] * 2 + ["w"]
    vocabulary = build([*cells], max_values=2)
    assert vocabulary.values.to_pylist() == ["z", "x"]
    assert vocabulary.oov_count == 3
    assert build([*cells], max_values=99).values.to_pylist() == ["z", "x", "y", "w"]
    # both rules at once: the stricter one counts
    assert build([*cells], max_values=3, min_count=3).values.to_pylist() == ["z"]


def test_a_column_of_nulls_has_no_values() -> None:
    vocabulary = build([None, None])
    assert (vocabulary.size, vocabulary.null_count) == (3, 2)
    assert vocabulary.encode(pa.array([None, "x"], pa.string())).tolist() == [1, 2]
    nothing = Vocabulary.build(pa.array([], pa.string()), np.array([], np.int64))
    assert nothing.encode(pa.array([], pa.string())).tolist() == []
    assert nothing.decode(np.array([], np.int32)).to_pylist() == []


def test_a_chunked_column_is_encoded_as_a_whole_one() -> None:
    vocabulary = build(["a", "b", "a"], oov_buckets=3)
    cells = ["b", None, "q", "a", "r"]
    whole = vocabulary.encode(pa.array(cells))
    assert vocabulary.encode(pa.chunked_array([cells[:2], cells[2:]])).tolist() == whole.tolist()
    assert vocabulary.encode(pa.array(["x", *cells]).slice(1)).tolist() == whole.tolist()


def test_integers_are_encoded_as_their_text() -> None:
    vocabulary = build(["-5", "7"])
    assert vocabulary.encode(pa.array([7, -5, 8])).tolist() == [4, 3, 2]


def test_unseen_values_spread_over_the_buckets_and_stay_where_they_are() -> None:
    vocabulary = build(["known"], oov_buckets=4)
    unseen = [f"new-{n}" for n in range(400)]
    codes = vocabulary.encode(pa.array(unseen))
    sizes = np.bincount(codes, minlength=6)
    assert sizes[:2].sum() == 0
    assert (sizes[2:6] > 50).all()
    assert sizes[2:6].sum() == 400
    # alone, in another order, or twice: the same bucket
    assert vocabulary.encode(pa.array(unseen[::-1])).tolist() == codes[::-1].tolist()
    assert [int(vocabulary.encode(pa.array([u]))[0]) for u in unseen[:20]] == codes[:20].tolist()


def test_buckets_are_the_same_in_a_process_with_another_hash_seed() -> None:
    code = (
        "import pyarrow as pa, numpy as np; from workflows.ground.vocabulary import Vocabulary;"
        "v = Vocabulary.build(pa.array(['k']), np.array([1]), oov_buckets=16);"
        "print(v.encode(pa.array([f'Ж{n}' for n in range(200)])).tolist(), hash('x'))"
    )
    codes, seeds = set(), set()
    for seed in ("0", "12345"):
        out = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        codes.add(out.rpartition(" ")[0])
        seeds.add(out.rpartition(" ")[2])
    assert len(seeds) == 2, "Python's own hash must differ, or this shows nothing"
    assert len(codes) == 1
    assert len(set(codes.pop().strip("[]").split(", "))) == 16


def test_buckets_are_crc32_of_the_utf8_bytes() -> None:
    # from the standard's check value: crc32(b"123456789") = 0xCBF43926
    vocabulary = build(["k"], oov_buckets=1000)
    assert vocabulary.encode(pa.array(["123456789"])).tolist() == [2 + 0xCBF43926 % 1000]


@pytest.mark.parametrize("codes", [[-1], [6], [0, 99]])
def test_a_code_outside_the_vocabulary_is_refused(codes: list[int]) -> None:
    vocabulary = build(["a", "b", "c"])
    assert vocabulary.decode(np.array([5])).to_pylist() == ["c"]
    with pytest.raises(IndexError, match=r"codes run from 0 to 5, got"):
        vocabulary.decode(np.array(codes))


@given(st.lists(st.one_of(st.none(), texts), min_size=1, max_size=20), st.integers(1, 4))
def test_it_reads_what_it_wrote(cells: list[str | None], oov_buckets: int) -> None:
    before = build(cells, min_count=2, oov_buckets=oov_buckets)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "column.parquet"
        before.write(path)
        after = Vocabulary.read(path)
        table = pq.read_table(path)
    assert after.values.equals(before.values)
    assert after.counts.tolist() == before.counts.tolist()
    for fact in ("oov_buckets", "null_count", "oov_count", "size"):
        assert getattr(after, fact) == getattr(before, fact)
    # and others can read it too
    assert table.column_names == ["value", "code", "count"]
    assert table["code"].to_pylist() == list(range(2 + oov_buckets, before.size))


def test_the_same_vocabulary_is_written_with_the_same_bytes(tmp_path: Path) -> None:
    cells: list[str | None] = ["b", "a", "b", None, "c"]
    build(cells).write(tmp_path / "1.parquet")
    build(cells[::-1]).write(tmp_path / "2.parquet")
    build([*cells, "c"]).write(tmp_path / "3.parquet")
    one, two, three = ((tmp_path / f"{n}.parquet").read_bytes() for n in (1, 2, 3))
    assert one == two
    assert one != three


def test_a_file_that_is_no_vocabulary_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.parquet"
    pq.write_table(pa.table({"value": ["a"], "code": [3], "count": [1]}), path)
    with pytest.raises(
        ArtifactError, match=r"other\.parquet is not a vocabulary: expected columns va"
    ):
        Vocabulary.read(path)
    pq.write_table(pa.table({"x": [1]}), path)
    with pytest.raises(ArtifactError, match=r"got x\. Run `two-tower etl` again"):
        Vocabulary.read(path)
    path.write_bytes(b"not parquet at all")
    with pytest.raises(ArtifactError, match=r"other\.parquet is not a vocabulary"):
        Vocabulary.read(path)
