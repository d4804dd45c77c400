"""The store reads and writes stage folders, runs/<name>/<stage>/, atomically.

A stage folder is complete if it has a manifest.json, which holds the recipe and its hash, the
digests of the inputs, versions, the device and the reason for it, and the size and SHA-256 of every
file. A reader checks the manifest, so that a stale, incomplete or damaged stage is refused with the
command that makes it again. The hashes detect damage, not attacks: an attacker who can write to the
folder can also change its manifest.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
import pyarrow as pa

from models.core import atomic
from workflows.ground import trust
from workflows.ground.device import Device
from workflows.ground.disk_errors import explain_disk_errors
from workflows.ground.errors import (
    ArtifactError,
    MissingStage,
    RecipeError,
    StaleInput,
    StorageError,
    TwoTowerError,
)
from workflows.ground.invocation import Invocation
from workflows.ground.run_lock import lock_run
from workflows.recipe import Recipe, parse
from workflows.recipe.changes import changes
from workflows.stages.dependencies import INPUTS, PARTS
from workflows.stages.manifest import MANIFEST, Draft, Manifest, is_export, sign

log = logging.getLogger(__name__)

trust.patch_arrow()  # before the first file is read

Found = TypeVar("Found")

#: File beside the stages, while a fit is not finished, from which `train --resume` goes on.
CHECKPOINT = ".train.checkpoint"
#: How often a reader tries to read stages that are being replaced.
_ATTEMPTS = 5


class Store:
    """The stage folders of one run, or of an export that was copied without its run.

    The other stages of a copied export are folders beside the export: the index of `shop/` is
    `shop.index/`.

    Args:
        path: folder of the run, or of the copied export.
        invocation: the command line of this process, from which messages derive the next command.
    """

    def __init__(self, path: Path, invocation: Invocation | None = None) -> None:
        self.invocation, self.path = invocation or Invocation(), path
        self.root, self._export = _located(path) if is_export(path) else (path, "")

    @property
    def name(self) -> str:
        """The name of the run, or of the folder of an export that was copied without its run."""
        return self._export or self.root.name

    @property
    def is_copy(self) -> bool:
        """Whether the folder is that of an export that was copied without its run."""
        return bool(self._export)

    def folder(self, stage: str) -> Path:
        """Return the path of a stage's folder, which need not exist."""
        if not self._export:
            return self.root / stage
        if stage == "export":
            return self.root / self._export
        return self.root / f"{self._export}.{stage.removeprefix('.')}"

    @property
    def _lock(self) -> Path:
        return self.root / (f".{self._export}.lock" if self._export else ".lock")

    @contextlib.contextmanager
    def write(self, stage: str, recipe: Recipe, device: Device) -> Iterator[Draft]:
        """Return a context that writes a stage to a temporary folder, then moves it into the run.

        Raises:
            StorageError: the disk is full, a permission is missing, or another process writes the
                run.
            MissingStage, StaleInput, ArtifactError: a stage that this one reads cannot be used.
        """
        for name in INPUTS[stage]:
            self.manifest(name)  # a missing stage is refused before anything is written
        with explain_disk_errors(self.root), lock_run(self._lock):
            # no other process writes this run now, so the block reads the inputs that are signed
            inputs = {name: self.read(name, recipe).digest for name in INPUTS[stage]}
            final = self.folder(stage)
            with atomic.new_folder(final) as aside:
                draft = Draft(aside)
                yield draft
                draft.options |= self.invocation.options(self.root)
                sign(draft, stage, recipe, device, inputs)
                if final.is_symlink():
                    log.warning(
                        "%s was a link to %s. It becomes a folder of this run; what the link leads "
                        "to stays as it is. To keep runs on another disk, link the whole run "
                        "folder.",
                        *(final, final.readlink()),
                    )

    def read(self, stage: str, recipe: Recipe, *, deep: bool = True) -> Manifest:
        """Return the manifest of a finished stage after checking that it may be used.

        Digests of earlier stages are compared only if the stages exist: a copied export lacks them.

        Args:
            stage: name of the stage.
            recipe: the recipe from which the stage must have been made.
            deep: whether the hash of every file is compared, not only its size.

        Raises:
            MissingStage, StaleInput, ArtifactError: the stage cannot be used; the message names the
                command that corrects it.
        """
        manifest = self.manifest(stage)
        redo = self._redo(stage)
        if manifest.parts_hash != recipe.digest(*PARTS[stage]):
            own = (
                f" Or take the run's own recipe: {self.invocation.own}."
                if self.invocation.own
                else ""
            )
            raise StaleInput(
                f"{self.folder(stage)} was made from another recipe: "
                f"{changes(PARTS[stage], manifest.recipe, recipe.to_dict())}. {redo}{own}"
            )
        for name, digest in manifest.inputs.items():
            if self._has(name) and self.manifest(name).digest != digest:
                raise StaleInput(
                    f"{self.folder(stage)} was made from an earlier {name} stage than the one in "
                    f"{self.folder(name)}. {redo}"
                )
        self._check_files(stage, manifest, deep=deep, redo=redo)
        return manifest

    def digest(self, stage: str) -> str:
        """Return the digest of a finished stage's manifest, without comparing recipes.

        Raises:
            MissingStage, ArtifactError: there is no such stage, or its manifest is damaged.
        """
        return self.manifest(stage).digest

    def recipe(self, stage: str) -> Recipe:
        """Return the recipe that a finished stage was made from.

        Raises:
            MissingStage, ArtifactError: there is no such stage, or its manifest is damaged.
            StaleInput: another version of the package made it, whose recipes have other fields.
        """
        recipe = self.manifest(stage).recipe
        try:
            return parse(recipe, where=str(self.folder(stage) / MANIFEST))
        except RecipeError as error:
            redo = self._redo(stage if self.is_copy else "etl")
            fault = str(error).partition(" Fields here:")[0].rstrip(".")
            raise StaleInput(
                f"{self.folder(stage)} was made by another version of this package, whose recipes "
                f"have other fields ({fault}). {redo} The verbs after it need to run again, too."
            ) from None

    def manifest(self, stage: str) -> Manifest:
        """Read the manifest of a finished stage without comparing it with the recipe and the files.

        Raises:
            MissingStage, ArtifactError: there is no manifest, or it cannot be read.
        """
        folder = self.folder(stage)
        if not self._has(stage):
            raise MissingStage(
                f"{folder} is not there yet. Run {self.invocation.command(stage)} first."
            )
        try:
            if not (folder / MANIFEST).is_file():  # reading a pipe would wait for ever
                raise FileNotFoundError(errno.ENOENT, "No such file, or no regular one")
            manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
        except (OSError, msgspec.DecodeError) as error:
            raise ArtifactError(
                f"{folder / MANIFEST} cannot be read ({error}); the stage is half-written or "
                f"damaged. Remove {folder}. {self._redo(stage)}"
            ) from None
        trust.refuse_unsigned(manifest.content, manifest.signature, folder / MANIFEST)
        if set(manifest.inputs) != set(INPUTS[stage]):  # their names become paths
            raise ArtifactError(
                f"{folder / MANIFEST} says that {stage} was made from "
                f"{', '.join(map(repr, manifest.inputs)) or 'nothing'}; expected "
                f"{', '.join(map(repr, INPUTS[stage])) or 'nothing'}: the stage is damaged. Remove "
                f"{folder}. {self._redo(stage)}"
            )
        return manifest

    def _redo(self, stage: str) -> str:
        """Return a sentence with the command that makes a missing, stale or damaged stage again."""
        if self.is_copy and stage == "export":
            return "Copy the export of its run again."
        return f"Run {self.invocation.command(stage)} again."

    def _check_files(self, stage: str, manifest: Manifest, *, deep: bool, redo: str) -> None:
        folder = self.folder(stage)
        there = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} - {MANIFEST}
        for name in sorted(there ^ set(manifest.files)):
            what = "is not in its manifest" if name in there else "is missing"
            raise ArtifactError(f"{folder / name} {what}; the stage was changed by hand. {redo}")
        for name, fact in manifest.files.items():
            path = folder / name
            if path.stat().st_size != fact.bytes or (deep and atomic.sha256(path) != fact.sha256):
                raise ArtifactError(
                    f"{path} is not the file that its manifest describes (size or SHA-256 differ); "
                    f"it was changed or damaged. {redo}"
                )

    def _has(self, stage: str) -> bool:
        """Return whether the folder of a stage exists, without checking its content."""
        self._mend(stage)
        return self.folder(stage).is_dir()

    def _mend(self, stage: str) -> None:
        """Restore the older version of a stage if a writer was killed while it replaced the folder.

        Nothing is changed while another process is replacing the folder.
        """
        final = self.folder(stage)
        if atomic.exists(atomic.older_path(final)) and not atomic.exists(final):
            with contextlib.suppress(StorageError, OSError), lock_run(self._lock):
                atomic.recover(final)

    def read_consistently(self, stages: Sequence[str], read: Callable[[], Found]) -> Found:
        """Return what a function reads from some stages, all from the same version of each stage.

        Stages are not locked: if a process replaces one of them meanwhile, the function is called
        again.

        Args:
            stages: names of the stages that are read.
            read: the function that reads the stages; it may be called several times.

        Raises:
            StaleInput: the stages were replaced during each of several attempts.
        """
        for _ in range(_ATTEMPTS):
            before = self.stamps(stages)
            try:
                found = read()
            except (OSError, pa.ArrowException, TwoTowerError):
                if self.stamps(stages) == before:
                    raise
                continue
            if self.stamps(stages) == before:
                return found
        raise StaleInput(
            f"{self.path} was written again and again while it was being read. Try again when no "
            "other process writes it."
        )

    def stamps(self, stages: Sequence[str]) -> tuple[tuple[int, int] | None, ...]:
        """Return, for each stage, a value that changes when it is replaced; None if missing."""
        return tuple(self._stamp(stage) for stage in stages)

    def _stamp(self, stage: str) -> tuple[int, int] | None:
        try:
            fact = (self.folder(stage) / MANIFEST).stat()
        except OSError:
            return None
        return fact.st_ino, fact.st_mtime_ns


def _located(export: Path) -> tuple[Path, str]:
    """Return the folder that has the stages and, for a copied export, its name (else "")."""
    if export.name in ("", ".."):  # such as the working folder
        whole = export.resolve()
        export = Path(os.path.relpath(whole.parent)) / whole.name
    return export.parent, "" if export.name == "export" else export.name
