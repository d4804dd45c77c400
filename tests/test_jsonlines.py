"""JSON lines: ids keep all their digits, and nested values are refused by column."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from test_sources import MOMENT, read, recipe

from workflows.etl.read import sources
from workflows.ground.errors import DataError


def written(folder: Path, *lines: str, name: str = "log.jsonl") -> str:
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return name


def test_values_of_all_kinds(tmp_path: Path) -> None:
    name = written(
        tmp_path,
        '{"user": 123456789012345678901234567890, "item": "a\\"b\\u00e9", "price": 1.5, "x": {}}',
        "",
        ' {"item": true, "user": "Ж", "tags": ["x", 7, null], "when": "2021-03-04T05:06:07"} ',
        '{"user": 9007199254740993, "item": null, "price": null, "tags": [], "when": null}',
    )
    assert read(tmp_path, name) == [
        {
            "user": "123456789012345678901234567890",
            "item": 'a"bé',
            "price": 1.5,
            "when": None,
            "tags": None,
        },
        {"user": "Ж", "item": "true", "price": None, "when": MOMENT, "tags": ["x", "7"]},
        {"user": "9007199254740993", "item": None, "price": None, "when": None, "tags": []},
    ]


def test_text_with_a_separator_is_a_list_as_in_csv(tmp_path: Path) -> None:
    name = written(tmp_path, '{"user": "u", "item": "i", "tags": "a|b"}')
    assert read(tmp_path, name)[0]["tags"] == ["a", "b"]


def test_packed_in_any_case_with_a_mark_and_by_format(tmp_path: Path) -> None:
    line = '\ufeff{"user": "u", "item": "i"}\r\n'.encode()
    (tmp_path / "LOG.NDJSON.GZ").write_bytes(gzip.compress(line))
    (tmp_path / "log.txt").write_bytes(line)
    assert read(tmp_path, "LOG.NDJSON.GZ") == [{"user": "u", "item": "i"}]
    assert read(tmp_path, "log.txt", source={"format": "jsonl"}) == [{"user": "u", "item": "i"}]


def test_nulls_and_renamed_keys(tmp_path: Path) -> None:
    name = written(tmp_path, '{"User ID": "u", "item": "NA"}', '{"User ID": "", "item": "i"}')
    found = read(tmp_path, name, source={"rename": {"User ID": "user"}, "nulls": ["NA", ""]})
    assert found == [{"user": "u", "item": None}, {"user": None, "item": "i"}]


def test_nan_as_python_writes_it(tmp_path: Path) -> None:
    lines = [json.dumps({"user": "u, NaN,", "item": 10**20, "price": float("nan")})] * 2
    assert (
        read(tmp_path, written(tmp_path, *lines))
        == [{"user": "u, NaN,", "item": str(10**20), "price": None}] * 2
    )


def test_a_key_that_comes_late_or_in_another_file_is_met(tmp_path: Path) -> None:
    lines = ['{"user": "u", "item": "i"}'] * 60_000  # more than what is read first
    written(tmp_path, *lines, '{"user": "v", "item": "j", "price": 2}', name="log-0.jsonl")
    written(tmp_path, '{"user": "w", "item": "j"}', name="log-1.jsonl")
    found = read(tmp_path, "log-*.jsonl")
    assert len(found) == 60_002
    assert found[0]["price"] is None
    assert [row["price"] for row in found[-2:]] == [2, None]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            '{"user": "u", "item": {"id": 1}}',
            r"column 'item', row 2: an object, .*Write its values",
        ),
        ('{"user": "u", "item": ["a"]}', r"column 'item', row 2: a list, where a single value"),
        ('{"user": "u", "tags": 5}', r"column 'tags', row 2: 5 is not a list"),
        ('{"user": "u", "tags": [[1]]}', r"column 'tags', row 2: a list"),
        ('{"user": "u", "item": "\\ud800"}', r"row 2 is not a JSON object \(key 'item': half of a"),
        (
            '{"user": "u"',
            r"row 2 is not a JSON object \(.*\): '\{\"user\": \"u\"'\. Expected one object",
        ),
        (
            '{"user": "u", "item": "i", "x": [["\\ud800"]]}',
            r"row 2 is not a JSON object \(key 'x': half",
        ),
        ("[1]", r"row 2 is not a JSON object"),
        ("5", r"row 2 is not a JSON object"),
        (
            '{"user": "u", "price": "dear"}',
            r"column 'price', row 2: 'dear' cannot be read as float",
        ),
    ],
)
def test_what_is_no_flat_object_is_refused(tmp_path: Path, line: str, message: str) -> None:
    name = written(tmp_path, '{"user": "u", "item": "i", "tags": ["a"], "price": 1}', line)
    with pytest.raises(DataError, match=rf"log\.jsonl, {message}"):
        read(tmp_path, name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"user": "u"}]', r"is one JSON array, not JSON lines\. Write one object per line"),
        (b"", r"is empty\. Put data there"),
        (b'{"user": "u", "item": "\xff"}\n', r"line 1: the byte b'\\xff' is not valid in UTF-8"),
        (b'{"us\xffer": "u", "item": 1}\n', r"line 1: the byte b'\\xff' is not valid in UTF-8"),
        (b'{"a": 1}\n', r"has none of the columns that the recipe names; it has: a"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "log.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=rf"log\.jsonl,? {message}"):
        read(tmp_path, "log.jsonl")


def test_json_lines_for_csv_are_told(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text('{"user": "u", "item": "i"}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"looks like JSON, .* Set the source's `format: jsonl`"):
        read(tmp_path)


def test_blocks_are_cut_between_lines(tmp_path: Path) -> None:
    name = written(tmp_path, *(f'{{"user": "u{n}", "item": "Ж{n}"}}' for n in range(500)))
    pieces = list(sources.stream(recipe(name), "log", tmp_path, block=200))
    assert len(pieces) > 50
    users = [user for piece in pieces for user in piece["user"].to_pylist()]
    assert users == [f"u{n}" for n in range(500)]
    with pytest.raises(DataError, match="a line is longer than 20 bytes"):
        list(sources.stream(recipe(name), "log", tmp_path, block=20))
