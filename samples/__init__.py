"""Generates raw files like those of real data sets, with planted tastes that a model can learn.

The five data sets are named below; the real data of four of them can be downloaded only with an
account. A sample has the same file names, columns, types and oddities as the real data. Its
truth.parquet holds the tastes by which the simulated users chose items. So a sample shows whether a
recipe runs, and whether its model learns (see `learning_marks`).

    name        files
    aliccp      {train,test}/sample_skeleton_*.csv, common_features_*.csv, and parquet
    babyshop    user_item_interactions.csv, item_info.csv, user_info.csv, train.csv, test.csv
    hm          articles.csv, customers.csv, transactions_train.csv
    hm-joined   train_df.csv, val_df.csv
    rees46      2019-Dec.csv.gz to 2020-Apr.csv.gz
"""

from __future__ import annotations

import difflib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import msgspec
import numpy as np

from samples import aliccp, babyshop, hm, hm_joined, oracle, rees46
from samples.lines import RawFile
from samples.oracle import HeldOut, Marks
from samples.truth import NAME as TRUTH
from samples.truth import read_truth
from workflows.ground.errors import DataError, RecipeError, StorageError
from workflows.ground.folders import replace_folder

log = logging.getLogger(__name__)

Size = Literal["tiny", "small", "large"]
#: File that marks a folder as a sample and describes it. Folders without it are not overwritten.
LABEL = "sample.json"


@dataclass(frozen=True)
class SampleResult:
    """What `sample` wrote: the folder, its raw files, and the arguments that determine them.

    Attributes:
        folder: the folder with the files of the sample.
        name: the name of the data set that the sample imitates.
        size: the size of the sample: tiny, small or large.
        seed: the seed of all random numbers; the same name, size and seed give the same bytes.
        files: the raw files.
        seconds: the wall time that writing took.
    """

    folder: Path
    name: str
    size: Size
    seed: int
    files: tuple[RawFile, ...]
    seconds: float


class Label(msgspec.Struct, frozen=True):
    """The content of the file sample.json, which marks a folder as a sample.

    Attributes:
        name, size, seed: the arguments of `sample`.
        rows: path of a raw file in the folder → number of its rows.
    """

    name: str
    size: Size
    seed: int
    rows: dict[str, int]


@dataclass(frozen=True)
class _System:
    """The functions of a data set: one writes a sample, one splits its rows for learning marks."""

    write: Callable[[Path, str, np.random.Generator], list[RawFile]]
    held_out: Callable[[Path], HeldOut]


_SYSTEMS = {
    "aliccp": _System(aliccp.write, aliccp.held_out),
    "babyshop": _System(babyshop.write, babyshop.held_out),
    "hm": _System(hm.write, hm.held_out),
    "hm-joined": _System(hm_joined.write, hm_joined.held_out),
    "rees46": _System(rees46.write, rees46.held_out),
}


def sample(name: str, size: Size, folder: Path, *, seed: int = 1) -> SampleResult:
    """Write a sample's raw files and the tastes of its users; if anything fails, write nothing.

    Args:
        name: the name of the data set to imitate.
        size: `tiny` is for unit tests, and `small` is enough for a model to learn from. `large` has
            the size of the real data (hm, hm-joined, babyshop) or a good part of it (aliccp,
            rees46).
        folder: the folder to write; an earlier sample in it is replaced.
        seed: the seed of all random numbers, 0 or more.

    Raises:
        RecipeError: the name, the size or the seed is not valid.
        StorageError: the folder holds other files, or the disk fails.
    """
    system = _system(name)
    if size not in get_args(Size):
        sizes = ", ".join(get_args(Size))
        raise RecipeError(f"A sample has a size of {sizes}. Received: {size!r}.")
    if seed < 0:
        raise RecipeError(f"A sample has a seed of 0 or more. Received: {seed}.")
    began = time.monotonic()
    folder = folder.resolve()
    log.info("writing the %s %s sample (seed %d) to %s", size, name, seed, folder)
    with replace_folder(folder, refuse=_refuse_foreign) as aside:
        files = tuple(system.write(aside, size, np.random.default_rng(seed)))
        label = Label(name, size, seed, {file.name: file.rows for file in files})
        text = msgspec.json.format(msgspec.json.encode(label), indent=2)
        (aside / LABEL).write_bytes(text + b"\n")
    seconds = time.monotonic() - began
    log.info("wrote %d rows in %.1f s", sum(file.rows for file in files), seconds)
    return SampleResult(folder, name, size, seed, files, seconds)


def learning_marks(folder: Path, *, k: int = 10, exclude_seen: bool = False) -> Marks:
    """Return the recall of popularity and of an oracle, which a model's recall should lie between.

    The oracle knows the tastes by which the users of the sample chose items, and ranks by them.

    Recall is measured on held-out rows: the rows of the test or validation file, but a random tenth
    of the rows for hm, and the purchases of 15 % of the users for rees46. Popularity is counted on
    the other rows.

    Args:
        folder: the folder of the sample; a large sample takes long and much memory.
        k: the length of the recommendation lists.
        exclude_seen: whether a user's list leaves out the items of the user's other rows.

    Raises:
        DataError: the folder is not a sample.
    """
    rows = _held_out(folder)
    return oracle.marks(read_truth(folder), rows, k=k, exclude_seen=exclude_seen)


def mini_batch_auc(folder: Path, *, size: int = 5) -> tuple[float, float]:
    """Return the AUC of popularity and of the oracle; items of other users are the negatives.

    The oracle knows the tastes by which the users of the sample chose items, and scores by them.

    Args:
        folder: the folder of the sample.
        size: number of rows of a mini-batch, in which every user is paired with every item.

    Raises:
        DataError: the folder is not a sample.
    """
    rows = _held_out(folder)
    return oracle.mini_batch_auc(read_truth(folder), rows, size=size)


def _held_out(folder: Path) -> HeldOut:
    label = read_label(folder)
    if label is None:
        raise DataError(
            f"{folder} has no {LABEL}: it holds no sample, so the tastes are unknown. Make "
            "one with `two-tower sample`."
        )
    return _system(label.name).held_out(folder)


def read_label(folder: Path) -> Label | None:
    """Return the content of a folder's sample.json; None if the file is missing or not valid."""
    try:
        return msgspec.json.decode((folder / LABEL).read_bytes(), type=Label)
    except (OSError, msgspec.DecodeError):
        return None


def _system(name: str) -> _System:
    if name in _SYSTEMS:
        return _SYSTEMS[name]
    close = difflib.get_close_matches(name, _SYSTEMS, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise RecipeError(
        f"There are no samples of {name!r}{hint}. There are of {', '.join(sorted(_SYSTEMS))}."
    )


def _refuse_foreign(folder: Path) -> None:
    """Raise an error if a folder holds files that no sample wrote, so they are not overwritten."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise StorageError(f"{folder} is a file. Choose another folder, or move the file away.")
    label = read_label(folder)
    own = {LABEL, TRUTH, *label.rows} if label else set()
    there = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    foreign = sorted({path.relative_to(folder).as_posix() for path in there} - own)
    if foreign:
        raise StorageError(
            f"{folder} holds {foreign[0]!r}, which no sample wrote there, so it is not "
            "overwritten. Choose another folder, or move the file away."
        )
