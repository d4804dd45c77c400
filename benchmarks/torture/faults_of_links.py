"""Planted faults: links, pipes and folders in place of files; their targets must not change."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from tampering import resign


def _link(name: str, inside: str = "") -> Callable[[Path, Path], None]:
    def plant(run: Path, victim: Path) -> None:
        _clear(run / name)
        (run / name).symlink_to(victim / inside if inside else victim)

    return plant


def _clear(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _pipe(name: str, *, signed: bool = False) -> Callable[[Path, Path], None]:
    def plant(run: Path, victim: Path) -> None:
        _clear(run / name)
        os.mkfifo(run / name)
        if signed:
            resign(run / name.split("/")[0])

    return plant


def _folder(name: str) -> Callable[[Path, Path], None]:
    def plant(run: Path, victim: Path) -> None:
        _clear(run / name)
        (run / name / "inside").mkdir(parents=True)

    return plant


def _moved(stage: str) -> Callable[[Path, Path], None]:
    """Return a function that moves a stage to another place and leaves a link, which is allowed."""

    def plant(run: Path, victim: Path) -> None:
        elsewhere = run.parent / "elsewhere"
        (run / stage).rename(elsewhere)
        (run / stage).symlink_to(elsewhere)

    return plant


def _link_and_sign(name: str, to: str) -> Callable[[Path, Path], None]:
    def plant(run: Path, victim: Path) -> None:
        _clear(run / name)
        (run / name).symlink_to(to)
        resign(run / name.split("/")[0])

    return plant


def _loop(run: Path, victim: Path) -> None:
    (run / "export" / "loop").symlink_to(run / "export")


#: Description, function that plants the fault, verbs, right exit codes.
LINKS = (
    ("the lock is a link", _link(".lock", "precious"), ("etl", "recommend", "index"), (2,)),
    ("the lock is a pipe", _pipe(".lock"), ("etl", "recommend"), (2,)),
    ("the lock is a folder", _folder(".lock"), ("etl", "recommend"), (2,)),
    ("shards are a link", _link(".recommend.shards"), ("recommend",), (0,)),
    ("the new etl is a link", _link(".etl.new"), ("etl",), (0,)),
    ("the older etl is a link", _link(".etl.old"), ("etl",), (0,)),
    ("the new etl is a link to a file", _link(".etl.new", "precious"), ("etl",), (0,)),
    ("recommend is a link to a folder", _link("recommend"), ("recommend", "recommend"), (0,)),
    ("index is a link to a file", _link("index", "precious"), ("index", "index"), (0,)),
    ("etl is a link to another disk", _moved("etl"), ("recommend", "etl", "etl"), (0,)),
    ("opensearch is a link", _link("opensearch"), ("load",), (2,)),
    ("triton is a link", _link("triton"), ("triton",), (2,)),
    ("the manifest is a pipe", _pipe("export/manifest.json"), ("recommend", "load"), (2,)),
    ("the manifest is a folder", _folder("export/manifest.json"), ("recommend", "index"), (2,)),
    ("the manifest is a link", _link("export/manifest.json", "precious"), ("recommend",), (2,)),
    ("etl's manifest is a pipe", _pipe("etl/manifest.json"), ("recommend", "evaluate"), (2,)),
    ("embeddings are a pipe", _pipe("export/item_embeddings.parquet"), ("recommend",), (2,)),
    (
        "a vocabulary is a pipe, and signed",
        _pipe("export/vocabulary/item_id.parquet", signed=True),
        ("recommend", "similar-items"),
        (0, 2),
    ),
    (
        "embeddings are a link to a device, and signed",
        _link_and_sign("export/item_embeddings.parquet", "/dev/zero"),
        ("recommend", "load"),
        (2,),
    ),
    (
        "embeddings are a link to a file, and signed",
        _link_and_sign("export/item_embeddings.parquet", "/etc/passwd"),
        ("recommend", "load"),
        (2,),
    ),
    ("a folder of a stage leads to itself", _loop, ("recommend",), (0, 2)),
)
