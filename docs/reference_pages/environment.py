"""The page of environment variables that the package reads or sets."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from reference_pages.page import Entry, Page, Section

ROOT = Path(__file__).parents[2]
#: Variables that users set: name → meaning.
READ = {
    "TWO_TOWER_DEVICE": "The device, `cpu`, `gpu` or `auto`, if `--device` does not name one.",
    "TWO_TOWER_API_KEY": "The key that requests to `serve` must name. Without it the server asks"
    " for none, and refuses `/reload`.",
    "TWO_TOWER_SIGNING_KEY": "A secret key. With it, each manifest gets a signature, and stages"
    " that are unsigned, changed or signed with another key are refused.",
    "TF_CONFIG": "The processes that `train` runs in on several machines, and which one this is,"
    " as TensorFlow describes it.",
    "SLURM_STEP_NUM_TASKS": "The number of tasks of a SLURM step. If there are several, `train`"
    " trains one model in all of them.",
    "SLURM_STEP_NODELIST": "The machines of the SLURM step.",
    "SLURM_STEP_TASKS_PER_NODE": "The number of tasks on each machine of the SLURM step.",
    "SLURM_PROCID": "The number of this task in the SLURM step.",
    "SLURM_JOB_ID": "The number of the SLURM job, from which the ports of its tasks follow.",
    "MILVUS_TOKEN": "The credentials of a Milvus cluster, `user:password` or a key, for `load`.",
    "CUDA_VISIBLE_DEVICES": "The GPUs that a process may use, as for every CUDA program; an empty"
    " text hides all of them.",
    "TF_CPP_MIN_LOG_LEVEL": "The least severity of TensorFlow's own messages; errors only (2) if it"
    " is not set.",
    "TMPDIR": "The folder for temporary files, as for every program; `load` puts Milvus Lite's"
    " beside the target instead.",
}
#: Variables that verbs set for themselves or for libraries: name → meaning.
SET = {
    "CUDA_VISIBLE_DEVICES": "Empty in a process whose device is the CPU.",
    "TWO_TOWER_RANK": "Which of the processes of a training this one is, in those that `train`"
    " starts.",
    "TF_CPP_MIN_LOG_LEVEL": "3 in the processes of a training by several, which say once that one"
    " ended.",
    "TF_NUM_INTRAOP_THREADS": "The number of threads of each process of a training by several on"
    " one machine, if it is not set.",
    "OMP_NUM_THREADS": "The number of threads of NumPy in each process of a training by several on"
    " one machine, if it is not set.",
    "DASK_DISTRIBUTED__DIAGNOSTICS__NVML": "`False` in a process whose device is the CPU, so that"
    " Dask does not ask for GPUs.",
    "MLFLOW_ALLOW_FILE_STORE": "`true`, if it is not set: MLflow 3 asks for consent to a folder of"
    " runs.",
}


def page() -> Page:
    """Return the page of environment variables."""
    sections = [
        Section("Read", "Set these for a verb or in a service.", _entries(READ)),
        Section("Set by the verbs", "Verbs set these for their own process.", _entries(SET)),
    ]
    text = "Everything else is in the recipe or on the command line."
    return Page("Environment variables", text, sections)


def _entries(meanings: dict[str, str]) -> list[Entry]:
    return [Entry(name, text) for name, text in meanings.items()]


def used() -> set[str]:
    """Return the names of the variables that the source of the package reads or sets."""
    found: set[str] = set()
    for folder in ("models", "workflows"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            if "environ" in text:
                found |= set(used_in(text))
    return found


def used_in(text: str) -> Iterator[str]:
    """Yield the names of environment variables in a Python source text.

    A name is the literal or module constant with which `os.environ`, or a mapping that is called
    `environment`, is read or changed.
    """
    tree = ast.parse(text)
    constants = dict(_constants(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            at, keys = getattr(node.func, "value", None), node.args[:1]
        elif isinstance(node, ast.Subscript):
            at, keys = node.value, [node.slice]
        else:
            continue
        if "environ" in (getattr(at, "attr", ""), getattr(at, "id", "").removesuffix("ment")):
            for key in keys:
                if isinstance(key, ast.Constant):
                    yield str(key.value)
                elif isinstance(key, ast.Name) and key.id in constants:
                    yield str(constants[key.id])


def _constants(tree: ast.Module) -> Iterator[tuple[str, object]]:
    """Yield the constants of a module, and those that it imports from this package."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            yield from ((t.id, node.value.value) for t in node.targets if isinstance(t, ast.Name))
        elif isinstance(node, ast.ImportFrom) and node.module:
            path = ROOT.joinpath(*node.module.split(".")).with_suffix(".py")
            if path.is_file() and any(alias.name.isupper() for alias in node.names):
                yield from _constants(ast.parse(path.read_text(encoding="utf-8")))
