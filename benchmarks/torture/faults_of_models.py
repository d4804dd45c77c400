"""Planted faults: models that access other files, or are damaged, and are signed again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from tampering import mutate, plant, resign

_TOWERS = ("query_tower_raw", "item_tower_raw")
_VERBS = ("recommend --users", "index --add", "triton")
_TRAINED = ("export", "evaluate")


def _models(change: Callable[[Path], object]) -> Callable[[Path, Path], None]:
    """Return a function that changes both raw towers."""

    def planted(run: Path, victim: Path) -> None:
        for tower in _TOWERS:
            change(run / "export" / tower)
        resign(run / "export")

    return planted


def _with_op(op: str, *, at_load: bool = False) -> Callable[[Path, Path], None]:
    """Return a function that adds an operation to every function, or to the graph itself."""

    def change(tower: Path) -> None:
        plant(tower, op, str(tower.parents[2] / "pwned").encode(), at_load=at_load)

    return _models(change)


def _damaged(name: str, way: str, n: int) -> Callable[[Path, Path], None]:
    def change(tower: Path) -> None:
        path = tower / name
        path.write_bytes(mutate(path.read_bytes(), n, way))

    return _models(change)


def _without(name: str) -> Callable[[Path, Path], None]:
    return _models(lambda tower: (tower / name).unlink())


def _told(name: str, text: str) -> Callable[[Path, Path], None]:
    return _models(lambda tower: (tower / name).write_text(text))


def _leads_away(tower: Path) -> None:
    (tower / "assets" / "item_id.txt").unlink()
    (tower / "assets" / "item_id.txt").symlink_to("/etc/passwd")


def _pipe(tower: Path) -> None:
    (tower / "assets" / "item_id.txt").unlink()
    os.mkfifo(tower / "assets" / "item_id.txt")


def _weights(change: Callable[[h5py.File, Path], object]) -> Callable[[Path, Path], None]:
    def planted(run: Path, victim: Path) -> None:
        with h5py.File(run / "train" / "model.weights.h5", "a") as file:
            change(file, victim / "precious")
        resign(run / "train")

    return planted


def _first(group: Any) -> tuple[Any, str]:
    """Return the group and the name of the first dataset of a file."""
    for name in group:
        if isinstance(group[name], h5py.Dataset) and group[name].shape:
            return group, name
        if isinstance(group[name], h5py.Group) and (found := _first(group[name]))[1]:
            return found
    return group, ""


def _external_link(file: h5py.File, victim: Path) -> None:
    group, name = _first(file)
    del group[name]
    group[name] = h5py.ExternalLink(str(victim), "/x")


def _external_storage(file: h5py.File, victim: Path) -> None:
    group, name = _first(file)
    shape = group[name].shape
    del group[name]
    group.create_dataset(name, shape, "f4", external=[(str(victim), 0, h5py.h5f.UNLIMITED)])


def _soft_link(file: h5py.File, victim: Path) -> None:
    group, name = _first(file)
    del group[name]
    group[name] = h5py.SoftLink("/")


def _other_shape(file: h5py.File, victim: Path) -> None:
    group, name = _first(file)
    del group[name]
    group[name] = np.ones((2, 3, 5), np.float32)


def _text_for_numbers(file: h5py.File, victim: Path) -> None:
    group, name = _first(file)
    shape = group[name].shape
    del group[name]
    group[name] = np.full(shape, b"x", "S1")


def _not_numbers(file: h5py.File, victim: Path) -> None:
    group, name = _first(file)
    group[name][...] = np.nan


def _gone(file: h5py.File, victim: Path) -> None:
    group, name = _first(file)
    del group[name]


def _bomb(file: h5py.File, victim: Path) -> None:
    group, name = _first(file)
    del group[name]
    group.create_dataset(name, (1 << 40,), "f4", chunks=(1 << 16,))


def _weights_bytes(way: str, n: int) -> Callable[[Path, Path], None]:
    def planted(run: Path, victim: Path) -> None:
        path = run / "train" / "model.weights.h5"
        path.write_bytes(mutate(path.read_bytes(), n, way))
        resign(run / "train")

    return planted


def _unknown_user(array: Any) -> Callable[[Path, Path], None]:
    def planted(run: Path, victim: Path) -> None:
        path = run / "export" / "unknown_user.npy"
        path.unlink()
        if isinstance(array, bytes):
            path.write_bytes(array)
        else:
            np.save(path, array)
        resign(run / "export")

    return planted


#: Description, function that plants the fault, verbs, right exit codes.
MODELS = (
    ("an array of objects", _unknown_user(np.array([{}, 1], object)), ("recommend",), (2,)),
    ("an array of another shape", _unknown_user(np.ones((3, 3))), ("recommend",), (0, 2)),
    ("an array of text", _unknown_user(np.array("abc")), ("recommend",), (2,)),
    ("an array that is no number", _unknown_user(np.full(8, np.nan)), ("recommend",), (2,)),
    ("an array that is cut", _unknown_user(b"\x93NUMPY\x01\x00v\x00{"), ("recommend",), (2,)),
    ("WriteFile in a function", _with_op("WriteFile"), _VERBS, (2,)),
    ("WriteFile at load", _with_op("WriteFile", at_load=True), _VERBS, (2,)),
    ("MoveFile of a plug-in", _with_op("FileSystemSetConfiguration"), _VERBS, (2,)),
    ("an asset that is a link", _models(_leads_away), _VERBS[:2], (2,)),
    ("an asset that is a pipe", _models(_pipe), _VERBS[:2], (2,)),
    ("a model that is cut", _damaged("saved_model.pb", "cut", 11), _VERBS, (2,)),
    ("a model with noise", _damaged("saved_model.pb", "random", 23), _VERBS, (0, 2)),
    ("a model of nothing", _told("saved_model.pb", ""), _VERBS, (2,)),
    ("variables that are cut", _damaged("variables/variables.data-00000-of-00001", "cut", 5),
     _VERBS, (2,)),
    ("an index of variables with noise", _damaged("variables/variables.index", "random", 9), _VERBS,
     (0, 2)),
    ("variables that are gone", _without("variables/variables.index"), _VERBS, (2,)),
    ("an asset that is gone", _without("assets/item_id.txt"), _VERBS, (2,)),
    ("an asset of one line", _told("assets/item_id.txt", "x\n"), _VERBS, (0, 2)),
    ("an asset with a line twice", _told("assets/item_id.txt", "x\nx\n"), _VERBS, (0, 2)),
    ("inputs of null", _told("inputs.json", "null"), _VERBS, (2,)),
    ("inputs of others", _told("inputs.json", '{"a": "b"}'), _VERBS, (2,)),
    ("weights with an external link", _weights(_external_link), _TRAINED, (2,)),
    ("weights in another file", _weights(_external_storage), _TRAINED, (2,)),
    ("weights with a soft link", _weights(_soft_link), _TRAINED, (2,)),
    ("weights of another shape", _weights(_other_shape), _TRAINED, (2,)),
    ("weights of text", _weights(_text_for_numbers), _TRAINED, (2,)),
    ("weights that are no numbers", _weights(_not_numbers), _TRAINED, (0, 2)),
    ("weights that are gone", _weights(_gone), _TRAINED, (2,)),
    ("weights larger than their file", _weights(_bomb), _TRAINED, (2,)),
    ("weights that are cut", _weights_bytes("cut", 3), _TRAINED, (2,)),
    ("weights with noise", _weights_bytes("random", 31), _TRAINED, (0, 2)),
    ("weights with huge numbers", _weights_bytes("huge", 6), _TRAINED, (0, 2)),
)  # fmt: skip
