"""Finding the files of a source, and refusing files of other formats."""

from __future__ import annotations

import gzip
import io
import logging
import tarfile
import unicodedata
from pathlib import Path

import pytest

from workflows import recipe as recipes
from workflows.ground.errors import DataError
from workflows.read import files
from workflows.recipe import Source
from workflows.recipe.text import nearest_name


def test_globs_pass_over_what_programs_hide(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in (
        "a.csv",
        "._a.csv",
        "_b.csv",
        ".ipynb_checkpoints/a-checkpoint.csv",
        "__MACOSX/._a.csv",
        "day=1/_temporary/0/c.csv",
        "day=1/c.csv",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with caplog.at_level(logging.WARNING):
        found = files.find("log", "**/*.csv", tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in found] == [
        "_b.csv",
        "a.csv",
        "day=1/c.csv",
    ]
    (told,) = caplog.messages
    assert told.startswith("4 hidden or temporary files that match '**/*.csv' are skipped")
    assert files.find("log", "._a.csv", tmp_path) == [tmp_path / "._a.csv"]
    assert len(files.find("log", ".ipynb_checkpoints/*.csv", tmp_path)) == 1


def _tar() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("log.csv"))
    return packed.getvalue()


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (_tar(), "is a tar archive, so it cannot be read as csv. Unpack it"),
        (gzip.compress(b"user,item\n", mtime=0), "is packed twice"),
        (b"\xff\x06\x00\x00sNaPpY....", "is packed with snappy"),
        (b"\xef\xbb\xbf\n<!DOCTYPE html><html>", "is an HTML page, not the data"),
        (b"<?xml version='1.0'?><Error>", "is XML"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
    ],
)
def test_what_is_no_data_is_named(head: bytes, what: str) -> None:
    with pytest.raises(DataError, match=what):
        files.refuse_other(Path("log.csv"), "csv", head, "utf-8")


def test_the_first_bytes_tell_more_than_an_unknown_ending(tmp_path: Path) -> None:
    (tmp_path / "log.zip").write_bytes(b"PK\x03\x04....")
    (tmp_path / "log.csv.tar.gz").write_bytes(gzip.compress(_tar()))
    (tmp_path / "log.dat").write_text("a,b\n", encoding="utf-8")
    source = Source(files="*")
    with pytest.raises(DataError, match=r"log\.zip is a zip archive"):
        files.kind(tmp_path / "log.zip", source)
    with pytest.raises(DataError, match=r"log\.csv\.tar\.gz is a tar archive"):
        files.kind(tmp_path / "log.csv.tar.gz", source)
    with pytest.raises(DataError, match=r"the ending \.dat names no format"):
        files.kind(tmp_path / "log.dat", source)


def test_names_of_the_same_letters_are_told_apart() -> None:
    composed, apart = (unicodedata.normalize(form, "größe") for form in ("NFC", "NFD"))
    said = nearest_name(composed, ["user", apart])
    assert said == r" (there is 'gro\u0308\xdfe', the same letters composed in another way)"
    assert nearest_name("usr", ["user"]) == " (did you mean 'user'?)"


def test_an_unquoted_true_is_explained() -> None:
    rule = [{"kind": "keep", "column": "ok", "is": "==", "value": True}]
    with pytest.raises(Exception, match="an unquoted true, yes or on is no text; put it in quotes"):
        recipes.parse({"name": "t", "filter": rule}, where="test")
