"""etl of damaged raw files: it reads every row, or refuses the file by its name.

If etl accepts a file, its number of rows is counted again: by Python's csv module, by json for each
line, or from the footer of a parquet file.
"""

from __future__ import annotations

import csv
import io
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from forked import memory_limit, two_tower
from judge import damaged_run, ended_badly, left_over
from scene import Scene
from tally import Tally

MEMORY = 12
csv.field_size_limit(1 << 30)
_SPICE = [
    *(b'"', b'""', b",", b"\n", b"\r\n", b"\r", b"\0", b"\xff", b"\xc3", b"\xef\xbb\xbf", b";"),
    *(b"\t", b"\\", b"'", b" ", b"=1+1", b"-0", b"1e400", b"NaN", b"null", b"\xe2\x80\xa8"),
    b"\x1a",
    b"9" * 40,
]  # fmt: skip


def run(n: int, seed: int, folder: Path, scene: Scene) -> Tally:
    """Damage `n` logs: a third each are csv, JSON lines and parquet."""
    rng, tally = random.Random(seed), Tally("raw files")
    rows = list(
        csv.DictReader((scene.folder / "raw" / "log.csv").open(encoding="utf-8", newline=""))
    )
    for number in range(n):
        suffix = ("csv", "jsonl", "parquet")[number % 3]
        own = Scene(folder / f"{number:04}")
        shutil.copytree(scene.folder / "raw", own.folder / "raw")
        log = own.folder / "raw" / f"log.{suffix}"
        how, content = _damaged(_content(rows, suffix), rng, lines=suffix != "parquet")
        log.write_bytes(content)
        words = ["etl", "--recipe", str(own.recipe), "--run", str(own.run), "--json"]
        words += ["--device", "cpu", "--set", f"sources.log.files=log.{suffix}"]
        ended = two_tower(words, folder=own.folder, before=memory_limit(MEMORY))
        faults = ended_badly(ended)
        if own.run.is_dir():
            faults += damaged_run(own.run) + left_over(own.folder)
        if ended.code == 0 and not faults:
            faults += _lost(ended.out, log)
        elif ended.code == 2 and log.name not in ended.err and "etl" not in ended.err:
            faults.append(f"refused without the file's name: {ended.err[-200:]}")
        tally.count(
            f"{suffix} {how}", faults, f"{suffix} {'read' if ended.code == 0 else 'refused'}"
        )
        if not faults:
            shutil.rmtree(own.folder)
    return tally.finished()


def _lost(said: str, log: Path) -> list[str]:
    """Compare the number of rows that etl reports with another count."""
    told = json.loads(said[said.index("{") :])["report"]["read"]["log"]
    counted = _COUNTS[log.suffix](log)
    return [] if told == counted else [f"{told} rows were read of {counted}, in silence"]


def _csv_rows(path: Path) -> int:
    """Count rows with Python's csv module, without empty lines."""
    text = path.read_bytes().decode("utf-8-sig", "surrogateescape")
    rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    return len(rows) - 1


def _json_rows(path: Path) -> int:
    text = path.read_bytes().decode("utf-8-sig", "surrogateescape")
    decoder, place, count = json.JSONDecoder(strict=False), 0, 0
    while place < len(text):
        if text[place].isspace():
            place += 1
            continue
        _, place = decoder.raw_decode(text, place)
        count += 1
    return count


_COUNTS: dict[str, Callable[[Path], int]] = {
    ".csv": _csv_rows,
    ".jsonl": _json_rows,
    ".parquet": lambda path: pq.read_metadata(path).num_rows,
}


def _content(rows: list[dict[str, str]], suffix: str) -> bytes:
    """Return the undamaged log in one of the formats."""
    if suffix == "parquet":
        sink = io.BytesIO()
        columns = {name: [row[name] or None for row in rows] for name in rows[0]}
        columns["rating"] = [int(value) for value in columns["rating"]]
        columns["when"] = [None if value is None else int(value) for value in columns["when"]]
        pq.write_table(pa.table(columns), sink, row_group_size=50)
        return sink.getvalue()
    if suffix == "jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _damaged(content: bytes, rng: random.Random, *, lines: bool) -> tuple[str, bytes]:
    """Damage a file; return a description of the damage, and the content."""
    ways: list[Callable[[bytes, random.Random], bytes]] = [_flip, _cut, _zero, _insert, _remove]
    if lines:
        ways += [_insert, _insert, _split_line, _drop_line, _double_line, _swap_lines, _endings]
        ways += [_lengthen, _trailing, _spoil_header]
    told = []
    for _ in range(rng.choice([1, 1, 2, 3])):
        way = rng.choice(ways)
        content = way(content, rng)
        told.append(way.__name__.lstrip("_"))
    return " and ".join(told), content


def _at(content: bytes, rng: random.Random) -> int:
    return rng.randrange(len(content) + 1)


def _flip(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content or b"x")
    for _ in range(rng.choice([1, 1, 4, 50])):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: _at(content, rng)]


def _zero(content: bytes, rng: random.Random) -> bytes:
    start = _at(content, rng)
    stop = min(len(content), start + rng.choice([1, 16, 512]))
    return content[:start] + bytes(stop - start) + content[stop:]


def _insert(content: bytes, rng: random.Random) -> bytes:
    start = _at(content, rng)
    return content[:start] + rng.choice(_SPICE) + content[start:]


def _remove(content: bytes, rng: random.Random) -> bytes:
    start = _at(content, rng)
    return content[:start] + content[start + rng.choice([1, 3, 40]) :]


def _lines(content: bytes) -> list[bytes]:
    return content.splitlines(keepends=True) or [b""]


def _split_line(content: bytes, rng: random.Random) -> bytes:
    lines = _lines(content)
    row = rng.randrange(len(lines))
    middle = _at(lines[row], rng)
    lines[row] = lines[row][:middle] + b"\n" + lines[row][middle:]
    return b"".join(lines)


def _drop_line(content: bytes, rng: random.Random) -> bytes:
    lines = _lines(content)
    del lines[rng.randrange(len(lines))]
    return b"".join(lines)


def _double_line(content: bytes, rng: random.Random) -> bytes:
    lines = _lines(content)
    row = rng.randrange(len(lines))
    return b"".join([*lines[: row + 1], *lines[row:]])


def _swap_lines(content: bytes, rng: random.Random) -> bytes:
    lines = _lines(content)
    rng.shuffle(lines)
    return b"".join(lines)


def _endings(content: bytes, rng: random.Random) -> bytes:
    return content.replace(b"\n", rng.choice([b"\r\n", b"\r", b"\n\n", b"\n\r"]))


def _lengthen(content: bytes, rng: random.Random) -> bytes:
    start = _at(content, rng)
    return content[:start] + b"y" * rng.choice([5_000, 3_000_000]) + content[start:]


def _trailing(content: bytes, rng: random.Random) -> bytes:
    return content + rng.choice([b"\n\n\n", b",,,,\n", b"\0\0\0", b'"', b"end", b"  \n", b"\x1a"])


def _spoil_header(content: bytes, rng: random.Random) -> bytes:
    first, _, rest = content.partition(b"\n")
    return _insert(first, rng) + b"\n" + rest
