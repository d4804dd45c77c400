"""THE place that chooses cpu or gpu, once per process, before merlin or TensorFlow are imported.

Order of precedence: the `--device` flag, then $TWO_TOWER_DEVICE, then auto. CPU means
CUDA_VISIBLE_DEVICES="": with "-1" merlin-core still answers HAS_GPU = True.
"""

from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import dataclass
from typing import Literal

from workflows.errors import DeviceError

Kind = Literal["cpu", "gpu"]
ENVIRONMENT = "TWO_TOWER_DEVICE"
#: Packages that look for GPUs when they are imported.
_LOOKERS = ("tensorflow", "merlin", "nvtabular", "cudf")


@dataclass(frozen=True)
class Device:
    """What the process runs on, and why."""

    kind: Kind
    why: str


def choose(requested: str | None = None) -> Device:
    """Decide the device of this process and set the environment for it.

    Args:
        requested: "cpu", "gpu", "auto", or None to ask $TWO_TOWER_DEVICE.

    Raises:
        DeviceError: for a GPU that is not there, or a name that is none of the three.
    """
    wish, by = (requested, "--device") if requested else (os.environ.get(ENVIRONMENT), ENVIRONMENT)
    wish = wish or "auto"
    if wish not in ("auto", "cpu", "gpu"):
        raise DeviceError(f"{by} is {wish!r}; expected one of auto, cpu, gpu.")
    device = _decide(wish, by)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors only, unless asked for more
    if device.kind == "cpu":
        _hide_gpus()
    return device


def _decide(wish: str, by: str) -> Device:
    if wish == "cpu":
        return Device("cpu", f"asked for by {by}")
    n_gpus, seen = count_gpus()
    if n_gpus:
        return Device("gpu", f"{seen}, asked for by {by}" if wish == "gpu" else seen)
    if wish == "gpu":
        raise DeviceError(
            f"{by} asks for a GPU, but {seen}. Check `nvidia-smi`, run the container with "
            "`--gpus all`, or use --device cpu."
        )
    return Device("cpu", f"no GPU: {seen}")


def _hide_gpus() -> None:
    early = [name for name in _LOOKERS if name in sys.modules]
    if early and os.environ.get("CUDA_VISIBLE_DEVICES") != "":
        raise DeviceError(
            f"{', '.join(early)} was imported before the device was chosen, so GPUs cannot be "
            "hidden from it. Call workflows.device.choose() first, in a fresh process."
        )
    os.environ["CUDA_VISIBLE_DEVICES"] = ""


def count_gpus() -> tuple[int, str]:
    """Ask the NVIDIA driver (NVML), without importing anything, how many GPUs it has.

    Returns:
        The number that this process may use, and a phrase that says what was found.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1"):
        return 0, f"CUDA_VISIBLE_DEVICES is {visible!r}"
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return 0, "no NVIDIA driver (libnvidia-ml.so.1 not found)"
    if nvml.nvmlInit_v2() != 0:
        return 0, "the NVIDIA driver does not answer (nvmlInit failed)"
    count = ctypes.c_uint(0)
    failed = nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0
    nvml.nvmlShutdown()
    if failed:
        return 0, "the NVIDIA driver does not answer (nvmlDeviceGetCount failed)"
    return count.value, f"NVML found {count.value} device{'s' * (count.value != 1)}"
