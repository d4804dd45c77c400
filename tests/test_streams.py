"""Packed and encoded files: the first bytes decide, and the rows are those of the plain file."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from test_sources import read

from workflows.ground.errors import DataError
from workflows.read.streams import CheckedStream, UnpackedStream

TEXT = "user,item,price\n" + "".join(f"u{n},Жö{n},{n}\n" for n in range(3_000))
ROWS = [{"user": f"u{n}", "item": f"Жö{n}", "price": float(n)} for n in range(3_000)]


def zstd(data: bytes) -> bytes:
    packed: bytes = pa.Codec("zstd").compress(data, asbytes=True)
    return packed


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstd,
}


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("name", ["log.csv.{}", "LOG.CSV.{}", "log.csv"])
def test_a_packed_file_is_known_by_its_first_bytes(tmp_path: Path, packer: str, name: str) -> None:
    path = tmp_path / name.format(packer.upper() if "LOG" in name else packer)
    path.write_bytes(PACKERS[packer](TEXT.encode()))
    assert read(tmp_path, path.name) == ROWS


@pytest.mark.parametrize("packer", PACKERS)
def test_two_packed_files_one_after_the_other(tmp_path: Path, packer: str) -> None:
    head, end = TEXT[:1_000].encode(), TEXT[1_000:].encode()
    path = tmp_path / f"log.csv.{packer}"
    path.write_bytes(PACKERS[packer](head) + PACKERS[packer](end))
    assert read(tmp_path, path.name) == ROWS


@pytest.mark.parametrize("packer", PACKERS)
def test_a_packed_file_that_is_cut_off_is_refused(tmp_path: Path, packer: str) -> None:
    packed = PACKERS[packer](TEXT.encode())
    (tmp_path / "log.csv").write_bytes(packed[: len(packed) * 2 // 3])
    with pytest.raises(
        DataError, match=r"log\.csv cannot be read as csv: .* Check that the file exists"
    ):
        read(tmp_path)


def test_a_packed_file_that_is_damaged_is_refused(tmp_path: Path) -> None:
    for packer, pack in PACKERS.items():
        packed = bytearray(pack(TEXT.encode()))
        middle = len(packed) // 2
        packed[middle : middle + 40] = bytes(40)
        (tmp_path / f"{packer}.csv").write_bytes(bytes(packed))
        with pytest.raises(DataError, match=rf"{packer}\.csv"):
            read(tmp_path, f"{packer}.csv")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "koi8-r", "utf-8-sig", "gb18030"])
def test_an_encoding_is_read_as_a_stream(tmp_path: Path, encoding: str) -> None:
    text = TEXT.replace("ö", "")
    (tmp_path / "log.csv").write_bytes(text.encode(encoding))
    rows = [{**row, "item": str(row["item"]).replace("ö", "")} for row in ROWS]
    assert read(tmp_path, source={"encoding": encoding}) == rows


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_bytes_come_as_asked_for(tmp_path: Path, size: int) -> None:
    (tmp_path / "a").write_bytes("Жö::ж".encode("utf-16"))
    stream = UnpackedStream(tmp_path / "a", "utf-16")
    pieces = list(iter(lambda: stream.read(size), b""))
    assert b"".join(pieces).decode() == "Жö::ж"
    assert all(len(piece) == size for piece in pieces[:-1])


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize("text", ["a::b:::c::::d:", "::", ":", "a:b", "::a::"])
def test_a_delimiter_of_several_bytes_becomes_one(tmp_path: Path, size: int, text: str) -> None:
    (tmp_path / "a").write_text(text, encoding="utf-8")
    stream = CheckedStream(tmp_path / "a", "utf-8", "::")
    assert b"".join(iter(lambda: stream.read(size), b"")).decode() == "\x1f".join(text.split("::"))


def test_a_line_that_is_no_text_in_the_encoding_is_named(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(b"user,item\nu,a\nu,\x81\n")
    with pytest.raises(
        DataError,
        match=r"line 3: the byte b'\\x81' is not valid in cp1252\. Correct the source's",
    ):
        read(tmp_path, source={"encoding": "cp1252"})


def test_a_text_that_ends_within_a_character_is_cut_off(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes("user,item\nu,Ж\n".encode("utf-16")[:-1])
    with pytest.raises(DataError, match=r"line \d: the file ends within a character of utf-16, so"):
        read(tmp_path, source={"encoding": "utf-16"})


def test_utf_16_without_its_mark_is_told(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes("user,item\nu,i\n".encode("utf-16-le"))
    with pytest.raises(
        DataError, match=r"log\.csv is not utf-16: .* does not start with BOM\. Correct"
    ):
        read(tmp_path, source={"encoding": "utf-16"})
    assert read(tmp_path, source={"encoding": "utf-16-le"}) == [{"user": "u", "item": "i"}]
