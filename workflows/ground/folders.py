"""Folders for other programs: filled aside and put in place whole, over nobody else's files."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from models.core import atomic
from workflows.ground.errors import StorageError


@contextlib.contextmanager
def replaced(folder: Path, *, refuse: Callable[[Path], None]) -> Iterator[Path]:
    """Give a folder to fill; put it in place of another if, and only if, the block ends well.

    Args:
        folder: where it goes.
        refuse: raises StorageError for a folder that may not be overwritten.

    Raises:
        StorageError: there are other files, or the disk refuses.
    """
    folder = folder.resolve()  # "." has no name
    aside = folder.with_name(f".{folder.name}.new")
    try:
        atomic.recover(folder)
        refuse(folder)
        atomic.remove(aside)
        aside.mkdir(parents=True)
        try:
            yield aside
            atomic.put_in_place(aside, folder)
        finally:
            atomic.remove(aside)
    except OSError as error:
        raise StorageError(
            f"Writing {error.filename or folder} failed: {_said(error)}. Make room, permit "
            "writing there, or choose another folder. Nothing half-written was kept."
        ) from error


def _said(error: OSError) -> str:
    """Return what went wrong; shutil gathers the errors of many files in one without a message."""
    if isinstance(error, shutil.Error) and error.args and error.args[0]:
        return str(error.args[0][0][-1])
    return error.strerror or str(error)


def refuse_foreign(folder: Path, *, ours: str) -> None:
    """Refuse a folder that holds something, but not the path that says that it was written so."""
    empty = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    if not empty and not (folder / ours).exists():
        raise StorageError(
            f"{folder} is there and holds no {ours}, so it is not overwritten. Choose another "
            "folder, or move it away."
        )
