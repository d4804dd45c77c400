"""Finds losses without code of the package: it reads files with json, hashlib, pyarrow and NumPy.

A loss is a traceback, an exit code other than 0, 2 and 3, a process that does not end, a signed
result that cannot be read, an old result that is gone, and an incomplete file that is left.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from forked import Ended

#: Seconds after which a verb on the tiny run counts as hung.
PATIENCE = 30
#: Hidden files that a run may have.
_KEPT = (".lock", ".tune.journal")


def ended_badly(ended: Ended, *expected: int) -> list[str]:
    """Return the losses of a process that was not killed as planned.

    Args:
        ended: the process.
        expected: right exit codes; by default 0, 2 and 3.
    """
    if ended.hung:
        return [f"no end within {ended.seconds:.0f} s"]
    faults = []
    if "Traceback (most recent call last)" in ended.err:
        faults.append("a traceback: " + _last(ended.err))
    if ended.code not in (expected or (0, 2, 3)):
        faults.append(f"exit code {ended.code}: {_last(ended.err)}")
    return faults


def _last(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1][:300]


def digest(stage: Path) -> str:
    """Return a hash of the content of a stage; "" if it is missing or incomplete.

    The times in `times.json` are left out.
    """
    if damaged(stage) or not stage.is_dir():
        return ""
    manifest = json.loads((stage / "manifest.json").read_bytes())
    facts = {name: fact for name, fact in manifest["files"].items() if name != "times.json"}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def name(stage: Path) -> str:
    """Return the name of the recipe of a stage; "" if the stage is missing or incomplete.

    It identifies results whose files differ between two equal runs, such as SavedModels.
    """
    if damaged(stage) or not stage.is_dir():
        return ""
    return str(json.loads((stage / "manifest.json").read_bytes())["recipe"]["name"])


def damaged(stage: Path) -> list[str]:
    """Return the losses of a stage that exists, beginning with its manifest."""
    if not stage.is_dir():
        return []
    path = stage / "manifest.json"
    try:
        manifest = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        return [f"{path.parent.name}/manifest.json cannot be read: {error}"]
    there = {str(p.relative_to(stage)) for p in stage.rglob("*") if p.is_file()}
    if there != {"manifest.json", *manifest["files"]}:
        return [f"{stage.name} holds other files than its manifest says"]
    faults = []
    for name, fact in manifest["files"].items():
        content = (stage / name).read_bytes()
        if (len(content), hashlib.sha256(content).hexdigest()) != (fact["bytes"], fact["sha256"]):
            faults.append(f"{stage.name}/{name} is not what its manifest says")
        elif fault := _unreadable(stage / name):
            faults.append(f"{stage.name}/{name} is signed and cannot be read: {fault}")
    return faults


def _unreadable(path: Path) -> str:
    """Return why a file cannot be read; "" if it can, or if its format is not checked."""
    try:
        if path.suffix == ".parquet":
            # the parent of forks must not start threads
            pq.ParquetFile(path).read(use_threads=False)
        elif path.suffix == ".json":
            json.loads(path.read_bytes())
        elif path.suffix in (".jsonl", ".ndjson"):
            for line in path.read_bytes().splitlines():
                json.loads(line)
        elif path.suffix == ".npy":
            np.load(path, allow_pickle=False)
    except (OSError, ValueError, pa.ArrowException) as error:
        return str(error)[:200]
    return ""


def damaged_run(run: Path) -> list[str]:
    """Return the losses of all stages of a run."""
    stages = [p for p in run.iterdir() if p.is_dir() and not p.name.startswith(".")]
    return [fault for stage in stages if stage.name != "opensearch" for fault in damaged(stage)]


def bulk(folder: Path) -> str:
    """Return a hash of the content of a folder for OpenSearch; "" if it is incomplete."""
    try:
        json.loads((folder / "index.json").read_bytes())
        parts = sorted(folder.glob("bulk-*.ndjson"))
        lines = [line for part in parts for line in part.read_bytes().splitlines()]
        decoded = [json.loads(line) for line in lines]
    except (OSError, ValueError):
        return ""
    if not decoded or len(decoded) % 2 or not all("index" in line for line in decoded[::2]):
        return ""
    return hashlib.sha256(b"\n".join(lines)).hexdigest()


def left_over(folder: Path, *kept: str) -> list[str]:
    """Return incomplete files in a run, and files left in the temporary folder beside it.

    Args:
        folder: holds the run and the temporary folder.
        kept: names that may be in the run, beside those that may always be there.
    """
    run, temporary = folder / "run", folder / "tmp"
    hidden = [p for p in run.glob(".*") if p.name not in (*_KEPT, *kept)]
    faults = [f"{p.name} is left in the run" for p in sorted(hidden) if not _whole_shards(p)]
    left = sorted(p.name for p in temporary.iterdir()) if temporary.is_dir() else []
    # TensorFlow removes these at the exit of Python, which a forked child skips
    left = [name for name in left if not name.startswith("__autograph_generated_file")]
    return faults + [f"{name} is left in the temporary folder" for name in left]


def _whole_shards(folder: Path) -> bool:
    """Return whether these are finished shards of lists, from which the same command continues."""
    if folder.name != ".recommend.shards":
        return False
    files = [p for p in folder.rglob("*") if p.is_file()]
    parts = {p for p in files if p.name.startswith("part-") and p.suffix != ".json"}
    facts = {p.with_suffix(".json") for p in parts}
    if not parts or set(files) != parts | facts:
        return False
    return all(_is_of(json.loads(part.with_suffix(".json").read_bytes()), part) for part in parts)


def _is_of(fact: dict[str, object], part: Path) -> bool:
    return fact["sha256"] == hashlib.sha256(part.read_bytes()).hexdigest()
