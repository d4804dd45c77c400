"""What a power loss may leave, by hand; and the library beneath Python misses no writer."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks" / "torture"))

import recorder
from disk_states import WAYS, History, Missed, Tree, write
from recorder import Kind, Operation

NEW = b"the new one"


class Disk:
    """A folder that holds `result`, and the operations of a process on it."""

    def __init__(self, root: Path) -> None:
        (root / "result").write_bytes(b"old")
        self.root = root
        self.history = History(root)

    def do(
        self, kind: Kind, first: str, second: str = "", *, number: int = 0, data: bytes = b""
    ) -> None:
        paths = [str(self.root / name) for name in (first, second)]
        self.history.add(Operation(kind, 7, number, *paths, data))

    def write_aside(self) -> None:
        self.do(Kind.OPEN, "aside")
        self.do(Kind.WRITE, "aside", data=NEW)

    def sync_aside(self) -> None:
        self.do(Kind.SYNC, "aside", data=NEW)

    def sync_folder(self) -> None:
        self.do(Kind.SYNC, "", number=1)

    def possible(self) -> list[Tree]:
        """Return what there may be now, drawn many times."""
        moment, rng = len(self.history.moments) - 1, random.Random(1)
        return [self.history.state(moment, way, rng) for way in WAYS for _ in range(20)]


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


def test_a_file_that_is_renamed_without_a_sync_may_be_empty(disk: Disk) -> None:
    disk.write_aside()
    disk.do(Kind.RENAME, "aside", "result")
    assert {b"old", b"", bytes(len(NEW)), NEW} <= {tree["result"] for tree in disk.possible()}


def test_a_file_that_is_synced_before_it_is_renamed_is_old_or_new(disk: Disk) -> None:
    disk.write_aside()
    disk.sync_aside()
    disk.do(Kind.RENAME, "aside", "result")
    assert {tree["result"] for tree in disk.possible()} == {b"old", NEW}
    disk.sync_folder()
    assert all(tree == {"result": NEW} for tree in disk.possible())


def test_what_is_written_after_a_sync_may_be_lost_and_what_was_before_is_not(disk: Disk) -> None:
    disk.write_aside()
    disk.sync_aside()
    disk.sync_folder()
    disk.do(Kind.WRITE, "aside", number=len(NEW), data=b" and more")
    contents = {bytes(tree["aside"] or b"") for tree in disk.possible()}
    assert {NEW, NEW + bytes(9), NEW + b" and more"} <= contents
    assert all(content.startswith(NEW) for content in contents)


def test_an_old_result_that_is_removed_before_a_sync_may_be_gone_with_the_new_one(
    disk: Disk,
) -> None:
    disk.write_aside()
    disk.sync_aside()
    disk.do(Kind.REMOVE, "result")
    disk.do(Kind.RENAME, "aside", "result")
    assert any("result" not in tree for tree in disk.possible())


def test_a_write_that_was_not_recorded_is_noticed(disk: Disk) -> None:
    disk.write_aside()
    with pytest.raises(Missed, match="aside was changed by something that was not recorded"):
        disk.history.check()  # nothing has happened on this disk
    with pytest.raises(Missed, match="finds bytes whose writing was not recorded"):
        disk.do(Kind.SYNC, "aside", data=b"more than that")


def test_a_tree_is_written_as_it_is(tmp_path: Path) -> None:
    write({"a/b": b"x", "a": None, "a/c": "b"}, tmp_path / "there")
    assert (tmp_path / "there" / "a" / "c").read_bytes() == b"x"


#: The ways in which the libraries of this package write: descriptors, and streams of C.
WRITERS = """
import os, shutil, sys
import faiss, h5py, numpy as np, pyarrow as pa, pyarrow.parquet as pq
os.chdir(sys.argv[1])
os.mkdir("deep")
with open("deep/text", "w") as file: file.write("x" * 100_000)
with open("deep/text", "r+b") as file:
    file.seek(5); file.write(b"yy"); file.truncate(50); file.flush(); os.fsync(file)
with open("deep/text", "a") as file: file.write("end")
np.save("array.npy", np.arange(1000)); np.savez("arrays.npz", a=np.arange(10.0))
with h5py.File("w.h5", "w") as file: file["g/x"] = np.arange(5000.0)
with h5py.File("w.h5", "a") as file: file["g/x"][3] = 7
pq.write_table(pa.table({"a": range(1000)}), "t.parquet")
index = faiss.IndexFlatIP(4); index.add(np.ones((9, 4), "f4")); faiss.write_index(index, "i.faiss")
shutil.copyfile("t.parquet", "copy"); shutil.copytree("deep", "twin"); shutil.rmtree("twin")
os.link("w.h5", "link.h5"); os.symlink("deep", "shortcut"); os.replace("copy", "old")
os.system("echo from another process > other")
"""


def test_no_writer_is_missed(tmp_path: Path) -> None:
    library = recorder.build(tmp_path)
    if library is None:
        pytest.skip("needs gcc")
    root, log = tmp_path / "root", tmp_path / "log"
    root.mkdir()
    (root / "old").write_text("old")
    history = History(root)
    environment = {**os.environ, **recorder.settings(library, root, log)}
    subprocess.run([sys.executable, "-c", WRITERS, root], check=True, env=environment)
    for operation in recorder.operations(log):
        history.add(operation)
    history.check()
    state = history.state(len(history.moments) - 1, "nothing", random.Random(1))
    assert state == {"old": b"old"}, "one file was synced, and no folder"
