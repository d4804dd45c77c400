"""Shards that an interrupted run left are looked at before they are used."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from workflows.ground.errors import DataError
from workflows.recommend.shards import ListBatch, Shards, Share, write_parquet


def lists(users: slice) -> ListBatch:
    names = np.array([str(n) for n in range(users.start, min(users.stop, 25))])
    ones, by = np.ones(len(names), np.int64), np.full(len(names), "two-tower")
    rows = pa.table({"user": names, "rank": ones.astype(np.int32), "answered_by": by})
    return ListBatch(names, by, ones, rows, 1)


def written(folder: Path, made: list[int]) -> Shards:
    """Write the shards that are not there yet, and note which were made."""

    def noted(users: slice) -> ListBatch:
        made.append(users.start // 10)
        return lists(users)

    shards = Shards(folder, "a" * 16, size=10)
    facts = list(shards.write(25, noted, write_parquet, "parquet"))
    assert [fact.counts.rows for fact in facts] == [10, 10, 5]
    return shards


def content(folder: Path) -> list[str]:
    parts = sorted(folder.glob("part-*.parquet"))
    return [user for part in parts for user in pq.read_table(part)["user"].to_pylist()]


DAMAGES = {
    "shard emptied": ("parquet", lambda path: path.write_bytes(b"")),
    "shard zeroed": ("parquet", lambda path: path.write_bytes(bytes(path.stat().st_size))),
    "shard halved": (
        "parquet",
        lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    ),
    "shard missing": ("parquet", lambda path: path.unlink()),
    "fact emptied": ("json", lambda path: path.write_bytes(b"")),
    "fact zeroed": ("json", lambda path: path.write_bytes(bytes(path.stat().st_size))),
    "fact missing": ("json", lambda path: path.unlink()),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_shard_is_made_again_and_the_others_are_kept(tmp_path: Path, damage: str) -> None:
    made: list[int] = []
    written(tmp_path / ".shards", made)
    suffix, spoil = DAMAGES[damage]
    spoil(tmp_path / ".shards" / ("a" * 16) / f"part-00001.{suffix}")
    shards = written(tmp_path / ".shards", made)
    assert made == [0, 1, 2, 1]
    shards.link(tmp_path / "lists", "parquet")
    assert content(tmp_path / "lists") == [str(n) for n in range(25)]


def test_what_a_full_disk_cuts_off_is_removed_and_whole_shards_are_kept(tmp_path: Path) -> None:
    def fails_at(failing: int) -> None:
        def save(batch: ListBatch, path: Path) -> None:
            path.write_text("half")
            if int(batch.users[0]) // 10 == failing:
                raise OSError(28, "No space left on device")

        shards = Shards(tmp_path / ".shards", "a" * 64, size=10)
        with pytest.raises(OSError, match="No space"):
            list(shards.write(25, lists, save, "parquet"))

    fails_at(0)
    assert list(tmp_path.iterdir()) == []
    fails_at(1)
    names = {path.name for path in (tmp_path / ".shards" / ("a" * 16)).iterdir()}
    assert names == {"part-00000.parquet", "part-00000.json"}


@pytest.mark.parametrize(("n_shards", "of"), [(10, 3), (2, 5), (0, 2), (7, 1), (8, 8)])
def test_shares_are_disjoint_and_complete(n_shards: int, of: int) -> None:
    numbers = [n for i in range(of) for n in Share.parse(f"{i}/{of}").among(n_shards)]
    assert numbers == list(range(n_shards))


@pytest.mark.parametrize(
    "text", ["3/3", "4/3", "-1/3", "1", "1/0", "0/0", "a/b", "1/2/3", " 0/2", ""]
)
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"--shard '.*': expected i/n, .* 0/4, 1/4, 2/4 and 3/4"):
        Share.parse(text)


def test_a_share_that_fails_leaves_the_folder_to_the_others(tmp_path: Path) -> None:
    def fail(users: slice) -> ListBatch:
        raise KeyboardInterrupt

    shards = Shards(tmp_path / ".shards", "a" * 16, size=10)
    with pytest.raises(KeyboardInterrupt):
        list(shards.write(25, fail, write_parquet, "parquet", Share(1, 3)))
    assert (tmp_path / ".shards" / ("a" * 16)).is_dir()
    assert shards.n_finished() == 0
    assert len(list(shards.write(25, lists, write_parquet, "parquet", Share(2, 3)))) == 1
    assert shards.n_finished() == 1
    with pytest.raises(KeyboardInterrupt):
        list(
            Shards(tmp_path / ".alone", "a" * 16, size=10).write(25, fail, write_parquet, "parquet")
        )
    assert not (tmp_path / ".alone").exists()


def test_a_folder_of_shards_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    kept = tmp_path / "kept" / "important"
    kept.mkdir(parents=True)
    (tmp_path / ".shards").symlink_to(tmp_path / "kept")
    written(tmp_path / ".shards", [])
    assert kept.is_dir()
    assert not (tmp_path / ".shards").is_symlink()


def test_without_hard_links_shards_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuses)
    written(tmp_path / ".shards", []).link(tmp_path / "lists", "parquet")
    assert content(tmp_path / "lists") == [str(n) for n in range(25)]
