"""Raw files as they come: each fault is named, counted, or known to be none.

One table: what the fault is, how to make it in a folder that has the tiny world and the tiny
Ali-CCP, and what comes of it when etl is run:

    text    the message of the DataError, a regular expression
    dict    cause → how many rows more are dropped
    SAME    the tables are those of the files without fault
"""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import io
import os
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from impressions import Impressions
from stages import DEVICE
from world import World

from workflows.etl import etl
from workflows.etl.read import sources
from workflows.ground.errors import DataError
from workflows.recipe import Recipe
from workflows.stages.store import Store

Break = Callable[[Path], None]
SAME = "the same"


@dataclass(frozen=True)
class Case:
    """A fault: its name, how to make it, what comes of it, and what the recipe has to say."""

    name: str
    make: Break
    outcome: str | dict[str, int]
    set: tuple[str, ...] = ()
    aliccp: bool = False


# ── how to break a file ─────────────────────────────────────────────────────────────────


def content(name: str, change: Callable[[bytes], bytes]) -> Break:
    """Change all bytes of a file."""

    def make(folder: Path) -> None:
        path = folder / name
        path.write_bytes(change(path.read_bytes()))

    return make


def row(name: str, number: int, change: Callable[[bytes], bytes]) -> Break:
    """Change a row of a file: 0 is the header, or the first row of Ali-CCP."""

    def one(data: bytes) -> bytes:
        lines = data.split(b"\n")
        lines[number] = change(lines[number])
        return b"\n".join(lines)

    return content(name, one)


def cell(name: str, number: int, column: int, text: str) -> Break:
    """Put raw text in the place of a cell."""

    def change(line: bytes) -> bytes:
        (cells,) = csv.reader([line.decode()])
        out = io.StringIO()
        csv.writer(out, lineterminator="").writerow(
            ["☃" if n == column else c for n, c in enumerate(cells)]
        )
        return out.getvalue().replace("☃", text).encode()

    return row(name, number, change)


def replaced(name: str, number: int, old: bytes, new: bytes) -> Break:
    return row(name, number, lambda line: line.replace(old, new, 1))


def in_turn(*breaks: Break) -> Break:
    def make(folder: Path) -> None:
        for one in breaks:
            one(folder)

    return make


def moved(old: str, new: str) -> Break:
    def make(folder: Path) -> None:
        (folder / old).rename(folder / new)

    return make


def unchanged(table: pa.Table) -> pa.Table:
    return table


def gzipped(change: Callable[[bytes], bytes]) -> Break:
    """Write log.csv.gz, and change its bytes."""

    def make(folder: Path) -> None:
        packed = gzip.compress((folder / "log.csv").read_bytes())
        (folder / "log.csv.gz").write_bytes(change(packed))

    return make


def parquet(
    change: Callable[[pa.Table], pa.Table], *, also: Callable[[bytes], bytes] | None = None
) -> Break:
    """Write log.parquet, changed as a table and then as bytes."""

    def make(folder: Path) -> None:
        types = dict.fromkeys(("user_id", "item_id", "shop"), pa.string())
        table = pa.csv.read_csv(
            folder / "log.csv",
            convert_options=pa.csv.ConvertOptions(column_types=types, strings_can_be_null=True),
        )
        pq.write_table(change(table), folder / "log.parquet")
        if also:
            content("log.parquet", also)(folder)

    return make


def with_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    at = table.column_names.index(name)
    return table.set_column(at, name, values)


def in_two(folder: Path) -> None:
    """Write the log as two parquet files with other types of the same columns."""
    parquet(unchanged)(folder)
    table = pq.read_table(folder / "log.parquet")
    ends = [table.slice(0, 80), table.slice(80)]
    times = pc.cast(pc.multiply(ends[1]["when"], 1_000), pa.timestamp("ms"))
    ends[1] = with_column(ends[1], "when", times)
    ends[1] = with_column(ends[1], "shop", ends[1]["shop"].dictionary_encode())
    ends[1] = with_column(ends[1], "rating", pc.cast(ends[1]["rating"], pa.float64()))
    for n, end in enumerate(ends):
        pq.write_table(end, folder / f"half-{n}.parquet")


def without_shop(folder: Path) -> None:
    path = folder / "half-1.parquet"
    pq.write_table(pq.read_table(path).drop(["shop"]), path)


def as_dates(form: str) -> Callable[[bytes], bytes]:
    """Return a change that writes the times of log.csv as text."""

    def one(line: bytes) -> bytes:
        start, comma, seconds = line.rpartition(b",")
        if not seconds.isdigit():
            return line
        moment = dt.datetime.fromtimestamp(int(seconds), dt.timezone.utc)
        return start + comma + moment.strftime(form).encode()

    return lambda data: b"\n".join(map(one, data.split(b"\n")))


def each_row(change: Callable[[bytes], bytes], *, start: int = 0) -> Callable[[bytes], bytes]:
    def all_of_them(data: bytes) -> bytes:
        lines = data.splitlines()
        return b"\n".join([*lines[:start], *map(change, lines[start:])]) + b"\n"

    return all_of_them


def instead(name: str, make: Callable[[Path], object]) -> Break:
    """Remove a file, and make something else of its name."""

    def one(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return one


def zipped(data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("log.csv", data)
    return out.getvalue()


def as_python(match: re.Match[bytes]) -> bytes:
    """Write a cell of parts as Python writes a list."""
    return b',"%s"\n' % repr([part.decode() for part in match[1].split(b"|") if part]).encode()


def set_log(pattern: str) -> tuple[str, ...]:
    return (f"sources.log={{files: '{pattern}'}}",)


GZ, PARQUET = set_log("log.csv.gz"), set_log("log.parquet")

CASES = [
    # ── text: what it is
    Case(
        "semicolons for commas",
        content("log.csv", lambda data: data.replace(b",", b";")),
        r"log\.csv has none of the columns that the recipe names; it has: user_id;item_id;.*`form",
    ),
    Case(
        "tabs for commas",
        content("log.csv", lambda data: data.replace(b",", b"\t")),
        r"log\.csv has none of the columns that the recipe names.* delimiter seems to be '\\t'",
    ),
    Case("UTF-8 with a mark", content("log.csv", lambda data: b"\xef\xbb\xbf" + data), SAME),
    Case(
        "UTF-16",
        content("log.csv", lambda data: data.decode().encode("utf-16")),
        r"log\.csv is UTF-16, so it cannot be read as csv in utf-8\. Set the source's `encod",
    ),
    Case(
        "UTF-16 without a mark",
        content("log.csv", lambda data: data.decode().encode("utf-16-le")),
        r"log\.csv: the first row is not UTF-8: 'u\\x00s.* Set the source's `encoding:`, such as",
    ),
    Case(
        "latin-1 in a cell",
        content("people.csv", lambda data: data.replace("Köln".encode(), "Köln".encode("latin-1"))),
        r"people\.csv, line 2: the byte b'\\xf6' is not valid in UTF-8\. Set the source's",
    ),
    Case(
        "latin-1 in the header",
        replaced("people.csv", 0, b"city", b"gr\xf6\xdfe"),
        r"people\.csv: the first row is not UTF-8: .* Set the source's `encoding:`, such as",
    ),
    Case(
        "a zip archive",
        content("log.csv", zipped),
        r"log\.csv is a zip archive or a spreadsheet, so it cannot be read as csv\. Unpack or exp",
    ),
    Case("gzip without its ending", content("log.csv", gzip.compress), SAME),
    Case(
        "parquet by the name of csv",
        in_turn(parquet(unchanged), moved("log.parquet", "log.csv")),
        r"log\.csv is parquet, so it cannot be read as csv\. Set the source's `format: parquet`",
    ),
    Case("CRLF", content("log.csv", lambda data: data.replace(b"\n", b"\r\n")), SAME),
    Case("CR", content("log.csv", lambda data: data.replace(b"\n", b"\r")), SAME),
    Case("no last line end", content("log.csv", bytes.rstrip), SAME),
    Case(
        "blank lines", content("log.csv", lambda data: b"\n" + data.replace(b"\n", b"\n\n")), SAME
    ),
    # ── text: its header
    Case(
        "no header",
        content("log.csv", lambda data: data.partition(b"\n")[2]),
        r"log\.csv has none of the columns.* it has: 0108775015, .*list the columns in the",
    ),
    Case(
        "another name",
        replaced("log.csv", 0, b"item_id", b"itemid"),
        r"\(log\.csv\) has no column 'item_id' \(did you mean 'itemid'\?\)\. Correct the name",
    ),
    Case(
        "white space in the header",
        replaced("log.csv", 0, b"item_id", b" item_id"),
        r"\(log\.csv\) has no column 'item_id' \(did you mean ' item_id'\?\)\. .*`rename:`",
    ),
    Case(
        "a name twice",
        replaced("log.csv", 0, b"rating", b"item_id"),
        r"log\.csv has more than one column 'item_id', after `rename:`\. Rename one",
    ),
    Case(
        "a name twice that nobody wants",
        content("log.csv", each_row(lambda line: line + b",junk,junk")),
        SAME,
    ),
    Case("nothing", content("log.csv", lambda _: b""), r"log\.csv is empty\. Put data there"),
    Case(
        "only blank lines", content("log.csv", lambda _: b"\n \n"), r"log\.csv is empty\. Put data"
    ),
    Case(
        "only a header",
        content("log.csv", lambda data: data.partition(b"\n")[0] + b"\n"),
        r"log\.csv has no rows\. Put data there, or another file\.",
    ),
    Case(
        "only a header, without a line end",
        content("log.csv", lambda data: data.partition(b"\n")[0]),
        r"log\.csv has no rows\. Put data there, or another file\.",
    ),
    # ── text: its rows
    Case(
        "a short row",
        row("log.csv", 7, lambda line: line.rpartition(b",")[0]),
        r"log\.csv has 1 unparsable row; the first, row 7, has 4 fields where 5 are expected: '.*",
    ),
    Case(
        "a long row",
        row("log.csv", 7, lambda line: line + b",more"),
        r"log\.csv has 1 unparsable row; the first, row 7, has 6 fields where 5 are expected: '.*",
    ),
    Case(
        "a comma at the end of all rows but the header",
        content("log.csv", each_row(lambda line: line + b",", start=1)),
        r"log\.csv has 163 unparsable rows; the first, row 1, has 6 fields where 5 are expected",
    ),
    Case(
        "a comma at the end of all rows",
        content("log.csv", each_row(lambda line: line + b",")),
        SAME,
    ),
    Case(
        "a quote that is never closed",
        cell("log.csv", 7, 3, '"web'),
        r"log\.csv, column 'shop', row 7: text follows the closing quote of a cell: '\"web",
    ),
    Case(
        "a quote in the last column that is closed rows later",
        cell("people.csv", 3, 2, '"Oslo'),
        r"people\.csv, column 'city', row 3: text follows the closing quote of a cell: '\"O",
    ),
    Case(
        "a quote in the last column that is never closed",
        cell("films.csv", 3, 3, '"a'),
        r"films\.csv, column 'genres', row 3: a quote is opened and never closed: 'a\\n003,.*Clos",
    ),
    Case(
        "a quote in a last column that nobody wants",
        in_turn(
            content("films.csv", each_row(lambda line: line + b",junk")),
            cell("films.csv", 3, 4, '"junk'),
        ),
        r"films\.csv, column 'junk', row 3: a quote is opened and never closed: 'junk\\n003,.*Clo",
    ),
    Case(
        "a NUL",
        cell("log.csv", 7, 3, "we\0b"),
        r"log\.csv, line 8 has a NUL byte \(byte \d+ of the text\).* Fetch the file again",
    ),
    Case(
        "a very long row",
        cell("log.csv", 7, 3, "x" * (2 * sources.BLOCK + 1)),
        r"log\.csv: row \d+, or one soon after it, is longer than 8,388,608 bytes\. Look for a qu",
    ),
    # ── gzip
    Case("gzip", gzipped(bytes), SAME, set=GZ),
    Case(
        "gzip in two members",
        gzipped(
            lambda packed: b"".join(map(gzip.compress, gzip.decompress(packed).partition(b"\n")))
        ),
        SAME,
        set=GZ,
    ),
    Case(
        "gzip cut off",
        gzipped(lambda packed: packed[: len(packed) // 2]),
        r"log\.csv\.gz cannot be read as csv: Truncated compressed stream\. Check that the file",
        set=GZ,
    ),
    Case("no gzip, by the name of one", gzipped(gzip.decompress), SAME, set=GZ),
    Case(
        "gzip that does not add up",
        gzipped(lambda packed: packed[:-8] + b"\0\1\2\3" + packed[-4:]),
        r"log\.csv\.gz cannot be read as csv: zlib .*incorrect data check\. Check that the file",
        set=GZ,
    ),
    Case("gzip of nothing", gzipped(lambda _: b""), r"log\.csv\.gz is empty\. Put data", set=GZ),
    # ── parquet
    Case("parquet", parquet(unchanged), SAME, set=PARQUET),
    Case(
        "parquet cut off",
        parquet(unchanged, also=lambda data: data[: len(data) // 2]),
        r"log\.parquet cannot be read as parquet: .*magic bytes.*Correct the file, or set the",
        set=PARQUET,
    ),
    Case(
        "parquet with a damaged page",
        parquet(unchanged, also=lambda data: data[:4] + b"\xff" * 300 + data[304:]),
        r"log\.parquet cannot be read as parquet: .*Correct the file",
        set=PARQUET,
    ),
    Case(
        "text by the name of parquet",
        parquet(unchanged, also=lambda _: b"user_id,item_id\n1,2\n"),
        r"log\.parquet cannot be read as parquet: .*magic bytes.*`format:` if it is not parquet",
        set=PARQUET,
    ),
    Case(
        "parquet without rows",
        parquet(lambda table: table.slice(0, 0)),
        r"log\.parquet has no rows\. Put data there, or another file\.",
        set=PARQUET,
    ),
    Case(
        "parquet of text that is no UTF-8",
        parquet(
            lambda t: with_column(t, "shop", t["shop"].cast(pa.binary()).cast(pa.string())),
            also=lambda data: data.replace(b"web", b"w\xe9b"),
        ),
        r"log\.parquet, column 'shop' holds a value that is not of its type .*Invalid UTF8",
        set=PARQUET,
    ),
    Case(
        "structs for ids",
        parquet(lambda t: with_column(t, "item_id", pa.array([{"a": 1}] * len(t)))),
        r"log\.parquet, column 'item_id' holds struct<.*>, which cannot be read as string\. Corre",
        set=PARQUET,
    ),
    Case(
        "a map for a context",
        parquet(
            lambda t: with_column(
                t, "shop", pa.array([[("a", 1)]] * len(t), pa.map_(pa.string(), pa.int8()))
            )
        ),
        r"log\.parquet, column 'shop' holds map<.*>, which cannot be read as string\. Correct the",
        set=PARQUET,
    ),
    Case(
        "durations for times",
        parquet(lambda t: with_column(t, "when", pc.cast(t["when"], pa.duration("s")))),
        r"log\.parquet, column 'when' holds duration\[s\], which cannot be read as .*Correct the ",
        set=PARQUET,
    ),
    Case(
        "ids that went through float64",
        parquet(lambda t: with_column(t, "item_id", pa.array([float(2**53)] * len(t)))),
        r"log\.parquet, column 'item_id', row 1: 9007199254740992.0 is a double, whose digits are",
        set=PARQUET,
    ),
    Case("files of other types", in_two, SAME, set=set_log("half-*.parquet")),
    Case(
        "files of other columns",
        in_turn(in_two, without_shop),
        r"half-1\.parquet has no column 'shop', which another file of the same source has\. Make",
        set=set_log("half-*.parquet"),
    ),
    # ── numbers
    Case(
        "text in a number",
        cell("people.csv", 3, 1, "old"),
        r"people\.csv, column 'age', row 3: 'old' cannot be read as float\. Correct it, or list",
    ),
    Case("NaN in the place of no number", cell("people.csv", 2, 1, "nan"), SAME),
    Case(
        "an infinite number",
        cell("people.csv", 3, 1, "-inf"),
        r"people\.csv, column 'age', row 3: the number is infinite, or too large for a float32\.",
    ),
    Case(
        "a number too large",
        cell("people.csv", 3, 1, "1e39"),
        r"people\.csv, column 'age', row 3: the number is infinite, or too large for a float32\.",
    ),
    Case("white space around a number", cell("people.csv", 3, 1, " 24 "), SAME),
    # ── times
    Case(
        "a time beyond 64 bits",
        cell("log.csv", 7, 4, "9" * 20),
        r"log\.csv, column 'when', row 7: '9{20}' cannot be read as int64\. Correct it",
    ),
    Case(
        "milliseconds for seconds",
        content("log.csv", lambda data: re.sub(rb",(88\d{7})", rb",\g<1>000", data)),
        r"log\.csv, column 'when', row 1: '880000000000' lies outside the years 1 to 9999\. Set f",
    ),
    Case(
        "a time before the year 1",
        cell("log.csv", 7, 4, "-99999999999"),
        r"log\.csv, column 'when', row 7: '-99999999999' lies outside the years 1 to 9999\. Set",
    ),
    Case(
        "dates to the nanosecond",
        content("log.csv", as_dates("%Y-%m-%d %H:%M:%S.123456789")),
        SAME,
    ),
    Case("dates without a zone are UTC", content("log.csv", as_dates("%Y-%m-%dT%H:%M:%S")), SAME),
    Case("dates with a zone", content("log.csv", as_dates("%Y-%m-%d %H:%M:%SZ")), SAME),
    Case("dates that end in UTC", content("log.csv", as_dates("%Y-%m-%d %H:%M:%S UTC")), SAME),
    Case(
        "dates that are not ISO 8601",
        content("log.csv", as_dates("%d/%m/%Y %H:%M")),
        r"log\.csv, column 'when', row 1: '\d\d/\d\d/\d{4} .*' cannot be read as timestamp\[us\]\.",
    ),
    Case(
        "a date without a zone among others",
        in_turn(
            content("log.csv", as_dates("%Y-%m-%dT%H:%M:%SZ")),
            cell("log.csv", 7, 4, "1997-11-20T12:00:00"),
        ),
        r"row 7: '1997-11-20T12:00:00' cannot be read as timestamp\[us, tz=UTC\]\. Expected ISO",
    ),
    Case(
        "a number among dates",
        in_turn(
            content("log.csv", as_dates("%Y-%m-%dT%H:%M:%SZ")),
            cell("log.csv", 7, 4, "880000000"),
        ),
        r"log\.csv, column 'when', row 7: '880000000' cannot be read as timestamp.* as in the",
    ),
    Case(
        "a date that is none",
        cell("log.csv", 7, 4, "1997-02-30"),
        r"log\.csv, column 'when', row 7: '1997-02-30' cannot be read as double\. Correct it",
    ),
    Case(
        "dates of another form, by the recipe's format",
        content("log.csv", as_dates("%m/%d/%Y %I:%M:%S %p")),
        SAME,
        set=("features.when={role: time, format: '%m/%d/%Y %I:%M:%S %p'}",),
    ),
    Case(
        "dates as whole numbers",
        content("log.csv", as_dates("%Y%m%d")),
        r"log\.csv, column 'when': the numbers run from 19971120 to 19971120\. As seconds since"
        r" 1970 they would be dates from 1970-08-20 .*set features\.when\.format to yyyymmdd\.",
    ),
    Case(
        "numbers that only count the rows",
        content("log.csv", lambda data: re.sub(rb",8800000(\d\d)", rb",\1", data)),
        r"log\.csv, column 'when': the numbers run from 0 to 13\. .*set features\.when\.unit to or",
    ),
    # ── lists
    Case(
        "blanks around the parts of lists",
        content("films.csv", lambda data: re.sub(rb"(?<=[a-z])\|", b" |  ", data)),
        SAME,
    ),
    Case(
        "lists written by Python",
        content(
            "films.csv", lambda data: re.sub(rb",([a-z](\|[a-z]|\|\|[a-z])*)\n", as_python, data)
        ),
        SAME,
    ),
    Case(
        "lists of objects",
        cell("films.csv", 3, 3, '"[{""id"": 1, ""name"": ""a""}]"'),
        r"films\.csv, column 'genres', row 3: '\[{\"id\": 1, .* holds objects or lists within a",
    ),
    Case(
        "lists in brackets without quotes",
        cell("films.csv", 3, 3, "[a|b]"),
        r"films\.csv, column 'genres', row 3: '\[a\|b\]' begins .* '\[a' would be a value\. Expe",
    ),
    # ── ids and look-ups
    Case(
        "ids of a spreadsheet",
        in_turn(*(cell("log.csv", n, 1, "9.78014E+12") for n in (7, 9, 11))),
        r"log\.csv, row 7, column 'item_id': '9\.78014E\+12' is an id in scientific notation; 3",
    ),
    Case(
        "bytes that are no text, and no UUIDs",
        parquet(lambda t: with_column(t, "shop", pa.array([b"\xff\xfe"] * len(t)))),
        r"log\.parquet, column 'shop', row 1: b'\\xff\\xfe' are bytes that are no UTF-8 text\. B",
        set=PARQUET,
    ),
    Case(
        "text stored as bytes",
        parquet(lambda t: with_column(t, "shop", pc.cast(t["shop"], pa.binary()))),
        SAME,
        set=PARQUET,
    ),
    Case(
        "times as decimals",
        parquet(lambda t: with_column(t, "when", pc.cast(t["when"], pa.decimal128(38, 0)))),
        SAME,
        set=PARQUET,
    ),
    Case("ids that are not there", cell("log.csv", 7, 0, ""), {"no user_id": 1}),
    Case("white space for an id is an id", cell("log.csv", 7, 3, " "), {"no user_id": 0}),
    Case("times that are not there", cell("log.csv", 7, 4, ""), {"no when": 1}),
    Case(
        "ids that no table has",
        cell("log.csv", 7, 0, "nobody"),
        {"user_id not in people": 1},
        set=(
            "join=[{table: people, key: user_id, on_missing: drop}, {table: films, key: item_id}]",
        ),
    ),
    Case(
        "a table's row without its id",
        cell("people.csv", 3, 0, ""),
        r"source 'people' \(people\.csv\): 1 rows have no 'user_id', the first is .*people\.csv, ",
    ),
    Case(
        "an id of a table twice",
        cell("people.csv", 3, 0, "0108775015"),
        r"1 ids of 'user_id' occur more than once, the first is '0108775015' \(2 times\)\. ",
    ),
    Case(
        "a table without its id",
        replaced("people.csv", 0, b"user_id", b"customer"),
        r"\(people\.csv\) has no column 'user_id'.*Correct the name in the recipe",
    ),
    # ── files
    Case(
        "no such file",
        lambda folder: (folder / "log.csv").unlink(),
        r"source 'log': no file matches 'log\.csv' in .*Put the raw files there, set `data:`",
    ),
    Case(
        "a glob without a match",
        lambda _: None,
        r"source 'log': no file matches 'clicks-\*\.csv' in .*Put the raw files there",
        set=set_log("clicks-*.csv"),
    ),
    Case(
        "a glob that is none",
        lambda _: None,
        r"source 'log': '\*\*\.csv' is not a file name or glob \(.*\)\. Correct `files:`",
        set=set_log("**.csv"),
    ),
    Case(
        "a folder by the name of a file",
        instead("log.csv", Path.mkdir),
        r"source 'log': .*log\.csv is a folder\. Name the files in it",
    ),
    Case(
        "a link to itself",
        instead("log.csv", lambda path: path.symlink_to(path)),
        r"source 'log': no file matches 'log\.csv' in .*It is a link to a file that does not",
    ),
    Case(
        "a link to itself, by a glob",
        instead("log.csv", lambda path: path.symlink_to(path)),
        r"log\.csv cannot be read as csv: .*Too many levels of symbolic links.*Check that the file",
        set=set_log("lo[g].csv"),
    ),
    Case(
        "a pipe",
        instead("log.csv", os.mkfifo),
        r"source 'log': .*log\.csv is not a regular file but a pipe or a device\. Write its",
    ),
    Case(
        "an ending that is no format",
        moved("log.csv", "log.dat"),
        r"log\.dat: the ending \.dat names no format\. Set the source's `format:` to csv",
        set=set_log("log.dat"),
    ),
]

#: The same of Ali-CCP's lines.
ALICCP = [
    Case(
        "a colon for the separator of ids",
        replaced("skeleton0.csv", 6, b"\x02", b":"),
        r"skeleton0\.csv, row 7: the features are not `field \\x02 id \\x03 value`, joined by \\x",
    ),
    Case(
        "separators in another order",
        replaced("skeleton0.csv", 6, b"\x03", b"\x02"),
        r"skeleton0\.csv, row 7: the features are not `field \\x02 id \\x03 value`.*Correct the",
    ),
    Case(
        "a space for the separator of features",
        replaced("common0.csv", 6, b"\x01", b" "),
        r"common0\.csv, row 7: the features are not `field \\x02 id \\x03 value`.*Correct the line",
    ),
    Case(
        "a line cut off",
        row("skeleton0.csv", 6, lambda line: line.rpartition(b"\x01")[0]),
        r"skeleton0\.csv, row 7: the line states '\d' features, and has \d\. It may ",
    ),
    Case(
        "a count that is no number",
        row("common0.csv", 6, lambda line: re.sub(rb",\d+,", b",many,", line, count=1)),
        r"common0\.csv, row 7: the line states 'many' features, and has \d+\.",
    ),
    Case(
        "a field that is none",
        replaced("skeleton0.csv", 6, b"205\x02", b"2O5\x02"),
        r"skeleton0\.csv, row 7: Ali-CCP has no field '2O5'\. Expected one of 101, .*Correct the",
    ),
    Case(
        "a feature without an id",
        row("skeleton0.csv", 6, lambda line: re.sub(rb"205\x02\d+", b"205\x02", line)),
        r"skeleton0\.csv, row 7: a feature of field 205 \(item_id\) has no id\. Correct the line",
    ),
    Case(
        "a value that is no number",
        row("common0.csv", 1, lambda line: re.sub(rb"\x03[^\x01]+", b"\x03much", line, count=1)),
        r"common0\.csv, row 2: the value of field .* is 'much'\. Expected a finite number;",
    ),
    Case(
        "a value that is infinite",
        row("common0.csv", 1, lambda line: re.sub(rb"\x03[^\x01]+", b"\x03inf", line, count=1)),
        r"common0\.csv, row 2: the value of field .* is 'inf'\. Expected a finite number; correct",
    ),
    Case(
        "common features that are nowhere",
        row("skeleton0.csv", 6, lambda line: re.sub(rb"\w+bec0ffee", b"elsewhere", line)),
        r"skeleton0\.csv, row 7: there are no common features 'elsewhere' .*Check that the",
    ),
    Case(
        "a name of common features twice",
        content("common0.csv", lambda data: data + data.partition(b"\n")[0] + b"\n"),
        r"common0\.csv, row 14: the common features '0bec0ffee' were defined before, in .*, row 1;",
    ),
    Case(
        "a count of another line",
        row("skeleton0.csv", 6, lambda line: re.sub(rb",\d,205", b",9,205", line)),
        r"skeleton0\.csv, row 7: the line states '9' features",
    ),
    Case(
        "two items on a line",
        row(
            "skeleton0.csv",
            6,
            lambda line: re.sub(
                rb",(\d),205",
                lambda m: b",%d,205\x02x\x031.0\x01205" % (int(m[1]) + 1),
                line,
            ),
        ),
        r"skeleton0\.csv, row 7: 2 values of field 205 \(item_id\), of which the recipe expects on",
    ),
    Case(
        "a click that is neither 0 nor 1",
        row("skeleton0.csv", 6, lambda line: b"7,2," + line.split(b",", 2)[2]),
        r"skeleton0\.csv, column 'click', row 7: expected 0 or 1, got '2'\. Correct it; the",
    ),
    Case(
        "a header",
        content(
            "skeleton0.csv", lambda data: b"sample,click,conversion,common,n,features\n" + data
        ),
        r"skeleton0\.csv, column 'click', row 1: expected 0 or 1, got 'click'\. Correct it",
    ),
    Case(
        "a line of other columns",
        replaced("skeleton0.csv", 6, b"bec0ffee,", b"bec0ffee "),
        r"skeleton0\.csv has 1 unparsable row; the first, row 7, has 5 fields where 6 are expected",
    ),
    Case(
        "no file of common features",
        lambda folder: (folder / "common0.csv").unlink(),
        r"source 'log': no file matches 'common\*\.csv' in .*Put the raw files there",
    ),
    Case(
        "an empty file of common features",
        content("common0.csv", lambda _: b""),
        r"common0\.csv is empty\. Put data there",
    ),
    Case(
        "a NUL in a skeleton",
        replaced("skeleton0.csv", 6, b"\x01", b"\0"),
        r"skeleton0\.csv, line 7 has a NUL byte",
    ),
    Case(
        "a skeleton in UTF-16",
        content("skeleton0.csv", lambda data: data.decode().encode("utf-16")),
        r"skeleton0\.csv is UTF-16, so it cannot be read as aliccp in utf-8\. Set the source's",
    ),
    Case(
        "bought without a click",
        row("skeleton0.csv", 6, lambda line: b"7,0,1," + line.split(b",", 3)[3]),
        {"bought without a click": 1},
    ),
    Case(
        "an item without an id",
        row(
            "skeleton0.csv",
            6,
            lambda line: re.sub(
                rb",(\d),205[^\x01]+\x01", lambda m: b",%d," % (int(m[1]) - 1), line
            ),
        ),
        {"no item_id": 1},
    ),
]
CASES += [Case(c.name, c.make, c.outcome, c.set, aliccp=True) for c in ALICCP]


# ── what comes of it ────────────────────────────────────────────────────────────────────


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return both(tmp_path / "raw")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder without any fault."""
    return both(tmp_path_factory.mktemp("sound") / "raw")


def both(folder: Path) -> Path:
    World(folder).write()
    Impressions(folder).write()
    return folder


def recipe(folder: Path, case: Case) -> Recipe:
    return Impressions(folder).recipe() if case.aliccp else World(folder).recipe(*case.set)


def dropped(folder: Path, case: Case) -> dict[str, int]:
    store = Store(folder.parent / f"runs-{case.aliccp}-{len(case.set)}")
    if store.folder("etl").exists():  # of the sound folder, by an earlier case
        store = Store(folder.parent / f"runs-{case.name}")
    return etl(recipe(folder, case), store, DEVICE, data=folder).report.dropped


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_fault_is_named_counted_or_none(folder: Path, sound: Path, case: Case) -> None:
    case.make(folder)
    if case.outcome == SAME:
        found = sources.read(recipe(folder, case), folder).tables
        asked = Case(case.name, case.make, SAME, aliccp=case.aliccp)
        assert found == sources.read(recipe(sound, asked), sound).tables
    elif isinstance(case.outcome, str):
        store = Store(folder.parent / "runs")
        with pytest.raises(DataError, match=case.outcome) as caught:
            etl(recipe(folder, case), store, DEVICE, data=folder)
        assert str(caught.value).endswith((".", "fetch them."))
        assert not (folder.parent / "runs" / "etl").exists()
    else:
        before, after = dropped(sound, case), dropped(folder, case)
        more = {cause: after[cause] - before.get(cause, 0) for cause in case.outcome}
        assert more == case.outcome


def test_the_table_is_long_and_its_names_are_unlike() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 90


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(folder: Path) -> None:
    (folder / "log.csv").chmod(0)
    with pytest.raises(
        DataError, match=r"log\.csv cannot be read as csv: .*Permission.*may be rea"
    ):
        sources.read(World(folder).recipe(), folder)


def test_a_file_that_vanishes_while_another_is_read(folder: Path) -> None:
    for n in range(2):
        (folder / f"log-{n}.csv").write_bytes((folder / "log.csv").read_bytes())
    chunks = sources.stream(World(folder).recipe(*set_log("log-*.csv")), "log", folder)
    next(chunks)
    (folder / "log-1.csv").unlink()
    with pytest.raises(
        DataError,
        match=r"log-1\.csv cannot be read as csv: .*No such file.*Check that the file",
    ):
        list(chunks)
