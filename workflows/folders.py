"""Folders for other programs: filled aside and put in place whole, over nobody else's files."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from workflows.errors import StorageError


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
    aside, old = (folder.with_name(f".{folder.name}.{what}") for what in ("new", "old"))
    try:
        _restore(folder, old)
        refuse(folder)
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        try:
            yield aside
            if folder.exists():
                folder.rename(old)
            aside.rename(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
            _restore(folder, old)
    except OSError as error:
        raise StorageError(
            f"Writing {error.filename or folder} failed: {error.strerror}. Make room, permit "
            "writing there, or choose another folder. Nothing half-written was kept."
        ) from error


def _restore(folder: Path, old: Path) -> None:
    """Bring back the old folder if its replacement did not come, else remove it."""
    if old.exists() and not folder.exists():
        old.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def refuse_foreign(folder: Path, *, ours: str) -> None:
    """Refuse a folder that holds something, but not the path that says that it was written so."""
    empty = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    if not empty and not (folder / ours).exists():
        raise StorageError(
            f"{folder} is there and holds no {ours}, so it is not overwritten. Choose another "
            "folder, or move it away."
        )
