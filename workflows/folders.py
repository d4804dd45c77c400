"""Folders for other programs: filled aside and put in place whole, over nobody else's files."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from workflows.errors import StorageError


@contextlib.contextmanager
def replaced(folder: Path, *, ours: str) -> Iterator[Path]:
    """Give a folder to fill; put it in place if, and only if, the block ends well.

    Args:
        folder: where it goes.
        ours: a path in it that says that it was written so; another folder is not overwritten.

    Raises:
        StorageError: there are other files, or the disk refuses.
    """
    empty = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    if not empty and not (folder / ours).exists():
        raise StorageError(
            f"{folder} is there and holds no {ours}, so it is not overwritten. Choose another "
            "folder, or move it away."
        )
    aside = folder.with_name(f".{folder.name}.new")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        try:
            yield aside
            shutil.rmtree(folder, ignore_errors=True)
            aside.rename(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise StorageError(
            f"Writing {error.filename or folder} failed: {error.strerror}. Make room, permit "
            "writing there, or choose another folder. Nothing half-written was kept."
        ) from error
