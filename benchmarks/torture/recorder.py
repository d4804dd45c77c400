"""Records all changes of files below a folder, also by native code, with a C library (writes.c).

The library must be loaded when a process starts, so `loaded` starts this program again with it. It
records nothing until a child calls the function that `recording` returns.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

_LIBRARY = "TORTURE_LIBRARY"
_HEAD = struct.Struct("=iiQqIIQ")


class Kind(IntEnum):
    """Kind of an operation; the numbers are those of writes.c."""

    OPEN = 1
    WRITE = 2
    TRUNCATE = 3
    RENAME = 4
    LINK = 5
    SYMLINK = 6
    REMOVE = 7
    MKDIR = 8
    SYNC = 9
    SYNC_ALL = 10


@dataclass(frozen=True)
class Operation:
    """One operation of a process.

    Attributes:
        kind: kind of the operation.
        inode: inode number of the file that was opened, changed or synced.
        number: offset of a write, new size, or flags of a rename; not 0 for an open that truncates
            and for the sync of a folder.
        first: path that was changed or synced; or the target of a symbolic link.
        second: new path of a rename or link.
        data: bytes that were written; or the whole content of a file that was synced.
    """

    kind: Kind
    inode: int
    number: int
    first: str
    second: str
    data: bytes

    def __str__(self) -> str:
        """Return the operation and its paths as text."""
        paths = " ".join(Path(path).name for path in (self.first, self.second) if path)
        return f"{self.kind.name.lower()} {paths or self.inode}"


def build(folder: Path) -> Path | None:
    """Compile the library into a folder; return None if gcc is missing."""
    if not shutil.which("gcc"):
        return None
    library = folder / "writes.so"
    source = Path(__file__).with_name("writes.c")
    words = ["gcc", "-O1", "-fPIC", "-shared", "-o", library, source, "-ldl", "-lpthread"]
    subprocess.run(words, check=True)
    return library


@functools.cache
def loaded() -> Path | None:
    """Return the library; if it is not loaded, start this program again with it.

    Returns:
        The path of the library, or None if gcc is missing.
    """
    if own := os.environ.pop(_LIBRARY, None):
        del os.environ["LD_PRELOAD"]
        library = Path(own)
        atexit.register(shutil.rmtree, library.parent)
        return library
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    built = build(folder)
    if built:
        environment = {**os.environ, _LIBRARY: str(built), "LD_PRELOAD": str(built)}
        os.execve(sys.executable, [sys.executable, *sys.argv], environment)
    folder.rmdir()
    return None


def settings(library: Path, root: Path, log: Path, *, syncs: bool = True) -> dict[str, str]:
    """Return the environment variables with which new processes record.

    Args:
        library: path of the library.
        root: the folder below which changes are recorded; resolved.
        log: the file that the operations are appended to, outside of `root`.
        syncs: False makes fsync do nothing.
    """
    names = {"LD_PRELOAD": str(library), "RECORD_ROOT": str(root), "RECORD_LOG": str(log)}
    return names if syncs else {**names, "RECORD_WITHOUT_SYNCS": "1"}


def recording(library: Path, root: Path, log: Path, *, syncs: bool = True) -> Callable[[], None]:
    """Return a function that starts recording in a forked child; arguments: see `settings`."""

    def begin() -> None:
        os.environ.update(settings(library, root, log, syncs=syncs))
        ctypes.CDLL(None).record_writes(os.fsencode(root), os.fsencode(log), int(not syncs))

    return begin


def operations(log: Path) -> Iterator[Operation]:
    """Yield the operations of a log."""
    with log.open("rb") as file:
        while head := file.read(_HEAD.size):
            kind, _, inode, number, first, second, n_bytes = _HEAD.unpack(head)
            paths = (os.fsdecode(file.read(length)) for length in (first, second))
            yield Operation(Kind(kind), inode, number, *paths, file.read(n_bytes))
