"""runs/<name>/<stage>/: written aside, renamed into place, its manifest last.

A stage folder is either whole or absent. What makes it whole is manifest.json: the recipe and its
hash, the inputs' digests, versions, the device and why, and size and SHA-256 of every file. A
reader checks it all, so a stale, half-written or tampered stage is refused with the command that
renews it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import msgspec

from workflows.device import Device
from workflows.errors import ArtifactError, MissingStage, StaleInput, StorageError, TwoTowerError
from workflows.recipe import Recipe, parse

MANIFEST = "manifest.json"
#: What each stage reads of the recipe, and which earlier stages it reads.
PARTS: dict[str, tuple[str, ...]] = {
    "etl": (
        "sources",
        "interactions",
        "features",
        "split",
        "pivot",
        "derive",
        "join",
        "filter",
        "history",
        "vocabulary",
    ),
    "train": (
        *("model", "loss", "optimizer", "prior", "train", "offers"),
        # what its validation reads; other baselines or intervals leave the model as it is
        *("evaluate.ks", "evaluate.exclude_seen", "evaluate.candidates"),
    ),
    "tune": (
        *("model", "loss", "optimizer", "train", "tune.trials", "tune.space"),
        *("evaluate.ks", "evaluate.exclude_seen", "evaluate.candidates"),
    ),
    "evaluate": ("evaluate", "fallback", "tasks"),
    "export": ("name", "model", "tasks"),
    "index": ("index",),
    "recommend": ("fallback", "evaluate.candidates"),
    "report": ("name", "description"),
}
INPUTS: dict[str, tuple[str, ...]] = {
    "etl": (),
    "train": ("etl",),
    "tune": ("etl",),
    "evaluate": ("etl", "train"),
    "export": ("etl", "train"),
    "index": ("export",),
    "recommend": ("etl", "export"),
    "report": ("etl", "train", "evaluate"),
}
_VERSIONS = ("merlin-two-tower", "nvtabular", "merlin-models", "merlin-core", "numpy", "pyarrow")
_TENSORFLOW = ("tensorflow", "tensorflow-cpu")


class FileFact(msgspec.Struct, frozen=True):
    """Size in bytes and SHA-256 of a file."""

    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a stage says of itself.

    Attributes:
        stage: its name.
        recipe_hash: of the whole recipe.
        parts_hash: of the parts of the recipe that the stage reads.
        inputs: earlier stage → digest of its manifest.
        device: cpu or gpu.
        device_why: why it was that one.
        created: UTC, ISO 8601.
        versions: of this package and those it stands on.
        rows: counts of what was written.
        metrics: headline figures.
        options: choices of the call that are no part of the recipe.
        files: path in the folder → size and hash.
        recipe: the recipe, defaults filled in.
    """

    stage: str
    recipe_hash: str
    parts_hash: str
    inputs: dict[str, str]
    device: str
    device_why: str
    created: str
    versions: dict[str, str]
    rows: dict[str, int]
    metrics: dict[str, float]
    options: dict[str, str]
    files: dict[str, FileFact]
    recipe: dict[str, Any]

    @property
    def digest(self) -> str:
        """SHA-256 of what the stage holds; the same for the same files, whenever they were made."""
        content = {"parts": self.parts_hash, "inputs": self.inputs, "files": self.files}
        return hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()


@dataclass
class Draft:
    """A stage that is being written: fill `folder`, then note counts, figures and options."""

    folder: Path
    rows: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)


class Store:
    """The stage folders of one run."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, stage: str) -> Path:
        """Return where a stage's finished output lies (whether or not it is there)."""
        return self.root / stage

    @contextlib.contextmanager
    def write(self, stage: str, recipe: Recipe, device: Device) -> Iterator[Draft]:
        """Write a stage aside and put it in place if, and only if, the block ends well.

        Raises:
            StorageError: no space, no permission, or another process is writing this run.
            MissingStage, StaleInput, ArtifactError: of the stages that this one reads.
        """
        inputs = {name: self.read(name, recipe).digest for name in INPUTS[stage]}
        with _explained(self.root), self._locked():
            self._tidy(stage)
            aside = self.root / f".{stage}.new"
            aside.mkdir()
            draft = Draft(aside)
            try:
                yield draft
                _sign(draft, stage, recipe, device, inputs)
            except BaseException:
                shutil.rmtree(aside, ignore_errors=True)
                raise
            self._swap(stage)

    def read(self, stage: str, recipe: Recipe, *, deep: bool = True) -> Manifest:
        """Return the manifest of a finished stage after checking that it may be used.

        Args:
            stage: its name.
            recipe: what it must have been made from.
            deep: compare the hash of every file too, not only its size.

        Raises:
            MissingStage, StaleInput, ArtifactError: each names the command that mends it.
        """
        manifest = self._manifest(stage)
        redo = f"Run `two-tower {stage}` (or `make {stage}`) again."
        if manifest.parts_hash != recipe.digest(*PARTS[stage]):
            now = recipe.to_dict()
            changed = [p for p in PARTS[stage] if _at(manifest.recipe, p) != _at(now, p)]
            raise StaleInput(
                f"{self.folder(stage)} was made from another recipe: {', '.join(changed)} changed "
                f"since. {redo}"
            )
        for name, digest in manifest.inputs.items():
            if self._manifest(name).digest != digest:
                raise StaleInput(
                    f"{self.folder(stage)} was made from an earlier {name} stage than the one in "
                    f"{self.folder(name)}. {redo}"
                )
        self._check_files(stage, manifest, deep=deep, redo=redo)
        return manifest

    def digest(self, stage: str) -> str:
        """Return the digest of a finished stage, whatever recipe it was made from.

        Raises:
            MissingStage, ArtifactError: there is none.
        """
        return self._manifest(stage).digest

    def recipe(self, stage: str) -> Recipe:
        """Return the recipe that a finished stage was made from.

        Raises:
            MissingStage, ArtifactError: there is none.
        """
        return parse(self._manifest(stage).recipe, where=str(self.folder(stage) / MANIFEST))

    def _manifest(self, stage: str) -> Manifest:
        folder = self.folder(stage)
        self._mend(stage)
        if not folder.is_dir():
            raise MissingStage(
                f"{folder} is not there yet. Run `two-tower {stage}` (or `make {stage}`) first."
            )
        try:
            return msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
        except (OSError, msgspec.DecodeError) as error:
            raise ArtifactError(
                f"{folder / MANIFEST} cannot be read ({error}); the stage is half-written or "
                f"damaged. Remove {folder} and run `two-tower {stage}` again."
            ) from None

    def _check_files(self, stage: str, manifest: Manifest, *, deep: bool, redo: str) -> None:
        folder = self.folder(stage)
        there = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} - {MANIFEST}
        for name in sorted(there ^ set(manifest.files)):
            what = "is not in its manifest" if name in there else "is missing"
            raise ArtifactError(f"{folder / name} {what}; the stage was changed by hand. {redo}")
        for name, fact in manifest.files.items():
            path = folder / name
            if path.stat().st_size != fact.bytes or (deep and sha256(path) != fact.sha256):
                raise ArtifactError(
                    f"{path} is not the file that its manifest describes (size or SHA-256 differ); "
                    f"it was changed or damaged. {redo}"
                )

    def _swap(self, stage: str) -> None:
        """Put the new folder in place. A kill between the renames is mended by `_restore`."""
        final, new, old = (self.root / n for n in (stage, f".{stage}.new", f".{stage}.old"))
        if final.exists():
            final.rename(old)
        new.rename(final)
        shutil.rmtree(old, ignore_errors=True)

    def _mend(self, stage: str) -> None:
        """Restore as a reader: a writer that is between the renames is left to finish."""
        if (self.root / f".{stage}.old").exists() and not self.folder(stage).exists():
            with contextlib.suppress(StorageError, OSError), self._locked():
                self._restore(stage)

    def _restore(self, stage: str) -> None:
        """Bring back the old result if a kill came between moving it aside and its replacement."""
        final, old = self.root / stage, self.root / f".{stage}.old"
        if old.exists() and not final.exists():
            old.rename(final)

    def _tidy(self, stage: str) -> None:
        self._restore(stage)
        for leftover in (f".{stage}.new", f".{stage}.old"):
            shutil.rmtree(self.root / leftover, ignore_errors=True)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".lock").open("w") as lock:
            _lock(lock, self.root)
            yield


def _at(recipe: Any, path: str) -> Any:
    """Return what stands at `train` or `evaluate.ks` of a recipe's plain data, None if nothing."""
    for step in path.split("."):
        recipe = recipe.get(step) if isinstance(recipe, dict) else None
    return recipe


def _lock(lock: IO[str], root: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StorageError(
            f"Another process is writing {root}. Wait for it, or choose another --run."
        ) from None


@contextlib.contextmanager
def _explained(root: Path) -> Iterator[None]:
    """Say what to do about a disk that refuses."""
    remedies = {
        errno.ENOSPC: "no space is left on the device: free some, or choose another --run",
        errno.EDQUOT: "the disk quota is used up: free some, or choose another --run",
        errno.EACCES: "permission denied: choose a --run that you may write",
        errno.EROFS: "the file system is read-only: choose a --run that you may write",
        errno.EEXIST: "a file stands in the way: remove it, or choose another --run",
        errno.ENOTDIR: "a file stands in the way: remove it, or choose another --run",
        errno.EFBIG: "the file would be larger than this process may write (ulimit -f)",
    }
    try:
        yield
    except TwoTowerError:
        raise
    except OSError as error:
        if error.errno not in remedies:
            raise
        raise StorageError(
            f"Writing {error.filename or root} failed; {remedies[error.errno]}. "
            "Nothing half-written was kept."
        ) from error


def _sign(draft: Draft, stage: str, recipe: Recipe, device: Device, inputs: dict[str, str]) -> None:
    files = sorted(p for p in draft.folder.rglob("*") if p.is_file())
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        digests = list(threads.map(sha256, files))
    manifest = Manifest(
        stage=stage,
        recipe_hash=recipe.digest(),
        parts_hash=recipe.digest(*PARTS[stage]),
        inputs=inputs,
        device=device.kind,
        device_why=device.why,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        versions=versions(),
        rows=draft.rows,
        metrics=draft.metrics,
        options=draft.options,
        files={
            str(path.relative_to(draft.folder)): FileFact(path.stat().st_size, digest)
            for path, digest in zip(files, digests, strict=True)
        },
        recipe=recipe.to_dict(),
    )
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    path = draft.folder / MANIFEST
    with path.open("wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, read piece by piece."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Return the installed versions of Python, this package and those it stands on."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in (*_VERSIONS, *_TENSORFLOW):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
