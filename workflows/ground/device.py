"""THE place that chooses cpu or gpu, once per process, before merlin or TensorFlow are imported.

Order of precedence: the `--device` flag, then $TWO_TOWER_DEVICE, then auto. `auto` takes a GPU only
if what the verb needs answers there: a driver alone is not enough. CPU means
CUDA_VISIBLE_DEVICES="": with "-1" merlin-core still answers HAS_GPU = True.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from workflows.ground.errors import DeviceError

Kind = Literal["cpu", "gpu"]
ENVIRONMENT = "TWO_TOWER_DEVICE"
#: Packages that look for GPUs when they are imported.
_LOOKERS = ("tensorflow", "merlin", "nvtabular", "cudf")
#: Seconds that a package may take to answer in a fresh process.
_PATIENCE = 180


@dataclass(frozen=True)
class Device:
    """What the process runs on, and why."""

    kind: Kind
    why: str


@dataclass(frozen=True)
class _Fault:
    """Why a package cannot use a GPU here, and what to do about it."""

    what: str
    remedy: str


def choose(requested: str | None = None, *, verb: str = "") -> Device:
    """Decide the device of this process and set the environment for it.

    Args:
        requested: "cpu", "gpu", "auto", or None to ask $TWO_TOWER_DEVICE.
        verb: what the process does; empty for a process that runs several verbs.

    Raises:
        DeviceError: for a GPU that cannot be used, or a name that is none of the three.
    """
    device = decided(requested, verb=verb)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors only, unless asked for more
    if device.kind == "cpu":
        _hide_gpus()
    return device


def decided(requested: str | None = None, *, verb: str = "") -> Device:
    """Return what `choose` decides, and leave the environment as it is."""
    wish, by = (requested, "--device") if requested else (os.environ.get(ENVIRONMENT), ENVIRONMENT)
    wish = wish or "auto"
    if wish not in ("auto", "cpu", "gpu"):
        raise DeviceError(f"{by} is {wish!r}; expected one of auto, cpu, gpu.")
    if wish == "cpu":
        return Device("cpu", f"asked for by {by}")
    if verb and verb not in NEEDS:
        return Device("cpu", "no GPU is needed")
    n_gpus, seen = count_gpus()
    nothing = _Fault(seen, "Check `nvidia-smi`, run the container with `--gpus all`")
    fault = _first_fault(verb) if n_gpus else nothing
    if fault is None:
        return Device("gpu", f"{seen}, asked for by {by}" if wish == "gpu" else seen)
    what = f"{fault.what}; {seen}" if n_gpus else fault.what
    if wish == "gpu":
        raise DeviceError(f"{by} asks for a GPU, but {what}. {fault.remedy}, or use --device cpu.")
    return Device("cpu", f"no GPU for {verb}: {what}" if n_gpus and verb else f"no GPU: {what}")


def _first_fault(verb: str) -> _Fault | None:
    """Return why what a verb needs does not answer on the GPU; None if it does.

    A process of several verbs, which has no name here, needs what all of them need.
    """
    asked = [NEEDS[verb]] if verb else dict.fromkeys(NEEDS.values())
    return next((fault for fault in (need() for need in asked) if fault), None)


@cache
def _tensorflow_fault() -> _Fault | None:
    """Ask TensorFlow for GPUs, in a process of its own: here it may not be imported yet."""
    remedy = "Use the NGC Merlin container (docker/Dockerfile.gpu)"
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or not spec.submodule_search_locations:
        return _Fault("TensorFlow is not installed here", remedy)
    info = Path(spec.submodule_search_locations[0]) / "python" / "platform" / "build_info.py"
    if info.is_file() and "'is_cuda_build', True" not in info.read_text(encoding="utf-8"):
        return _Fault("TensorFlow here is built without CUDA", remedy)
    asked = "import tensorflow as tf; print(len(tf.config.list_physical_devices('GPU')))"
    answer, error = _asked(asked)
    if answer is None:
        return _Fault(f"TensorFlow cannot be asked for GPUs ({error})", remedy)
    if answer == "0":
        libraries = "Check that CUDA and cuDNN are those of this TensorFlow"
        return _Fault("TensorFlow lists no GPU", f"{libraries}. {remedy}")
    return None


@cache
def _cudf_fault() -> _Fault | None:
    """Ask cuDF to put something into the memory of a GPU, in a process of its own."""
    remedy = "Use the NGC Merlin container (docker/Dockerfile.gpu)"
    if importlib.util.find_spec("cudf") is None:
        return _Fault("cuDF is not installed here", remedy)
    answer, error = _asked("import cudf; print(int(cudf.Series([1, 2]).sum()))")
    if answer != "3":
        return _Fault(f"cuDF cannot use the GPU ({error or answer})", remedy)
    return None


#: What a verb takes a GPU for; the verbs that are not here use none.
NEEDS: dict[str, Callable[[], _Fault | None]] = {
    "etl": _cudf_fault,
    "train": _tensorflow_fault,
    "tune": _tensorflow_fault,
    "evaluate": _tensorflow_fault,
    "export": _tensorflow_fault,
}


def _asked(code: str) -> tuple[str | None, str]:
    """Run a line of Python in a fresh process.

    Returns:
        The last line that it printed, None if it failed; and the last line of its error.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=False,
            timeout=_PATIENCE,
        )
    except subprocess.TimeoutExpired:
        return None, f"no answer in {_PATIENCE} s"
    if done.returncode:
        return None, (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return (done.stdout.split() or [""])[-1], ""


def _hide_gpus() -> None:
    early = [name for name in _LOOKERS if name in sys.modules]
    if early and os.environ.get("CUDA_VISIBLE_DEVICES") != "":
        raise DeviceError(
            f"{', '.join(early)} was imported before the device was chosen, so GPUs cannot be "
            "hidden from it. Call workflows.ground.device.choose() first, in a fresh process."
        )
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    # Dask's workers ask the driver for its GPUs, hidden or not, to watch over their memory
    os.environ["DASK_DISTRIBUTED__DIAGNOSTICS__NVML"] = "False"


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
    count = ctypes.c_uint(0)
    try:
        if nvml.nvmlInit_v2() != 0:
            return 0, "the NVIDIA driver does not answer (nvmlInit failed)"
        failed = nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0
        nvml.nvmlShutdown()
    except AttributeError as error:  # the library lacks the function
        return 0, f"the NVIDIA driver is too old or broken ({error})"
    if failed:
        return 0, "the NVIDIA driver does not answer (nvmlDeviceGetCount failed)"
    return count.value, f"NVML found {count.value} device{'s' * (count.value != 1)}"
