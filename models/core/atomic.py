"""Atomic writes: neither a kill nor a power loss damages a file or a folder of results.

A result is written beside its final place and then put there in four steps: sync the new files and
folders from the bottom up; exchange new and old in one step of the kernel (renameat2 with
RENAME_EXCHANGE, Linux 3.15), so that a reader never meets a gap; sync the parent folder; only then
remove the old result. The order follows Pillai et al. 2014, "All File Systems Are Not Created
Equal", section 4. Links are never followed: a link in the way is removed, and what it points at
stays as it is.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
#: Error numbers of a kernel or file system that cannot exchange two paths.
_NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM)
#: Error numbers of file systems that cannot sync a folder (some network and FUSE ones).
_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES)


def put_in_place(new: Path, final: Path) -> None:
    """Replace the file or folder `final` by `new` atomically, safe against a power loss.

    Args:
        new: a finished file or folder beside `final`, on the same file system.
        final: the place; an older result there, or a link, is replaced.

    Raises:
        OSError: the disk reports an error. The older result is at `final`, or, after a kill between
            the two renames of a file system without the exchange, at `older(final)`.
    """
    sync_tree(new)
    try:
        _exchange_or_rename(new, final)
    except OSError:
        recover(final)
        raise
    sync_folder(final.parent)
    remove(new)  # after an exchange the older result is here
    remove(older(final))


def _exchange_or_rename(new: Path, final: Path) -> None:
    if not exists(final):
        new.rename(final)
    elif not new.is_dir() and not _is_real_folder(final):
        new.replace(final)
    elif not exchange(new, final):
        old = older(final)
        remove(old)
        final.rename(old)
        new.rename(final)


def exchange(first: Path, second: Path) -> bool:
    """Exchange two paths in one step; return False where the kernel or file system cannot.

    Raises:
        OSError: the exchange of the paths failed for another reason.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    sys.audit("os.rename", str(first), str(second), -1, -1)  # as Python does for its own renames
    paths = (os.fsencode(first), os.fsencode(second))
    failed = libc.renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE)
    if not failed:
        return True
    code = ctypes.get_errno()
    if code in _NO_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(second))


def older(final: Path) -> Path:
    """Return the path that holds the older result while a new one is renamed into its place."""
    return final.with_name(f".{final.name.lstrip('.')}.old")


def beside(final: Path) -> Path:
    """Return the temporary path, beside the final one, at which a result is first written."""
    return final.with_name(f".{final.name.lstrip('.')}.new")


def recover(final: Path) -> None:
    """Restore the older file or folder if a kill came between the renames of `put_in_place`."""
    if exists(older(final)) and not exists(final):
        older(final).rename(final)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a small file so that a reader finds the whole old content or the whole new one."""
    write_file(path, lambda file: file.write(content))


@contextlib.contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """Yield an empty folder beside `final`; rename it to `final` if the `with` block succeeds.

    Raises:
        OSError: as `put_in_place`.
    """
    recover(final)
    aside = beside(final)
    remove(aside)
    remove(older(final))
    make_folders(aside.parent)
    aside.mkdir()
    try:
        yield aside
        put_in_place(aside, final)
    except BaseException:
        with contextlib.suppress(OSError):
            remove(aside)
        raise


def write_file(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file atomically: `write` fills a file beside `path`, which then replaces `path`."""
    aside = beside(path)
    remove(aside)
    try:
        with aside.open("xb") as file:
            write(file)
        put_in_place(aside, path)
    except BaseException:
        remove(aside)
        raise


def remove(path: Path) -> None:
    """Remove a file, a link (not its target) or a folder with its content, if there is one.

    Raises:
        OSError: something cannot be removed.
    """
    try:
        if _is_real_folder(path):
            shutil.rmtree(path)  # it does not follow links inside
        else:
            path.unlink(missing_ok=True)
    except FileNotFoundError:
        pass  # another process removed it meanwhile


def require_room(path: Path, n_bytes: int) -> None:
    """Raise an OSError if the disk has no room for a file that a library is about to write.

    Args:
        path: the file that the library writes next; it is made and removed again.
        n_bytes: the size, in bytes, that the file may reach.

    Raises:
        OSError: the disk has no room for it, or a limit does not permit it.
    """
    try:
        with path.open("xb") as file:
            os.posix_fallocate(file.fileno(), 0, n_bytes)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        path.unlink(missing_ok=True)


def open_own(path: Path) -> int:
    """Open a file for reading and writing, or create it; neither truncate it nor follow a link.

    Returns:
        A file descriptor, which the caller closes.

    Raises:
        OSError: the path is a link (ELOOP), is not a regular file (EINVAL), or cannot be written.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o644)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return descriptor


def make_folders(folder: Path) -> None:
    """Make a folder and its missing parents so that a power loss does not take them away again.

    Raises:
        OSError: the disk refused, or a file is in the way.
    """
    if not folder.is_dir():
        make_folders(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_tree(path: Path) -> None:
    """Flush a file, or a folder with all its content, to the disk (fsync); follow no links."""
    if not _is_real_folder(path):
        if path.is_file() and not path.is_symlink():
            _sync(path)
        return
    for folder, _, names in os.walk(path, topdown=False):
        for name in names:
            sync_tree(Path(folder, name))
        sync_folder(Path(folder))


def sync_folder(folder: Path) -> None:
    """Flush the directory entries of a folder to the disk (fsync), where the file system can."""
    try:
        _sync(folder)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Return the SHA-256 hash of a file in hexadecimal; the file is read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def exists(path: Path) -> bool:
    """Return whether a path exists; a symbolic link to a missing file counts, too."""
    return os.path.lexists(path)


def _is_real_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
