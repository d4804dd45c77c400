"""Choose CPU or GPU, once per process, before merlin or TensorFlow are imported.

The `--device` flag has precedence over $TWO_TOWER_DEVICE; if neither is given, the choice is
`auto`. `auto` takes a GPU only if the library that the verb needs (TensorFlow or cuDF) can use it:
an installed driver is not enough. For the CPU, CUDA_VISIBLE_DEVICES is set to "", because with "-1"
merlin-core still says HAS_GPU = True.
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
#: Python packages that search for GPUs when they are imported.
_GPU_PACKAGES = ("tensorflow", "merlin", "nvtabular", "cudf")
#: Seconds to wait for a GPU check that runs in a new process.
_TIMEOUT = 180


@dataclass(frozen=True)
class Device:
    """The device (cpu or gpu) that the process runs on, and the reason why it was chosen."""

    kind: Kind
    why: str


@dataclass(frozen=True)
class _Fault:
    """The reason why a package cannot use a GPU on this machine, and the remedy."""

    what: str
    remedy: str


def choose(requested: str | None = None, *, verb: str = "") -> Device:
    """Choose CPU or GPU for this process, and set its environment variables accordingly.

    Args:
        requested: "cpu", "gpu", "auto", or None to ask $TWO_TOWER_DEVICE.
        verb: the verb that the process runs; empty for a process that runs several verbs.

    Raises:
        DeviceError: the GPU cannot be used, or the requested device is not cpu, gpu or auto.
    """
    device = decide(requested, verb=verb)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors only, by default
    if device.kind == "cpu":
        _hide_gpus()
    return device


def decide(requested: str | None = None, *, verb: str = "") -> Device:
    """Choose CPU or GPU as `choose` does, but leave the environment variables as they are."""
    choice, origin = (
        (requested, "--device") if requested else (os.environ.get(ENVIRONMENT), ENVIRONMENT)
    )
    choice = choice or "auto"
    if choice not in ("auto", "cpu", "gpu"):
        raise DeviceError(f"{origin} is {choice!r}; expected one of auto, cpu, gpu.")
    if choice == "cpu":
        return Device("cpu", f"asked for by {origin}")
    if verb and verb not in NEEDS:
        return Device("cpu", "no GPU is needed")
    n_gpus, seen = count_gpus()
    nothing = _Fault(seen, "Check `nvidia-smi`, run the container with `--gpus all`")
    fault = _first_fault(verb) if n_gpus else nothing
    if fault is None:
        return Device("gpu", f"{seen}, asked for by {origin}" if choice == "gpu" else seen)
    what = f"{fault.what}; {seen}" if n_gpus else fault.what
    if choice == "gpu":
        raise DeviceError(
            f"{origin} asks for a GPU, but {what}. {fault.remedy}, or use --device cpu."
        )
    return Device("cpu", f"no GPU for {verb}: {what}" if n_gpus and verb else f"no GPU: {what}")


def _first_fault(verb: str) -> _Fault | None:
    """Return the reason why the library of a verb cannot use the GPU; None if it can.

    A process that runs several verbs (`verb` is empty) needs the libraries of all verbs.
    """
    checks = [NEEDS[verb]] if verb else dict.fromkeys(NEEDS.values())
    return next((fault for fault in (check() for check in checks) if fault), None)


@cache
def _tensorflow_fault() -> _Fault | None:
    """Ask TensorFlow for GPUs in another process, because this process must not import it yet."""
    remedy = "Use the NGC Merlin container (docker/Dockerfile.gpu)"
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or not spec.submodule_search_locations:
        return _Fault("TensorFlow is not installed here", remedy)
    info = Path(spec.submodule_search_locations[0]) / "python" / "platform" / "build_info.py"
    if info.is_file() and "'is_cuda_build', True" not in info.read_text(encoding="utf-8"):
        return _Fault("TensorFlow here is built without CUDA", remedy)
    question = "import tensorflow as tf; print(len(tf.config.list_physical_devices('GPU')))"
    answer, error = _run_python(question)
    if answer is None:
        return _Fault(f"TensorFlow cannot be asked for GPUs ({error})", remedy)
    if answer == "0":
        libraries = "Check that CUDA and cuDNN are those of this TensorFlow"
        return _Fault("TensorFlow lists no GPU", f"{libraries}. {remedy}")
    return None


@cache
def _cudf_fault() -> _Fault | None:
    """Ask cuDF, in another process, to add two numbers in the memory of a GPU."""
    remedy = "Use the NGC Merlin container (docker/Dockerfile.gpu)"
    if importlib.util.find_spec("cudf") is None:
        return _Fault("cuDF is not installed here", remedy)
    answer, error = _run_python("import cudf; print(int(cudf.Series([1, 2]).sum()))")
    if answer != "3":
        return _Fault(f"cuDF cannot use the GPU ({error or answer})", remedy)
    return None


#: Verb → function that checks its GPU library. Verbs that are not listed use no GPU.
NEEDS: dict[str, Callable[[], _Fault | None]] = {
    "etl": _cudf_fault,
    "train": _tensorflow_fault,
    "tune": _tensorflow_fault,
    "evaluate": _tensorflow_fault,
    "export": _tensorflow_fault,
}


def _run_python(code: str) -> tuple[str | None, str]:
    """Run a line of Python code in a new process, and return its result.

    Returns:
        The last word that the code printed (None if it failed), and the last line of its error.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        return None, f"no answer in {_TIMEOUT} s"
    if done.returncode:
        return None, (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return (done.stdout.split() or [""])[-1], ""


def _hide_gpus() -> None:
    early = [name for name in _GPU_PACKAGES if name in sys.modules]
    if early and os.environ.get("CUDA_VISIBLE_DEVICES") != "":
        raise DeviceError(
            f"{', '.join(early)} was imported before the device was chosen, so GPUs cannot be "
            "hidden from it. Call workflows.ground.device.choose() first, in a fresh process."
        )
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    # Dask's workers ask the driver for all GPUs, hidden ones too, to monitor their memory
    os.environ["DASK_DISTRIBUTED__DIAGNOSTICS__NVML"] = "False"


def count_gpus() -> tuple[int, str]:
    """Ask the NVIDIA driver (NVML) how many GPUs it has, without importing any package.

    Returns:
        The number of GPUs that this process may use, and a phrase that says what was found.
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


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip()]
    return [str(number) for number in range(count_gpus()[0])]
