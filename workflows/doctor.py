"""Check the machine: package versions, devices, memory and disk; report faults with remedies."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from workflows.ground import device as devices
from workflows.ground.device import Device
from workflows.ground.errors import DeviceError
from workflows.ground.versions import versions

#: The key of `Diagnosis.devices` for all verbs that do not use a GPU.
OTHER_VERBS = "other verbs"
_NEEDED = ("tensorflow", "nvtabular", "merlin.models", "merlin.core", "msgspec", "pyarrow")


@dataclass(frozen=True)
class Diagnosis:
    """The facts about a machine, and the faults of its installation.

    Attributes:
        versions: the versions of Python and packages.
        devices: verb → the device that the verb would run on; verbs for which the requested device
            is not available are left out.
        facts: name of a fact about the machine → its value.
        faults: the faults of the installation, each with its remedy.
    """

    versions: dict[str, str]
    devices: dict[str, Device]
    facts: dict[str, str]
    faults: list[str]


def doctor(*, requested: str | None = None, runs: Path = Path("runs")) -> Diagnosis:
    """Check Python, packages, device, processors and disk, without importing the packages.

    Args:
        requested: the requested device; None for the default choice.
        runs: the folder of the runs.
    """
    # first, because looking for a package imports the packages around it
    chosen, faults = _devices(requested)
    faults += [*_python_faults(), *_package_faults(), *_version_faults()]
    free = shutil.disk_usage(_existing(runs)).free
    if free < 1 << 30:
        faults.append(f"only {free >> 20} MiB are free for {runs}: free some, or choose --run.")
    facts = {
        "processors": str(len(os.sched_getaffinity(0))),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') >> 30} GiB",
        "free disk": f"{free >> 30} GiB",
    }
    return Diagnosis(versions(), chosen, facts, faults)


def _devices(requested: str | None) -> tuple[dict[str, Device], list[str]]:
    """Return the device of each verb, and the faults of verbs whose device cannot be used."""
    chosen: dict[str, Device] = {}
    faults: list[str] = []
    for verb in (*devices.NEEDS, OTHER_VERBS):
        try:
            chosen[verb] = devices.decide(requested, verb=verb)
        except DeviceError as error:
            faults += [text for text in [str(error)] if text not in faults]
    devices.choose("cpu")  # this verb does not need a GPU, and packages must not search for one
    return chosen, faults


def _existing(path: Path) -> Path:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def _python_faults() -> list[str]:
    if (3, 10) <= sys.version_info[:2] <= (3, 11):
        return []
    return [f"Python {sys.version.split()[0]}: Merlin 23.8 needs 3.10 or 3.11. Run `make clean`."]


def _package_faults() -> list[str]:
    return [
        f"{name} is not installed. Run `make etl`, which makes .venv from requirements.lock."
        for name in _NEEDED
        if not _installed(name)
    ]


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _version_faults() -> list[str]:
    """Return a fault if tf.function fails: typing-extensions is too new for the installed wrapt."""
    try:
        typing, wrapt = (_version(n) for n in ("typing-extensions", "wrapt"))
    except metadata.PackageNotFoundError:
        return []
    if typing >= (4, 6) and wrapt < (2,):
        return [
            "typing-extensions is 4.6 or later while wrapt is older than 2: tf.function fails on "
            "tracked dicts (TensorFlow issue 60687). Install wrapt 2.5.2, like requirements.lock."
        ]
    return []


def _version(name: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", metadata.version(name))[:3])
