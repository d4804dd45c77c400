"""Lock the folder of a run, so that only one process writes to it at a time."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from models.core import atomic
from workflows.ground.errors import StorageError

log = logging.getLogger(__name__)


@contextlib.contextmanager
def lock_run(lock: Path) -> Iterator[None]:
    """Return a context that holds the write lock of a run until its exit or the process's end.

    Args:
        lock: the lock file in the folder of the run, which is created if it does not exist.

    Raises:
        StorageError: another process holds the lock of the run.
        OSError: the folder or the lock file cannot be written.
    """
    atomic.make_folders(lock.parent)
    descriptor = atomic.open_regular_file(lock)
    try:
        _lock(descriptor, lock.parent)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, root: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _busy(root) from None
    except OSError as error:
        _lock_by_range(descriptor, root, error)


def _lock_by_range(descriptor: int, root: Path, why: OSError) -> None:
    """Lock a run with a POSIX lock, for network file systems that do not support flock."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        raise _busy(root) from None
    except OSError:
        log.warning(
            "The file system of %s has no locks (%s). Make sure that no two processes write this "
            "run at once.",
            *(root, why.strerror),
        )


def _busy(root: Path) -> StorageError:
    return StorageError(f"Another process is writing {root}. Wait for it, or choose another --run.")
