"""One value in two spellings: which column settles, and what told values are spelt like."""

from __future__ import annotations

import pyarrow as pa
import pytest

from workflows.raw import spelling


def array(texts: list[str] | list[str | None]) -> pa.StringArray:
    return pa.array(texts, pa.string())


@pytest.mark.parametrize(
    ("texts", "canonical"),
    [
        (["True", "False"], ["true", "false"]),
        (["TRUE", "true"], ["true", "true"]),
        (["17850.0", "-3.0", "007.0"], ["17850", "-3", "007"]),
        (["1991.0", "nan"], ["1991", "nan"]),  # what stands for nothing does not count
        (["36.0", "36.5"], ["36", "36.5"]),
    ],
)
def test_a_column_of_booleans_or_floats_settles(texts: list[str], canonical: list[str]) -> None:
    found = spelling.unify([array(texts)], fractions=True)
    assert found is not None
    assert found[0].to_pylist() == canonical
    parts = spelling.unify([array([text]) for text in texts], fractions=True)
    assert parts is None or [part[0].as_py() for part in parts] == canonical


@pytest.mark.parametrize(
    "texts",
    [
        ["1.0", "1"],  # two versions, perhaps
        ["1.0", "1.1.2"],
        ["True", "Maybe"],
        ["1.00", "2.00"],  # prices as they are written
        ["1.5", "2.25"],
        ["true", "false"],
        ["v1.0"],
        [".0"],
        [],
    ],
)
def test_other_columns_stay_as_they_are(texts: list[str]) -> None:
    assert spelling.unify([array(texts)], fractions=True) is None


def test_ids_settle_only_if_all_are_whole() -> None:
    assert spelling.unify([array(["1.0", "1.5"])], fractions=False) is None


@pytest.mark.parametrize(
    ("told", "known", "spelt"),
    [
        (["True", None], ["true", "false"], ["true", None]),
        (["1991.0"], ["1991", "x"], ["1991"]),
        (["1.0", "2.0"], ["1", "1.0", "2"], ["1.0", "2"]),  # what is known stays
        (["True"], ["True", "Maybe"], ["True"]),
        (["9.0"], ["1", "2"], ["9"]),  # new, in a column of integers
        (["9.0"], ["1", "b"], ["9.0"]),
        (["1.5", "abc"], ["1"], ["1.5", "abc"]),
        (['="0017"', '="x"'], ["0017", "ab"], ["0017", '="x"']),  # of a spreadsheet
    ],
)
def test_told_values_are_spelt_as_the_column_is(
    told: list[str | None], known: list[str], spelt: list[str | None]
) -> None:
    assert spelling.respell(array(told), array(known)).to_pylist() == spelt


def test_a_float_that_is_too_long_is_found() -> None:
    assert spelling.find_inexact(array(["1.0", f"{2**53 - 1}.0"])) is None
    assert spelling.find_inexact(array(["1.0", f"{2**53}.0"])) == f"{2**53}.0"


def test_numbers_of_spreadsheets_are_told_from_codes() -> None:
    texts = ["9.78014E+12", "1e+16", "12E3", "1E5", "5E-3", "E+12", "9.78014E+1"]
    assert spelling.is_scientific(array(texts)).to_pylist() == [True, True, *[False] * 5]


def test_a_text_formula_is_told_from_other_texts_with_an_equals_sign() -> None:
    texts = ['="0017"', '=""', "=0017", '="a"&"b"', 'x="1"']
    assert spelling.is_formula(array(texts)).to_pylist() == [True, True, *[False] * 3]
