"""Atomic writes: neither a kill nor a power loss damages a file or a folder of results.

A result is written to a temporary path beside its final path and then moved in four steps: sync the
new files and folders from the bottom up; exchange the new and the old result in one system call
(renameat2 with RENAME_EXCHANGE, Linux 3.15), so that a reader always finds one of them; sync the
parent folder; only then remove the old result. The order follows Pillai et al. 2014, "All File
Systems Are Not Created Equal", section 4. Symbolic links are never followed: a link at the final
path is removed, but not its target.
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
        new: a finished file or folder on the file system of `final`.
        final: the final path, at which an older result, or a link, is replaced.

    Raises:
        OSError: the disk reports an error. The older result is still at `final` or, if the file
            system cannot exchange paths, perhaps at `older_path(final)`.
    """
    sync_tree(new)
    try:
        _exchange_or_rename(new, final)
    except OSError:
        recover(final)
        raise
    sync_folder(final.parent)
    remove(new)  # after an exchange the older result is here
    remove(older_path(final))


def _exchange_or_rename(new: Path, final: Path) -> None:
    if not exists(final):
        new.rename(final)
    elif not new.is_dir() and not _is_real_folder(final):
        new.replace(final)
    elif not exchange(new, final):
        old = older_path(final)
        remove(old)
        final.rename(old)
        new.rename(final)


def exchange(first: Path, second: Path) -> bool:
    """Exchange two paths in one step; return False where the kernel or file system cannot.

    Raises:
        OSError: the paths cannot be exchanged, for a reason other than a lack of support.
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


def older_path(final: Path) -> Path:
    """Return the path to which the older result is renamed before a new result replaces it."""
    return final.with_name(f".{final.name.lstrip('.')}.old")


def temporary_path(final: Path) -> Path:
    """Return the temporary path, beside the final path, at which a result is first written."""
    return final.with_name(f".{final.name.lstrip('.')}.new")


def recover(final: Path) -> None:
    """Restore the older file or folder if a kill interrupted `put_in_place` between two renames."""
    if exists(older_path(final)) and not exists(final):
        older_path(final).rename(final)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a small file atomically: a reader finds the whole old or the whole new content."""
    write_file(path, lambda file: file.write(content))


@contextlib.contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """Return a context manager of a new folder, which is renamed to `final` if no error occurs.

    Raises:
        OSError: the disk reports an error.
    """
    recover(final)
    aside = temporary_path(final)
    remove(aside)
    remove(older_path(final))
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
    """Write a file atomically: `write` fills a temporary file, which then replaces `path`."""
    aside = temporary_path(path)
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
        OSError: a file or a folder cannot be removed.
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
        path: the file that the library writes next; it is created for the check, and removed.
        n_bytes: the size, in bytes, that the file may reach.

    Raises:
        OSError: the disk has no room for the file, or a limit does not permit its size.
    """
    try:
        with path.open("xb") as file:
            os.posix_fallocate(file.fileno(), 0, n_bytes)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        path.unlink(missing_ok=True)


def open_regular_file(path: Path) -> int:
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
    """Make a folder and its missing parents, and sync them, so that they survive a power loss.

    Raises:
        OSError: a folder cannot be made, for example because a file has its path.
    """
    if not folder.is_dir():
        make_folders(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_tree(path: Path) -> None:
    """Flush a file, or a folder with all its content, to the disk (fsync); ignore links."""
    if not _is_real_folder(path):
        if path.is_file() and not path.is_symlink():
            _sync(path)
        return
    for folder, _, names in os.walk(path, topdown=False):
        for name in names:
            sync_tree(Path(folder, name))
        sync_folder(Path(folder))


def sync_folder(folder: Path) -> None:
    """Flush the directory entries of a folder to the disk (fsync), if that is supported."""
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
