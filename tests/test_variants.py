"""Similar spellings and cut lists are reported once, with a count, and kept unchanged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_value_warnings import RAW, read

LISTS = {**RAW["features"], "tags": {"role": "item", "kind": "categories", "separator": ","}}


def write(folder: Path, name: str, header: str, rows: list[str]) -> None:
    (folder / name).write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")


def cities(folder: Path, caplog: pytest.LogCaptureFixture, values: list[str]) -> list[str]:
    rows = [f"u{n % 30},i{n % 9},{city},{1_600_000_000 + n}" for n, city in enumerate(values)]
    write(folder, "log.csv", "user,item,city,ts", rows)
    table, told = read(folder, caplog)
    assert table["city"].to_pylist() == values  # nothing is merged
    return told


@pytest.mark.parametrize(
    ("twin", "cause", "shown"),
    [
        ("Oslo\u200b", "invisible characters", r"'Oslo' and 'Oslo\u200b'"),
        ("\ufeffOslo", "invisible characters", r"'Oslo' and '\ufeffOslo'"),
        ("'Oslo'", "quotes around them", """'Oslo' and "'Oslo'\""""),
        ("OSLO", "capital letters", "'Oslo' and 'OSLO'"),
    ],
)
def test_one_value_in_two_spellings_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, twin: str, cause: str, shown: str
) -> None:
    (told,) = cities(tmp_path, caplog, ["Oslo", twin, "Bergen", "Rome"] * 10)
    said = f"column 'city' of log has 1 values in spellings that differ only by {cause}"
    assert told.startswith(said)
    assert f"such as {shown}." in told


def test_composed_accents_and_zeros(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (told,) = cities(tmp_path, caplog, ["caf\u00e9", "cafe\u0301", "x"] * 10)
    assert r"such as 'caf\xe9' and 'cafe\u0301'" in told
    (told,) = cities(tmp_path, caplog, ["007", "7", "8"] * 10)
    assert "only by zeros before numbers, such as '007' and '7'" in told


def test_what_has_no_twin_is_nothing_odd(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert not cities(tmp_path, caplog, ["\u200bOslo", "'Rome'", "PARIS", "007", "Größe"] * 8)


def test_chance_twins_among_many_are_not_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = [f"v{n}" for n in range(2_000)]
    assert not cities(tmp_path, caplog, [*values, "V1"])
    (told,) = cities(tmp_path, caplog, [*values, *(f"V{n}" for n in range(900))])
    assert "has 900 values in spellings that differ only by capital letters" in told


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (["array(['A'; 'B'])"], "with one bracket of a pair, such as \"array(['A'\""),
        (["WrappedArray(A; B)"], "with one bracket of a pair"),
        (["['A'; 'B", "C;D"], "with one bracket of a pair, such as \"['A'\""),
        (["'A';'B'"], "2 values with quotes around them, such as \"'A'\""),
        (["A|B", "B|C"], "no text has the separator ',', and 2 of 2 have '|', such as 'A|B'"),
        (["A (live); B", ":) ; C", "A|B;C"], ""),
    ],
)
def test_lists_that_were_cut_in_wrong_places_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, cells: list[str], words: str
) -> None:
    rows = [
        f"u{n % 7}\ti{n % 9}\tx\t{1_600_000_000 + n}\t{cells[n % len(cells)].replace(';', ',')}"
        for n in range(40)
    ]
    write(tmp_path, "log.tsv", "user\titem\tcity\tts\ttags", rows)
    _, told = read(tmp_path, caplog, features=LISTS)
    assert len(told) == bool(words)
    assert not words or words in told[0]


def test_one_user_with_most_rows_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def logged(users: list[str]) -> list[str]:
        rows = [f"{user},i{n % 9},x,{1_600_000_000 + n}" for n, user in enumerate(users)]
        write(tmp_path, "log.csv", "user,item,city,ts", rows)
        return read(tmp_path, caplog)[1]

    known: list[Any] = [f"u{n % 20}" for n in range(60)]
    assert not logged([*known, *["u1"] * 3])
    (told,) = logged([*known, *["0"] * 15])
    assert "column 'user': '0' has 15 of 75 rows, and no other user has more than 3" in told


def test_a_column_without_any_value_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [f"u{n % 7},i{n % 9},,{1_600_000_000 + n}" for n in range(40)]
    write(tmp_path, "log.csv", "user,item,city,ts", rows)
    (told,) = read(tmp_path, caplog)[1]
    assert told.startswith("source 'log' has no value at all in 'city'")


def test_ids_that_are_lists_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [f"u{n % 7},i{n}|i{n + 1}|i2,x,{1_600_000_000 + n}" for n in range(40)]
    write(tmp_path, "log.csv", "user,item,city,ts", rows)
    (told,) = read(tmp_path, caplog)[1]
    assert "column 'item' of log: 40 of 40 ids have '|' more than once, such as 'i0|i1|i2'" in told
    write(tmp_path, "log.csv", "user,item,city,ts", [row.replace("|i2", "") for row in rows])
    assert not read(tmp_path, caplog)[1]
