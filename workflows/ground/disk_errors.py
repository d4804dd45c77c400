"""Turn disk errors that occur while a stage is written into StorageErrors that name a remedy."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from workflows.ground.errors import StorageError, TwoTowerError

#: Error number of the operating system → what happened and what to do about it.
_REMEDIES = {
    errno.ENOSPC: "no space is left on the device: free some, or choose another --run",
    errno.EDQUOT: "the disk quota is used up: free some, or choose another --run",
    errno.EACCES: "permission denied: choose a --run that you may write",
    errno.EPERM: "the operation is not permitted: choose a --run on another file system",
    errno.EROFS: "the file system is read-only: choose a --run that you may write",
    errno.EEXIST: "a file stands in the way: remove it, or choose another --run",
    errno.ENOTDIR: "a file stands in the way: remove it, or choose another --run",
    errno.EINVAL: "the path is not a regular file: remove it, or choose another --run",
    errno.ELOOP: "it is a link, and links are not followed when writing: remove it",
    errno.EFBIG: "the file would be larger than this process may write (ulimit -f)",
    errno.EMFILE: "too many files are open (ulimit -n)",
    errno.EIO: "the disk reports an error: check it, or choose another --run",
    errno.EXDEV: "parts of the run lie on different file systems: link the whole run folder",
}
#: If the disk has fewer free bytes than this, an error of another class is reported as a full disk.
_FULL = 1 << 20


@contextlib.contextmanager
def explain_disk_errors(root: Path) -> Iterator[None]:
    """Return a context that replaces disk errors by a StorageError that names a remedy.

    FAISS, TensorFlow, Arrow and zip files report a full disk by their own error classes, which are
    not OSErrors. So the free disk space is checked after errors of other classes.

    Args:
        root: the folder that is written to within the context.

    Raises:
        StorageError: a file could not be read or written because of the disk.
    """
    try:
        yield
    except (TwoTowerError, KeyboardInterrupt, SystemExit):
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        number = error.errno or _disk_fault(error)
        path = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str) else root
        if path.absolute().is_relative_to(root.absolute()):
            remedy = _REMEDIES.get(number, f"{reason}: correct that, or choose another --run")
            what = f"Writing {path} failed; {remedy}."
        else:
            what = f"{path} cannot be used: {reason}. Check that it exists and that you may use it."
        raise StorageError(f"{what} Nothing half-written was kept.") from error
    except Exception as error:
        number = _disk_fault(error) or (errno.ENOSPC if _is_full(root) else 0)
        if not number:
            raise
        raise StorageError(
            f"Writing {root} failed; {_REMEDIES[number]}. Nothing half-written was kept."
        ) from error


#: Text in a library's error message → error number of the operating system.
_DISK_FAULTS = {
    "disk is full": errno.ENOSPC,
    **{
        os.strerror(number): number
        for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
    },
}


def _disk_fault(error: Exception) -> int:
    """Return the errno of the disk error that caused an exception; 0 if there is no such error."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _DISK_FAULTS.values():
            return cause.errno or 0
        for text, number in _DISK_FAULTS.items():
            if text in str(cause):
                return number
        cause = cause.__cause__ or cause.__context__
    return 0


def _is_full(root: Path) -> bool:
    with contextlib.suppress(OSError):
        return shutil.disk_usage(root).free < _FULL
    return False
