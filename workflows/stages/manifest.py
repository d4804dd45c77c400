"""The manifest of a stage: the list of its files, and the inputs that it was made from."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import msgspec

from models.core import atomic
from workflows.ground import trust
from workflows.ground.device import Device
from workflows.ground.versions import versions
from workflows.recipe import Recipe
from workflows.stages.dependencies import PARTS

MANIFEST = "manifest.json"
#: File of seconds. It is checked like any other file, but is not in a stage's digest: the same
#: work done again at another speed leaves later stages fresh.
TIMES = "times.json"


class FileFact(msgspec.Struct, frozen=True):
    """Size in bytes and SHA-256 of a file of a stage, as its manifest lists them."""

    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The description of a finished stage (manifest.json): files with hashes, inputs, and recipe.

    Attributes:
        stage: name of the stage, such as etl or export.
        recipe_hash: hash of the whole recipe.
        parts_hash: hash of the parts of the recipe that the stage reads.
        inputs: earlier stage that was read → digest of its manifest.
        device: the device that made the stage, cpu or gpu.
        device_why: the reason why that device was chosen.
        created: time at which the stage was finished, in UTC, ISO 8601.
        versions: versions of this package and its dependencies that made the stage.
        rows: name of a count of the stage's data, such as `users` → the count.
        metrics: the most important metrics of the stage.
        options: command-line options of the verb that made the stage, which are not in the recipe.
        files: path in the stage's folder → size and SHA-256 of the file.
        recipe: the recipe that the stage was made from, with defaults filled in.
        signature: HMAC of all other fields if the environment has a signing key, else empty.
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
    signature: str = ""

    @property
    def content(self) -> bytes:
        """The bytes of the manifest that are signed: all fields except the signature."""
        bare = msgspec.structs.replace(self, signature="")
        return msgspec.json.encode(bare, order="sorted")

    @property
    def digest(self) -> str:
        """SHA-256 of the content of a stage, which does not depend on the time when it was made."""
        files = {name: fact for name, fact in self.files.items() if name != TIMES}
        content = {"parts": self.parts_hash, "inputs": self.inputs, "files": files}
        return hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()


@dataclass
class Draft:
    """A stage that is being written: files (in `folder`), counts, metrics and options."""

    folder: Path
    rows: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)


def sign(draft: Draft, stage: str, recipe: Recipe, device: Device, inputs: dict[str, str]) -> None:
    """Write the manifest of a stage that was written as a draft, which makes it a finished stage.

    Args:
        draft: the files, counts, metrics and options of the stage.
        stage: name of the stage.
        recipe: the recipe that the stage was made from.
        device: the device of this process.
        inputs: earlier stage → digest of its manifest.
    """
    files = sorted(p for p in draft.folder.rglob("*") if p.is_file())
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        digests = list(threads.map(atomic.sha256, files))
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
    signed = msgspec.structs.replace(manifest, signature=trust.signature(manifest.content))
    text = msgspec.json.format(msgspec.json.encode(signed), indent=2)
    (draft.folder / MANIFEST).write_bytes(text)


class _Kind(msgspec.Struct):
    """The field of a manifest that says which stage it describes."""

    stage: str


def is_export(path: Path) -> bool:
    """Return whether a path is the folder of an export rather than the folder of a run."""
    if not (path / MANIFEST).is_file():
        return False
    try:
        kind = msgspec.json.decode((path / MANIFEST).read_bytes(), type=_Kind)
    except (OSError, msgspec.DecodeError):
        return True  # its readers say what is wrong with it
    return kind.stage == "export"
