"""The device: flag, then environment, then auto; decided before anything can look for GPUs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from workflows import device
from workflows.device import Device
from workflows.errors import DeviceError

ROOT = Path(__file__).resolve().parent.parent


class Driver:
    """NVIDIA's libnvidia-ml with so many devices; or one whose calls fail."""

    def __init__(self, count: int = 0, *, init: int = 0, ask: int = 0) -> None:
        self.count, self.init, self.ask = count, init, ask
        self.shut_down = 0

    def nvmlInit_v2(self) -> int:
        return self.init

    def nvmlDeviceGetCount_v2(self, pointer: Any) -> int:
        pointer._obj.value = self.count
        return self.ask

    def nvmlShutdown(self) -> int:
        self.shut_down += 1
        return 0


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has imported nothing yet and knows nothing of GPUs."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("TWO_TOWER_DEVICE", raising=False)
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    for name in device._LOOKERS:
        monkeypatch.delitem(sys.modules, name, raising=False)


def plug_in(monkeypatch: pytest.MonkeyPatch, driver: Driver) -> Driver:
    monkeypatch.setattr("workflows.device.ctypes.CDLL", lambda name: driver)
    return driver


def unplug(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr("workflows.device.ctypes.CDLL", missing)


# ── precedence ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("flag", "variable", "gpus", "kind", "why"),
    [
        ("cpu", "gpu", 2, "cpu", "asked for by --device"),
        ("gpu", "cpu", 2, "gpu", "NVML found 2 devices, asked for by --device"),
        ("auto", "cpu", 1, "gpu", "NVML found 1 device"),
        (None, "cpu", 2, "cpu", "asked for by TWO_TOWER_DEVICE"),
        (None, "gpu", 2, "gpu", "NVML found 2 devices, asked for by TWO_TOWER_DEVICE"),
        (None, "auto", 0, "cpu", "no GPU: NVML found 0 devices"),
        (None, None, 0, "cpu", "no GPU: NVML found 0 devices"),
        (None, "", 3, "gpu", "NVML found 3 devices"),
    ],
)
def test_flag_then_environment_then_auto(
    monkeypatch: pytest.MonkeyPatch,
    flag: str | None,
    variable: str | None,
    gpus: int,
    kind: str,
    why: str,
) -> None:
    plug_in(monkeypatch, Driver(gpus))
    if variable is not None:
        monkeypatch.setenv("TWO_TOWER_DEVICE", variable)
    assert device.choose(flag) == Device(kind, why)  # type: ignore[arg-type]


@pytest.mark.parametrize(("flag", "variable"), [("cuda", None), (None, "GPU")])
def test_another_word_is_refused_by_whom_it_came(
    monkeypatch: pytest.MonkeyPatch, flag: str | None, variable: str | None
) -> None:
    if variable:
        monkeypatch.setenv("TWO_TOWER_DEVICE", variable)
    by = "--device" if flag else "TWO_TOWER_DEVICE"
    with pytest.raises(
        DeviceError, match=f"{by} is '{flag or variable}'; expected one of auto, cpu, gpu"
    ):
        device.choose(flag)


# ── what it does to the process ─────────────────────────────────────────────────────────


def test_cpu_hides_the_gpus_with_an_empty_list(monkeypatch: pytest.MonkeyPatch) -> None:
    # with "-1" merlin-core still answers HAS_GPU = True
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    device.choose("cpu")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "2"


def test_gpu_leaves_the_list_and_the_log_level_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plug_in(monkeypatch, Driver(4))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    assert device.choose("gpu").kind == "gpu"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "0"


@pytest.mark.parametrize("early", ["tensorflow", "merlin", "nvtabular", "cudf"])
def test_cpu_after_an_early_import_is_refused(monkeypatch: pytest.MonkeyPatch, early: str) -> None:
    monkeypatch.setitem(sys.modules, early, sys)
    with pytest.raises(
        DeviceError,
        match=rf"^{early} was imported before the device was chosen.*device\.choose\(\) first, in",
    ):
        device.choose("cpu")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # hidden in time: then it does no harm
    assert device.choose("cpu").kind == "cpu"


# ── what the machine says ───────────────────────────────────────────────────────────────


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    unplug(monkeypatch)
    assert device.count_gpus() == (0, "no NVIDIA driver (libnvidia-ml.so.1 not found)")
    assert device.choose("auto") == Device(
        "cpu", "no GPU: no NVIDIA driver (libnvidia-ml.so.1 not found)"
    )


@pytest.mark.parametrize(
    ("driver", "seen"),
    [
        (Driver(init=999), "the NVIDIA driver does not answer (nvmlInit failed)"),
        (Driver(5, ask=3), "the NVIDIA driver does not answer (nvmlDeviceGetCount failed)"),
    ],
)
def test_a_driver_that_does_not_answer_counts_as_none(
    monkeypatch: pytest.MonkeyPatch, driver: Driver, seen: str
) -> None:
    plug_in(monkeypatch, driver)
    assert device.count_gpus() == (0, seen)


def test_the_driver_is_closed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = plug_in(monkeypatch, Driver(1))
    assert device.count_gpus() == (1, "NVML found 1 device")
    assert driver.shut_down == 1


@pytest.mark.parametrize("hidden", ["", "-1", " "])
def test_hidden_gpus_are_not_counted(monkeypatch: pytest.MonkeyPatch, hidden: str) -> None:
    plug_in(monkeypatch, Driver(8))
    assert device.count_gpus()[0] == 8
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert device.count_gpus() == (0, f"CUDA_VISIBLE_DEVICES is {hidden!r}")


def test_a_gpu_that_is_not_there_is_refused_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    unplug(monkeypatch)
    with pytest.raises(
        DeviceError,
        match=r"^--device asks for a GPU, but no NVIDIA driver .*nvidia-smi.*--gpus all.*"
        r"--device cpu\.$",
    ):
        device.choose("gpu")
    monkeypatch.setenv("TWO_TOWER_DEVICE", "gpu")
    with pytest.raises(DeviceError, match=r"^TWO_TOWER_DEVICE asks for a GPU"):
        device.choose()


def test_choosing_imports_nothing_heavy() -> None:
    code = (
        "import sys; from workflows import device; device.choose('auto');"
        "print([m for m in ('tensorflow', 'merlin', 'nvtabular', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
