"""One raw value → text or a number, whatever type a file gives it."""

from __future__ import annotations

import datetime as dt
import decimal
import uuid

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflows.ground.errors import DataError
from workflows.raw.values import Place, as_numbers, as_text, nullify

PLACE = Place("log.parquet", "item", 100)


def text(values: pa.Array) -> list[str | None]:
    return pc.cast(as_text(pa.chunked_array([values]), PLACE), pa.string()).to_pylist()


D = decimal.Decimal


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        (pa.array([1e14, 1e15, 2.0**53 - 1]), ["1" + 14 * "0", "1" + 15 * "0", str(2**53 - 1)]),
        (pa.array([-1e15, 1e-7, 36.5, None]), ["-1000000000000000", "1e-7", "36.5", None]),
        (pa.array([16777215.0], pa.float32()), ["16777215"]),
        (pa.array(np.array([1.5, 2048], np.float16)), ["1.5", "2048"]),
        (pa.array([D(17850), None], pa.decimal128(38, 0)), ["17850", None]),
        (pa.array([D(10**30)], pa.decimal128(38, 0)), ["1" + 30 * "0"]),
        (pa.array([D("17850.00"), D("1.50")], pa.decimal128(10, 2)), ["17850", "1.5"]),
        (pa.array([b"a", "Ж".encode()], pa.large_binary()), ["a", "Ж"]),
        (pa.array([b"ab", b"cd"], pa.binary(2)), ["ab", "cd"]),
        (pa.array([b"0123456789abcdef"], pa.binary(16)), ["0123456789abcdef"]),
        (pa.array([True, False]), ["true", "false"]),
        (pa.array([dt.datetime(2020, 1, 2)]).dictionary_encode(), ["2020-01-02 00:00:00.000000"]),
        (pa.nulls(2), [None, None]),
    ],
)
def test_ids_of_any_type_are_text(values: pa.Array, texts: list[str | None]) -> None:
    assert text(values) == texts


@given(st.lists(st.one_of(st.none(), st.uuids()), max_size=20), st.booleans())
def test_16_bytes_are_a_uuid(ids: list[uuid.UUID | None], fixed: bool) -> None:
    raw = pa.array([i and i.bytes for i in ids], pa.binary(16) if fixed else pa.binary())
    printable = [all(0x20 <= byte < 0x7F for byte in i.bytes) for i in ids if i]
    utf8 = [i for i in ids if i and i.bytes.decode("utf-8", "ignore").encode() == i.bytes]
    if printable and (all(printable) or (not fixed and len(utf8) == len(printable))):
        return  # it might be text
    assert text(raw) == [i and str(i) for i in ids]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (pa.array([1.0, 2.0**53]), r"row 102: 9007199254740992\.0 is a double, whose digits"),
        (pa.array([2.0**24], pa.float32()), r"row 101: 16777216\.0 is a float, whose digits"),
        (pa.array([float("inf")]), r"row 101: inf is a double"),
        (
            pa.array([b"ok", b"\xff\xfe"]),
            r"row 102: b'\\xff\\xfe' are bytes that are no UTF-8 text",
        ),
        (pa.array([b"\xff" * 8], pa.binary(8)), r"UUIDs if each cell has 16 of them\. Write the c"),
        (pa.array([{"a": 1}]), r"holds struct<a: int64>, which cannot be read as string\. Correct"),
    ],
)
def test_what_cannot_be_text_is_named(values: pa.Array, message: str) -> None:
    with pytest.raises(DataError, match=rf"^log\.parquet, column 'item'.*{message}") as caught:
        text(values)
    assert "`nulls`" not in str(caught.value)  # it lists texts, and these are none


def test_numbers_may_have_blanks_and_words_for_nothing() -> None:
    column = pa.chunked_array([[" 34 ", "", "NA", " NA ", "1e3", None, "nan"]])
    found = as_numbers(column, pa.float32(), PLACE, ("NA",)).to_pylist()
    assert found == [34, None, None, None, 1000, None, None]
    with pytest.raises(
        DataError, match=r"row 103: 'NA' cannot be read as float.*`nulls` if it stands for no"
    ):
        as_numbers(column, pa.float32(), PLACE)
    decimals = pa.chunked_array([pa.array([D("1.25")], pa.decimal128(38, 2))])
    assert as_numbers(decimals, pa.float32(), PLACE).to_pylist() == [1.25]


def test_an_empty_text_never_is_a_value() -> None:
    column = pa.chunked_array([["", " ", "NA", "a"]])
    assert nullify(column, ()).to_pylist() == [None, " ", "NA", "a"]
    assert nullify(column, ("NA",)).to_pylist() == [None, " ", None, "a"]


def test_whole_decimals_of_many_digits_are_integers() -> None:
    """NUMERIC of BigQuery and NUMBER of Oracle have a scale, whatever they hold."""
    ids = pa.chunked_array([pa.array([D(0), D(12), None], pa.decimal128(38, 9))])
    assert as_text(ids, PLACE).to_pylist() == [0, 12, None]
    long = pa.chunked_array([pa.array([D(10**25), D(7)], pa.decimal128(38, 9))])
    assert as_text(long, PLACE).to_pylist() == ["1" + 25 * "0", "7"]
    some = pa.chunked_array([pa.array([D("1.500000000"), D("-0.000000001")], pa.decimal128(38, 9))])
    assert as_text(some, PLACE).to_pylist() == ["1.5", "-0.000000001"]
