"""doctor: what is there and what is wrong, without importing any of it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections import namedtuple
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from workflows import doctor as doctors
from workflows.doctor import doctor
from workflows.ground import device as devices
from workflows.ground.device import Device

ROOT = Path(__file__).resolve().parent.parent
Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def modest_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("TWO_TOWER_DEVICE", raising=False)
    monkeypatch.setattr(doctors.shutil, "disk_usage", lambda path: Usage(1 << 40, 0, 7 << 30))


def test_a_sound_machine_has_no_faults(tmp_path: Path) -> None:
    found = doctor(runs=tmp_path / "runs")
    assert found.faults == []
    assert {device.kind for device in found.devices.values()} == {"cpu"}
    assert list(found.devices) == ["etl", "train", "tune", "evaluate", "export", "other verbs"]
    assert found.versions["nvtabular"] == metadata.version("nvtabular")
    assert found.facts["processors"] == str(len(os.sched_getaffinity(0)))
    kibibytes = int(Path("/proc/meminfo").read_text(encoding="utf-8").split()[1])
    assert found.facts["memory"] == f"{kibibytes // 1024**2} GiB"
    assert found.facts["free disk"] == "7 GiB"
    assert not (tmp_path / "runs").exists()


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec

    def without(name: str, package: str | None = None) -> Any:
        if name.startswith("merlin"):
            raise ModuleNotFoundError(name)
        return None if name == "nvtabular" else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    assert doctor().faults == [
        f"{name} is not installed. Run `make etl`, which makes .venv from requirements.lock."
        for name in ("nvtabular", "merlin.models", "merlin.core")
    ]


@pytest.mark.parametrize("version", [(3, 9, 1), (3, 12, 0)])
def test_another_python_is_a_fault(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int]
) -> None:
    monkeypatch.setattr(doctors.sys, "version_info", version)
    assert [f for f in doctors._python_faults() if "Merlin 23.8 needs 3.10 or 3.11" in f]
    for fine in ((3, 10, 4), (3, 11, 9)):
        monkeypatch.setattr(doctors.sys, "version_info", fine)
        assert doctors._python_faults() == []


@pytest.mark.parametrize(
    ("typing", "wrapt", "faulty"),
    [
        ("4.12.2", "1.14.1", True),
        ("4.6.0", "1.16.0", True),
        ("4.5.0", "1.14.1", False),  # as in the container
        ("4.12.2", "2.0.0", False),
        ("4.12.2", "2.5.2", False),
    ],
)
def test_two_versions_that_do_not_go_together(
    monkeypatch: pytest.MonkeyPatch, typing: str, wrapt: str, faulty: bool
) -> None:
    versions = {"typing-extensions": typing, "wrapt": wrapt}
    monkeypatch.setattr(doctors.metadata, "version", versions.__getitem__)
    faults = doctors._version_faults()
    assert [("wrapt 2.5.2" in fault, "60687" in fault) for fault in faults] == (
        [(True, True)] if faulty else []
    )


def test_a_gpu_that_a_verb_cannot_use_is_told_and_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    fault = devices._Fault("cuDF is not installed here", "Get it")
    monkeypatch.setattr(devices, "count_gpus", lambda: (2, "NVML found 2 devices"))
    monkeypatch.setattr(devices, "NEEDS", {"etl": lambda: fault, "train": lambda: None})
    found = doctor()
    assert found.faults == []
    assert found.devices == {
        "etl": Device("cpu", "no GPU for etl: cuDF is not installed here; NVML found 2 devices"),
        "train": Device("gpu", "NVML found 2 devices"),
        "other verbs": Device("cpu", "no GPU is needed"),
    }
    refused = doctor(requested="gpu")
    assert list(refused.devices) == ["train", "other verbs"]
    assert refused.faults == [
        "--device asks for a GPU, but cuDF is not installed here; NVML found 2 devices. Get it, or "
        "use --device cpu."
    ]


def test_a_device_that_cannot_be_had_is_a_fault_and_no_crash() -> None:
    found = doctor(requested="gpu")
    assert list(found.devices) == ["other verbs"]
    assert len(found.faults) == 1
    assert found.faults[0].startswith("--device asks for a GPU, but CUDA_VISIBLE_DEVICES is ''")


def test_a_nearly_full_disk_is_a_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Path] = []

    def usage(path: Path) -> Usage:
        asked.append(path)
        return Usage(1 << 40, 0, 500 << 20)

    monkeypatch.setattr(doctors.shutil, "disk_usage", usage)
    runs = tmp_path / "runs" / "deep"
    assert doctor(runs=runs).faults == [
        f"only 500 MiB are free for {runs}: free some, or choose --run."
    ]
    assert asked == [tmp_path]  # the nearest folder that is there


def test_it_imports_none_of_the_packages() -> None:
    code = (
        "import sys; from workflows.doctor import doctor; doctor(requested='cpu');"
        "print([m for m in ('tensorflow', 'nvtabular', 'merlin.models', 'numpy', 'pyarrow')"
        " if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
