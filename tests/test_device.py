"""The choice of a device: flag, then environment, then auto, before any import that finds GPUs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from world import World

from workflows.ground import device
from workflows.ground.device import Device
from workflows.ground.errors import DeviceError
from workflows.ground.versions import versions

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


class Old:
    """A library that has none of the functions, as ctypes tells it."""

    def __getattr__(self, name: str) -> None:
        raise AttributeError(f"no symbol {name}")


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has imported nothing yet and knows nothing of GPUs."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("TWO_TOWER_DEVICE", raising=False)
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    monkeypatch.delenv("DASK_DISTRIBUTED__DIAGNOSTICS__NVML", raising=False)
    for name in device._GPU_PACKAGES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    device._tensorflow_fault.cache_clear()
    device._cudf_fault.cache_clear()


@pytest.fixture
def able(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which every package answers from the GPU."""
    monkeypatch.setattr(device, "NEEDS", {verb: lambda: None for verb in device.NEEDS})


def plug_in(monkeypatch: pytest.MonkeyPatch, driver: Any) -> Any:
    monkeypatch.setattr("workflows.ground.device.ctypes.CDLL", lambda name: driver)
    return driver


def unplug(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr("workflows.ground.device.ctypes.CDLL", missing)


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
@pytest.mark.usefixtures("able")
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
    assert os.environ["DASK_DISTRIBUTED__DIAGNOSTICS__NVML"] == "False"


@pytest.mark.usefixtures("able")
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


def test_a_driver_that_lacks_a_function_counts_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, Old())
    assert device.count_gpus() == (
        0,
        "the NVIDIA driver is too old or broken (no symbol nvmlInit_v2)",
    )


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


# ── what the verb needs, beside a driver ────────────────────────────────────────────────


def package(folder: Path, name: str, text: str, *, cuda: bool = False) -> None:
    """Write a package that stands for TensorFlow or cuDF."""
    (folder / name / "python" / "platform").mkdir(parents=True)
    (folder / name / "__init__.py").write_text(text, encoding="utf-8")
    info = f"build_info = dict([('is_cuda_build', {cuda})])"
    (folder / name / "python" / "platform" / "build_info.py").write_text(info, encoding="utf-8")


TENSORFLOW = """
class config:
    def list_physical_devices(kind):
        return [0] * {n} if kind == "GPU" else []
"""
CUDF = """
class Series(list):
    def sum(self):
        return {answer}
"""


@pytest.mark.parametrize(
    ("name", "text", "cuda", "fault"),
    [
        ("tensorflow", TENSORFLOW.format(n=1), True, ""),
        ("tensorflow", TENSORFLOW.format(n=1), False, "TensorFlow here is built without CUDA"),
        ("tensorflow", TENSORFLOW.format(n=0), True, "TensorFlow lists no GPU"),
        (
            "tensorflow",
            "raise ImportError('libcudart.so.11.0: not found')",
            True,
            "TensorFlow cannot be asked for GPUs (ImportError: libcudart.so.11.0: not found)",
        ),
        ("cudf", CUDF.format(answer="sum(self[:])"), False, ""),
        (
            "cudf",
            CUDF.format(answer="1 / 0"),
            False,
            "cuDF cannot use the GPU (ZeroDivisionError: division by zero)",
        ),
    ],
)
def test_a_gpu_is_taken_only_where_the_package_answers_from_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, text: str, cuda: bool, fault: str
) -> None:
    package(tmp_path, name, text, cuda=cuda)
    monkeypatch.syspath_prepend(tmp_path)  # of this process
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # of the one that is asked
    plug_in(monkeypatch, Driver(1))
    verb = "etl" if name == "cudf" else "train"
    found = device.decide("auto", verb=verb)
    if not fault:
        assert found == Device("gpu", "NVML found 1 device")
        return
    assert found == Device("cpu", f"no GPU for {verb}: {fault}; NVML found 1 device")
    with pytest.raises(DeviceError) as refused:
        device.decide("gpu", verb=verb)
    said = str(refused.value)
    assert said.startswith(f"--device asks for a GPU, but {fault}; NVML found 1 device. ")
    assert "the NGC Merlin container (docker/Dockerfile.gpu), or use --device cpu." in said
    assert name not in sys.modules


def test_a_verb_that_needs_no_gpu_runs_on_the_cpu_whatever_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plug_in(monkeypatch, Driver(1))
    for wish in (None, "auto", "gpu"):
        assert device.decide(wish, verb="recommend") == Device("cpu", "no GPU is needed")


def test_a_process_of_several_verbs_needs_what_all_of_them_need(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plug_in(monkeypatch, Driver(1))
    lacks = device._Fault("cuDF is away", "Bring it")
    monkeypatch.setattr(device, "NEEDS", {"etl": lambda: lacks, "train": lambda: None})
    assert device.decide("auto", verb="train").kind == "gpu"
    assert device.decide("auto") == Device("cpu", "no GPU: cuDF is away; NVML found 1 device")


STUB = """
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = 1; return 0; }
int nvmlShutdown(void) { return 0; }
"""
EVERY_VERB = """
import json, os
from workflows.ground import device
from workflows.cli import VERBS

found = {}
for verb in VERBS:
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    name = verb.__name__.replace("_", "-")
    chosen = device.choose(verb=name)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    found[name] = [chosen.kind, chosen.why]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def beside_a_driver(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the environment of a machine whose NVIDIA driver has one GPU, and nothing else."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("driver")
    (folder / "nvml.c").write_text(STUB, encoding="utf-8")
    library = str(folder / "libnvidia-ml.so.1")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, folder / "nvml.c"], check=True)
    hidden = {"CUDA_VISIBLE_DEVICES", "TWO_TOWER_DEVICE"}
    bare = {name: value for name, value in os.environ.items() if name not in hidden}
    return {**bare, "LD_LIBRARY_PATH": str(folder)}


def ours(*arguments: str, environment: dict[str, str]) -> str:
    """Run Python in the checkout, and return what it printed on stdout and stderr."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "Traceback" not in done.stdout
    return done.stdout


@pytest.mark.skipif(
    "tensorflow-cpu" not in versions(), reason="the packages here may well use a GPU"
)
def test_beside_a_driver_every_verb_runs_on_the_cpu_and_says_why(
    beside_a_driver: dict[str, str],
) -> None:
    found = json.loads(ours("-c", EVERY_VERB, environment=beside_a_driver))
    tensorflow = "TensorFlow here is built without CUDA; NVML found 1 device"
    needs = {
        "etl": "no GPU for etl: cuDF is not installed here; NVML found 1 device",
        **{v: f"no GPU for {v}: {tensorflow}" for v in ("train", "tune", "evaluate", "export")},
    }
    assert set(needs) < set(found)
    assert found == {verb: ["cpu", needs.get(verb, "no GPU is needed")] for verb in found}


@pytest.mark.skipif(
    "tensorflow-cpu" not in versions(), reason="the packages here may well use a GPU"
)
def test_etl_and_doctor_run_beside_a_driver(
    beside_a_driver: dict[str, str], world: World, tmp_path: Path
) -> None:
    why = "no GPU for etl: cuDF is not installed here; NVML found 1 device"
    options = ["--recipe", str(world.recipe_file), "--run", str(tmp_path / "run")]
    said = ours("-m", "workflows", "etl", *options, environment=beside_a_driver)
    first = f"two-tower etl: recipe tiny, run {tmp_path / 'run'}, device cpu ({why})\n"
    assert said.startswith(first)
    manifest = json.loads((tmp_path / "run" / "etl" / "manifest.json").read_bytes())
    assert (manifest["device"], manifest["device_why"]) == ("cpu", why)
    told = json.loads(ours("-m", "workflows", "doctor", "--json", environment=beside_a_driver))
    assert told["devices"]["etl"] == {"kind": "cpu", "why": why}
    assert told["devices"]["train"]["why"].startswith("no GPU for train: TensorFlow here is built")
    assert not any("GPU" in fault for fault in told["faults"])


def test_choosing_imports_nothing_heavy() -> None:
    code = (
        "import sys; from workflows.ground import device; device.choose('auto');"
        "print([m for m in ('tensorflow', 'merlin', 'nvtabular', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
