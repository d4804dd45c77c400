"""Write output folders completely or not at all; never overwrite folders of other programs."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from models.core import atomic
from workflows.ground.errors import StorageError


@contextlib.contextmanager
def replace_folder(folder: Path, *, refuse: Callable[[Path], None]) -> Iterator[Path]:
    """Return a context with a new empty folder, which replaces `folder` if no error occurs.

    Args:
        folder: path of the folder to write or replace.
        refuse: function that raises StorageError for a folder that may not be overwritten.

    Raises:
        StorageError: `refuse` raised it, or the disk cannot be written.
    """
    folder = folder.resolve()  # "." has no name
    try:
        atomic.recover(folder)
        refuse(folder)
        with atomic.new_folder(folder) as aside:
            yield aside
    except OSError as error:
        raise StorageError(
            f"Writing {error.filename or folder} failed: {_reason(error)}. Make room, permit "
            "writing there, or choose another folder. Nothing half-written was kept."
        ) from error


def _reason(error: OSError) -> str:
    """Return the reason of a file error as text; of a shutil.Error, the first of its reasons."""
    if isinstance(error, shutil.Error) and error.args and error.args[0]:
        return str(error.args[0][0][-1])
    return error.strerror or str(error)


def refuse_foreign(folder: Path, *, ours: str) -> None:
    """Refuse to overwrite a folder that another program wrote.

    Args:
        folder: the folder that is to be overwritten.
        ours: relative path of a file that this package writes into every folder of this kind.

    Raises:
        StorageError: the folder holds files that this package did not write.
    """
    empty = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    if not empty and not (folder / ours).exists():
        raise StorageError(
            f"{folder} exists and holds no {ours}, so it is not overwritten. Choose another "
            "folder, or move it away."
        )
