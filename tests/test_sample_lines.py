"""lines: what the csv module reads is what was meant, and compressed bytes know no clock."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from samples.lines import RawFile, as_decimals, as_text, hexadecimal, quote, write_csv
from samples.words import names

ODD = ["plain", "a,b", 'say "hi"', "two\nlines", None, "Søv & Lek", "", " spaced "]


def test_text_is_quoted_only_where_it_must_be() -> None:
    assert quote(ODD).to_pylist() == [
        *("plain", '"a,b"', '"say ""hi"""', '"two\nlines"', None, "Søv & Lek", "", " spaced ")
    ]


@pytest.mark.parametrize("name", ["deep/rows.csv", "rows.csv.gz"])
def test_batches_are_read_back(name: str, tmp_path: Path) -> None:
    full = [[as_text([7, -8]), quote(["a,b", None])], [as_text([9]), quote(['"'])]]
    batches = [*full, [as_text([]), quote([])]]
    assert write_csv(tmp_path, name, ("n", "text"), iter(batches)) == RawFile(name, 3)
    data = (tmp_path / name).read_bytes()
    text = (gzip.decompress(data) if name.endswith("gz") else data).decode()
    assert [*csv.reader(text.splitlines())] == [["n", "text"], ["7", "a,b"], ["-8", ""], ["9", '"']]
    assert text.endswith("\n")


def test_a_file_may_have_no_header(tmp_path: Path) -> None:
    write_csv(tmp_path, "rows.csv", (), [[as_text([1])]])
    assert (tmp_path / "rows.csv").read_bytes() == b"1\n"


def test_compressed_files_tell_neither_name_nor_time(tmp_path: Path) -> None:
    write_csv(tmp_path, "rows.csv.gz", ("n",), [[as_text([1])]])
    data = (tmp_path / "rows.csv.gz").read_bytes()
    assert data[3] == 0  # no flags: no name
    assert data[4:8] == bytes(4)  # the time of modification


def test_decimals_are_printed_as_python_does() -> None:
    values = np.array([1.0, 49.0, 0.125, 29.99 / 590, -1.0, -0.5])
    assert as_decimals(values).to_pylist() == [repr(v) for v in values.tolist()]
    assert as_decimals(np.array([np.nan, 2.0])).to_pylist() == [None, "2.0"]


def test_large_numbers_stay_exact() -> None:
    assert as_text(np.array([-8200171396217105230, 2**63 - 1])).to_pylist() == [
        *("-8200171396217105230", "9223372036854775807")
    ]


def test_hexadecimal_ids_rise_and_differ() -> None:
    ids = hexadecimal(500, 64, np.random.default_rng(1)).to_pylist()
    assert ids == sorted(set(ids))
    assert all(len(i) == 64 and int(i, 16) >= 0 for i in ids)
    assert hexadecimal(3, 16, np.random.default_rng(1)).type == pa.string()


def test_names_differ() -> None:
    assert len(set(names(734))) == 734
    assert names(80) == names(734)[:80]
    assert any(not name.isascii() for name in names(10))
