"""Delimited text: delimiters, quotes, escapes, and files without a header."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from test_sources import MOMENT, read, recipe

from workflows.etl.read import sources
from workflows.ground.errors import DataError, RecipeError


def refused(tmp_path: Path, text: str, message: str, **source: Any) -> None:
    (tmp_path / "log.csv").write_text(text, encoding="utf-8", newline="")
    with pytest.raises(DataError, match=message):
        read(tmp_path, source=source)


def rows(tmp_path: Path, text: str, **source: Any) -> list[dict[str, Any]]:
    (tmp_path / "log.dat").write_text(text, encoding="utf-8", newline="")
    return read(tmp_path, "log.dat", source=source)


# ── no row of names ─────────────────────────────────────────────────────────────────────


def test_columns_are_named_where_the_file_does_not(tmp_path: Path) -> None:
    found = rows(tmp_path, "u1,x,7\nu2,y,8\n", columns=["user", "item", "when"])
    assert found == [
        {"user": "u1", "item": "x", "when": 7},
        {"user": "u2", "item": "y", "when": 8},
    ]


def test_the_first_line_is_a_row_in_each_file(tmp_path: Path) -> None:
    for n in range(3):
        (tmp_path / f"log-{n}.csv").write_text(f"{n},{n}\n", encoding="utf-8")
    found = read(tmp_path, "log-*.csv", source={"columns": ["user", "item"]})
    assert [row["user"] for row in found] == ["0", "1", "2"]


def test_a_row_of_names_beside_columns_is_refused(tmp_path: Path) -> None:
    message = r"log\.csv begins with a row of names, and .* Leave `columns:` out"
    refused(tmp_path, "User,item\nu,i\n", message, columns=["user", "item"])


def test_another_number_of_columns_is_refused(tmp_path: Path) -> None:
    message = (
        r"the first row has 3 cells, and the source's `columns:` names 2: 'u', 'i', '7'\. Name"
    )
    refused(tmp_path, "u,i,7\n", message, columns=["user", "item"])


@pytest.mark.parametrize(
    ("first", "rename"),
    [
        ("u00,2020-09-13T12:26:40Z,i005", {"u00": "user", "2020-09-13T12:26:40Z": "when"}),
        ("u00,1600000000,i005", {"u00": "user", "1600000000": "when"}),
        ("u00,7,1193", {"u00": "user", "1193": "item"}),
        ("u01,7,i1", {"u01": "user", "i1": "item"}),  # u01 comes again
    ],
)
def test_data_is_not_taken_for_names(tmp_path: Path, first: str, rename: dict[str, str]) -> None:
    text = f"{first}\nu01,2020-09-14T12:26:40Z,i006\n"
    message = r"log\.csv: the first row is read as the names of the columns, but looks like data"
    refused(tmp_path, text, message, rename=rename)


def test_names_that_are_places_are_names(tmp_path: Path) -> None:
    rename = {"0": "user", "1": "item", "2": "when"}
    found = rows(tmp_path, "0,1,2\n0,1,7\n", rename=rename, format="csv")
    assert found == [{"user": "0", "item": "1", "when": 7}]


def test_data_is_not_taken_for_names_in_folders_that_tell_columns(tmp_path: Path) -> None:
    (tmp_path / "price=1").mkdir()
    (tmp_path / "price=1" / "log.csv").write_text("7,2020-01-01\n8,2020-01-01\n", encoding="utf-8")
    with pytest.raises(DataError, match="the first row is read as the names of the columns"):
        read(tmp_path, "*/*.csv", source={"rename": {"7": "user"}})


# ── delimiters ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("delimiter", ["::", ";", "|", "\t", "\x01", "¦", " - ", ":::"])
def test_any_delimiter(tmp_path: Path, delimiter: str) -> None:
    lines = [["user", "item", "price"], ["u", 'x" "y', "1"], ["v", "a,b", "2"]]
    text = "\r\n".join(delimiter.join(line) for line in lines)
    assert rows(tmp_path, text, delimiter=delimiter) == [
        {"user": "u", "item": 'x" "y', "price": 1},
        {"user": "v", "item": "a,b", "price": 2},
    ]


def test_the_character_that_stands_for_a_long_delimiter_may_be_in_a_cell(tmp_path: Path) -> None:
    found = rows(tmp_path, "u::a\x1fb\nv::c\n", delimiter="::", columns=["user", "item"])
    assert [row["item"] for row in found] == ["a\x1fb", "c"]


def test_a_row_with_another_number_of_cells_is_shown_as_it_is(tmp_path: Path) -> None:
    message = r"row 2, has 3 fields where 2 are expected: 'v::i::j'"
    refused(tmp_path, "u::i\nv::i::j\n", message, delimiter="::", columns=["user", "item"])


def test_a_likely_delimiter_is_told(tmp_path: Path) -> None:
    refused(tmp_path, "user;item\nu;i\n", r"`delimiter:` .* The delimiter seems to be ';'")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"delimiter": "\\t"}, "a tab is written in double quotes"),
        ({"delimiter": "a\nb"}, "may have no line end"),
        ({"delimiter": "::", "quote": "'"}, "quote and escape go with a delimiter of one"),
        ({"delimiter": ";", "quote": ";"}, "delimiter, quote and escape must differ"),
        ({"quote": "''"}, r"Expected `str` matching regex"),
        ({"encoding": "latin-17"}, "which Python does not know as an encoding of text"),
        ({"encoding": "base64"}, "which Python does not know as an encoding of text"),
        ({"columns": ["user", "user"]}, "columns names 'user' twice"),
        ({"columns": []}, "length >= 1"),
        ({"format": "parquet", "quote": ""}, "quote is for text files, and format"),
        ({"format": "jsonl", "delimiter": ";"}, "delimiter is for csv and tsv"),
        ({"separator": "|"}, "separator goes with `explode`"),
        ({"files": "s3://bucket/*.csv"}, "an address. Raw files are read from a disk: copy them"),
    ],
)
def test_settings_that_cannot_be_are_refused(source: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe(source=source)


# ── quotes ──────────────────────────────────────────────────────────────────────────────


def test_a_backslash_before_a_quote(tmp_path: Path) -> None:
    text = '"user";"item"\n"u";"say \\"hi\\"; now"\n"v";"C:\\\\"\n"w";"a ""b"""\n'
    found = rows(tmp_path, text, delimiter=";", escape="\\")
    assert [row["item"] for row in found] == ['say "hi"; now', "C:\\", 'a "b"']


def test_other_quotes_and_none(tmp_path: Path) -> None:
    text = "user,item\nu,'a,b'\n"
    assert rows(tmp_path, text, quote="'")[0]["item"] == "a,b"
    assert rows(tmp_path, 'user,item\nu,"a" b\n', quote="", format="csv")[0]["item"] == '"a" b'
    assert rows(tmp_path, 'user\titem\nu\t"a\tb"\n', format="tsv", quote='"')[0]["item"] == "a\tb"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        # Book-Crossing, commas in the place of semicolons
        (
            'user,item\nu,"a \\"b\\""\n',
            r"log\.csv, column 'item', row 1: text follows the closing quote of a cell: "
            r".*set the source's `escape: '\\'`",
        ),
        # the closing quote of row 2 is missing: rows 2 and 3 would be one
        (
            'user,item\nu,"a"\nv,"b\nw,"c"\n',
            r"log\.csv, column 'item', row 2: text follows .*'\"b\\nw,\"c\"'\. Either an "
            r"earlier quote is not closed, so that rows would be lost",
        ),
        ('user,item\nu,"a" \n', r"column 'item', row 1: text follows"),
        ('"user" ,item\nu,a\n', r"row 0: text follows"),
        (
            'user,item\n\n\nu,"a\n',
            r"column 'item', row 1: a quote is opened and never closed: 'a\\n'",
        ),
    ],
)
def test_text_behind_a_closing_quote_is_refused(tmp_path: Path, text: str, message: str) -> None:
    refused(tmp_path, text, message)
    refused(tmp_path, text.replace("\n", "\r\n"), message.replace(r"\\n", r"\\r\\n"))


def test_a_quote_far_down_is_numbered(tmp_path: Path) -> None:
    lines = [f'u{n},"{n}",padding so that the file has several blocks' for n in range(60_000)]
    lines[51_000] = 'u,"x" y,z'
    (tmp_path / "log.csv").write_text("user,item,junk\n" + "\n".join(lines), encoding="utf-8")
    with pytest.raises(DataError, match=r"log\.csv, column 'item', row 51001: text follows"):
        read(tmp_path)


def test_cells_that_look_like_rows_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # one closing and one opening quote are missing: the parser sees one cell of three lines
    text = 'user,item,tags\nu,"a\nv,b,x\nw,c",y\nz,"5 ""inch""",z\n'
    with caplog.at_level(logging.WARNING):
        assert len(rows(tmp_path, text, format="csv")) == 2
    (record,) = caplog.records
    assert "1 quoted cells span several lines that look like rows" in record.message
    assert "the first is column 'item', row 1." in record.message


@pytest.mark.parametrize(
    "text", ['user,item\nu,"a\nb"\nv,"c\nd, e, f"\n', 'user,item\n\n\nu,"a"\n']
)
def test_texts_of_several_lines_are_nothing_odd(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        rows(tmp_path, text, format="csv")
    assert not caplog.records


@pytest.mark.parametrize("row", ["\xff,i,more", "u,\xff"])
def test_a_row_that_is_neither_text_nor_whole_is_named(tmp_path: Path, row: str) -> None:
    (tmp_path / "log.csv").write_bytes(f"user,item\nu,i\n{row}\n".encode("latin-1"))
    with pytest.raises(
        DataError, match=r"log\.csv, line 3: the byte b'\\xff' is not valid in UTF-8"
    ):
        read(tmp_path)


@pytest.mark.parametrize("odd", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1e"])
def test_only_three_line_ends_count(tmp_path: Path, odd: str) -> None:
    text = f"user,item\nu,a {odd}b\nv,c{odd} d\n"
    assert [row["item"] for row in rows(tmp_path, text, format="csv")] == [
        f"a {odd}b",
        f"c{odd} d",
    ]


# ── parts without rows ──────────────────────────────────────────────────────────────────


def test_parts_without_rows_are_passed_over_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parts = ["user,item\nu,i\n", "", "user,item\n", "\n\n", "user,item\nv,i\n", "item"]
    for n, text in enumerate(parts):
        (tmp_path / f"log-{n}.csv").write_text(text, encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        assert [row["user"] for row in read(tmp_path, "log-*.csv")] == ["u", "v"]
    (record,) = caplog.records
    assert "source 'log': 4 of 6 files have no rows and are skipped" in record.message
    assert all(f"log-{n}.csv" in record.message for n in (1, 2, 3, 5))
    asked = recipe("log-*.csv")
    assert [path.name for path in sources.read(asked, tmp_path).files["log"]] == [
        "log-0.csv",
        "log-4.csv",
    ]


def test_times_of_a_file_without_names(tmp_path: Path) -> None:
    found = rows(
        tmp_path, "u|i|2021-03-04 05:06:07\n", delimiter="|", columns=["user", "item", "when"]
    )
    assert found[0]["when"] == MOMENT


# ── files that were put together ────────────────────────────────────────────────────────


def test_names_that_come_again_within_a_file_are_refused(tmp_path: Path) -> None:
    rows = "".join(f"u{n},i{n}\n" for n in range(3))
    refused(
        tmp_path,
        f"user,item\n{rows}user,item\n{rows}",
        r"log\.csv, row 4 has the names of the columns again",
    )


def test_a_cell_that_is_called_like_its_column_is_data(tmp_path: Path) -> None:
    assert len(rows(tmp_path, "user,item\nuser,i1\nu2,item\n", format="csv")) == 2


def test_a_row_of_other_names_beside_columns_is_refused(tmp_path: Path) -> None:
    refused(
        tmp_path,
        "userId,movieId\nu1,i1\nu2,i2\n",
        "the first row looks like the names of the columns, 'userId', 'movieId', and would be",
        columns=["user", "item"],
    )
    found = rows(tmp_path, "Madrid,i1\nsolid,Time\n", format="csv", columns=["user", "item"])
    assert [row["user"] for row in found] == ["Madrid", "solid"]


@pytest.mark.parametrize(
    ("written", "said", "told"),
    [
        ("utf-8", "latin-1", "and the file begins as UTF-8"),
        ("cp1252", "latin-1", "Set it to cp1252"),
        ("latin-1", "latin-1", ""),
        ("cp1252", "cp1252", ""),
        ("gb18030", "gb18030", ""),
        ("utf-16", "utf-16", ""),
    ],
)
def test_what_speaks_against_the_encoding_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, written: str, said: str, told: str
) -> None:
    letters = "“Größe”" if written == "cp1252" else "Größe"
    text = f"user,item\nu1,{letters}\nu2,x\n"
    (tmp_path / "log.csv").write_bytes(text.encode(written))
    with caplog.at_level(logging.WARNING):
        read(tmp_path, source={"encoding": said})
    assert [told in message for message in caplog.messages] == [True] * bool(told)
