"""The set-up: pins agree with what is declared, bans are kept, make and docker do as they say."""

from __future__ import annotations

import ast
import configparser
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import defaultdict
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
NGC_LOCK = ROOT / "docker" / "ngc-like.lock"
#: Not locked: it is for machines with a GPU outside the container.
UNLOCKED_EXTRAS = {"gpu"}
PYTHONS = ("3.10", "3.11")


def run(*command: str, cwd: Path = ROOT, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command, without what an outer `make` left in the environment."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("MAKE")
        and name not in {"MFLAGS", "RECIPE", "RUN", "DEVICE", "SET", "PYTHON", "NGC", "PYTEST"}
    }
    return subprocess.run(
        command, cwd=cwd, env=inherited | settings, capture_output=True, text=True, check=False
    )


def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(delimiters=("=",), strict=True)
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def entries(lock: Path) -> dict[str, str]:
    """Return requirement → the hash lines that follow it."""
    found: dict[str, str] = {}
    requirement = ""
    for line in lock.read_text(encoding="utf-8").splitlines():
        if not line.startswith(" "):
            requirement = line.rstrip("\\ ")
            assert requirement not in found, requirement
            found[requirement] = ""
        else:
            found[requirement] += line
    return found


def pins(python: str, lock: Path = LOCK) -> dict[str, Version]:
    """Return package → version that a lock installs for a Python."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.9",
        "platform_machine": "x86_64",
        "sys_platform": "linux",
    }
    chosen: dict[str, Version] = {}
    for entry in entries(lock):
        requirement = Requirement(entry)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            (specifier,) = requirement.specifier
            assert specifier.operator == "=="
            name = canonicalize_name(requirement.name)
            assert name not in chosen, f"{name} is pinned twice for Python {python}"
            chosen[name] = Version(specifier.version)
    return chosen


def declared() -> list[Requirement]:
    """Return the direct dependencies of the package and of every extra that is locked."""
    parser = setup_cfg()
    extras = dict(parser["options.extras_require"])
    assert set(extras) >= UNLOCKED_EXTRAS
    wanted = lines(parser["options"]["install_requires"])
    for extra, requirements in extras.items():
        if extra not in UNLOCKED_EXTRAS:
            wanted += lines(requirements)
    return [Requirement(line) for line in wanted]


#: The packages of the project.
ROOMS = ("models", "samples", "workflows")


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


# ── the lock ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("python", PYTHONS)
def test_every_direct_dependency_is_locked(python: str) -> None:
    chosen = pins(python)
    wrong = [
        f"{requirement} is locked as {chosen.get(canonicalize_name(requirement.name))}"
        for requirement in declared()
        if (version := chosen.get(canonicalize_name(requirement.name))) is None
        or version not in requirement.specifier
    ]
    assert not wrong, f"run `make lock`: {wrong}"


def test_the_locked_extras_are_those_of_the_makefile() -> None:
    (extras,) = re.findall(r"^EXTRAS := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(extras.split()) == set(setup_cfg()["options.extras_require"]) - UNLOCKED_EXTRAS


@pytest.mark.parametrize("lock", [LOCK, NGC_LOCK], ids=lambda path: path.name)
def test_the_lock_is_hashed_and_names_no_address(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8")
    assert "://" not in text
    assert not re.search(r"^\s*-(?!-hash=)", text, re.MULTILINE)
    found = entries(lock)
    assert len(found) > 50
    unhashed = [entry for entry, hashes in found.items() if "--hash=sha256:" not in hashes]
    assert not unhashed


def test_python_versions_are_said_once() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (requires,) = re.findall(r'^requires-python = "(.+)"$', pyproject, re.MULTILINE)
    assert requires == setup_cfg()["options"]["python_requires"]


def test_uv_is_pinned_once() -> None:
    (make,) = re.findall(r"^UV_VERSION := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    docker = (ROOT / "docker" / "Dockerfile.cpu").read_text(encoding="utf-8")
    assert re.findall(r"^ARG UV_VERSION=(\S+)$", docker, re.MULTILINE) == [make]


@pytest.mark.quality  # it asks the package index
def test_the_lock_is_what_uv_compiles(tmp_path: Path) -> None:
    uv = Path(sys.executable).with_name("uv")
    if not uv.exists():
        pytest.skip("no uv beside this Python")
    again = tmp_path / LOCK.name
    shutil.copy(LOCK, again)  # uv keeps the pins that it finds
    printed = run("make", "--dry-run", "--always-make", "lock").stdout.replace("\\\n", "")
    (command,) = [line for line in printed.splitlines() if "--extra" in line]
    words = [str(again) if word == LOCK.name else word for word in shlex.split(command)]
    words = [str(uv) if word.endswith("bin/uv") else word for word in words if word != "--quiet"]
    done = run("env", *words)
    if done.returncode and re.search(r"dns error|error sending request|offline", done.stderr):
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stderr
    assert again.read_text() == LOCK.read_text(), "setup.cfg or pyproject.toml changed: `make lock`"


# ── what was installed ──────────────────────────────────────────────────────────────────


def test_what_is_installed_is_what_is_locked() -> None:
    lock = {ROOT / ".venv": LOCK, ROOT / ".venv-ngc": NGC_LOCK}.get(Path(sys.prefix))
    if lock is None:
        pytest.skip("not an environment that the Makefile made")
    chosen = pins("{}.{}".format(*sys.version_info), lock)
    installed = {name: Version(metadata.version(name)) for name in chosen}
    assert installed == chosen


def test_the_stack_was_compiled_at_install() -> None:
    """Without byte code the imports take 20 s more, in every process."""
    if Path(sys.prefix).parent != ROOT:
        pytest.skip("not an environment that the Makefile made")
    found = importlib.util.find_spec("nvtabular")
    assert found is not None
    assert found.origin is not None
    packages = Path(found.origin).parent.parent
    for name in ("nvtabular", "merlin/models/tf", "tensorflow/python/framework", "dask/dataframe"):
        files = sorted((packages / name).glob("*.py"))
        assert files
        missing = [
            path.name
            for path in files
            if not Path(importlib.util.cache_from_source(str(path))).exists()
        ]
        assert not missing, f"{name}: {missing}"


def test_models_and_workflows_are_ours(tmp_path: Path) -> None:
    for name in ("models", "workflows"):
        script = f"import {name}; print({name}.__file__)"
        done = run(sys.executable, "-c", script, cwd=tmp_path)  # not the root: what is installed
        assert Path(done.stdout.strip()) == ROOT / name / "__init__.py", done.stderr


def test_a_tracked_dict_may_enter_a_tf_function() -> None:
    """wrapt below 2 with typing-extensions from 4.6 on: TypeError, in TensorFlow's issue 60687."""
    import tensorflow as tf

    class Holder(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = {"a": tf.constant(1.0), "b": tf.constant(2.0)}
            self.pair = (tf.Variable(3.0), {"c": tf.constant(4.0)})

    @tf.function
    def total(table, pair):
        return table["a"] + table["b"] + pair[0] + pair[1]["c"]

    holder = Holder()
    assert type(holder.table).__name__ == "_DictWrapper", type(holder.table)
    assert float(total(holder.table, holder.pair)) == 10.0


@pytest.mark.parametrize(
    "module",
    ["models.core.metrics", "models.towers.config", "workflows.recipe", "workflows.stages.store"],
)
def test_light_rooms_load_no_heavy_package(module: str) -> None:
    heavy = ["tensorflow", "keras", "merlin", "dask", "distributed", "nvtabular"]
    script = f"import sys, {module}; print(*sorted(set({heavy}) & set(sys.modules)))"
    done = run(sys.executable, "-c", script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


def test_reading_a_recipe_loads_neither_scipy_nor_parquet() -> None:
    script = (
        "import sys, workflows.recipe;"
        "print(*[m for m in ('scipy', 'pyarrow.parquet') if m in sys.modules])"
    )
    done = run(sys.executable, "-c", script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


# ── the house ───────────────────────────────────────────────────────────────────────────


def test_setup_cfg_lists_every_package() -> None:
    options = setup_cfg()["options"]
    elsewhere = {line.partition(" = ")[0] for line in lines(options["package_dir"])}  # recipes/
    listed = set(lines(options["packages"])) - elsewhere
    folders = {path.parent for path in sources(*ROOMS)}
    on_disk = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert sorted(listed) == sorted(on_disk)
    without_init = [str(folder) for folder in folders if not (folder / "__init__.py").exists()]
    assert not without_init


def test_no_second_folder_is_called_models_or_workflows() -> None:
    own = {"data", "runs", "build", "dist"}
    met: dict[str, list[Path]] = defaultdict(list)
    for folder, names, _ in os.walk(ROOT):
        here = Path(folder)
        skipped = own if here == ROOT else set()
        names[:] = [name for name in names if not name.startswith(".") and name not in skipped]
        for name in names:
            met[name].append(here)
    assert met["models"] == [ROOT]
    assert met["workflows"] == [ROOT]


@pytest.mark.parametrize("room", ["models", "workflows", "models/baselines", "workflows/etl"])
def test_git_ignores_no_room(room: str) -> None:
    if run("git", "rev-parse", "--git-dir").returncode:
        pytest.skip("not a git repository")
    asked = [f"{room}/{name}" for name in ("__init__.py", "data.py", "runs.py", "build.py")]
    done = run("git", "check-ignore", "--no-index", "--verbose", *asked)
    assert done.stdout == ""
    assert done.returncode == 1  # none of them; 0 would be some, 128 an error
    assert run("git", "check-ignore", "--no-index", "runs/x").returncode == 0


#: Formats that run code when they are read, and the ways to run text as code.
BANNED_IMPORTS = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
BANNED_CALLS = {"eval", "exec", "compile", "__import__"}


def offences(text: str) -> list[str]:
    """Return what a file does that reading data must not be able to do: run it."""
    found = []
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Import():
                names = [alias.name for alias in node.names]
            case ast.ImportFrom():
                names = [node.module or ""]
            case ast.Call(func=ast.Attribute(attr="import_module"), args=[ast.Constant(str(name))]):
                names = [name]
            case _:
                names = []
        found += [name for name in names if name.split(".")[0] in BANNED_IMPORTS]
        match node:
            case ast.Name(id=name) if name in BANNED_CALLS:
                found.append(name)
            case ast.Attribute(attr="read_pickle" | "to_pickle" as name):
                found.append(name)
            case ast.keyword(arg="allow_pickle", value=value):
                if not (isinstance(value, ast.Constant) and value.value is False):
                    found.append("allow_pickle")
    return found


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "import os, cloudpickle",
        "from joblib import load",
        "from dill.source import getsource",
        "def f():\n    import pickle as p",
        "eval('1')",
        "run = exec",
        "import pandas as pd\npd.read_pickle('x')",
        "np.load(p, allow_pickle=True)",
        "importlib.import_module('pickle')",
    ],
)
def test_the_scan_sees(text: str) -> None:
    assert offences(text)


def test_the_scan_lets_pass() -> None:
    assert not offences("np.load(p, allow_pickle=False)\nre.match('x', y)\nmodel.evaluate()")


def test_no_file_can_run_what_it_reads() -> None:
    scanned = sources(*ROOMS, "benchmarks", "notebooks")
    assert len(scanned) > 10
    found = {
        str(path.relative_to(ROOT)): bad
        for path in scanned
        if (bad := offences(path.read_text(encoding="utf-8")))
    }
    assert not found


def test_what_is_imported_is_declared() -> None:
    """A package that comes only because another wants it can leave with the next lock."""
    installs = {  # import name → distribution, where they differ
        "yaml": "pyyaml",
        "merlin": "merlin-core",
        "tensorflow": "tensorflow-cpu",
        "keras": "tensorflow-cpu",
        "dask": "merlin-core",  # its API, pinned by it
        "distributed": "merlin-core",
        "google": "protobuf",
        "mlflow": "mlflow-skinny",
        "faiss": "faiss-cpu",
        "starlette": "fastapi",  # what FastAPI is made of, and takes the types of
        "anyio": "fastapi",
        "pydantic_core": "pydantic",
    }
    # by Triton to the backend's model.py; by the extra `gpu`, which is not locked; by the
    # container, whose PyArrow needs it
    given = {"triton_python_backend_utils", "dask_cuda", "pyarrow_hotfix"}
    wanted = {canonicalize_name(requirement.name) for requirement in declared()}
    missing = defaultdict(set)
    for path in sources(*ROOMS):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            for top in {name.split(".")[0] for name in names}:
                if top in sys.stdlib_module_names or top in {*ROOMS, *given}:
                    continue
                if canonicalize_name(installs.get(top, top)) not in wanted:
                    missing[top].add(str(path.relative_to(ROOT)))
    assert not missing, f"add them to setup.cfg, then `make lock`: {dict(missing)}"


# ── make and docker ─────────────────────────────────────────────────────────────────────

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@needs_make
def test_help_lists_every_target() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    (verbs,) = re.findall(r"^VERBS := (.*)$", text, re.MULTILINE)
    phony = " ".join(re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)).replace("$(VERBS)", verbs)
    targets = set(phony.split()) - {"REDO"}
    assert targets >= {"fetch", "etl", "train", "evaluate", "export", "doctor", "test", "test-ngc"}
    shown = re.findall(r"^  ([a-z0-9-]+)  +\S", run("make", "help").stdout, re.MULTILINE)
    assert sorted(shown) == sorted(targets)
    assert run("make", "--dry-run").stdout == run("make", "--dry-run", "help").stdout


def stages(printed: str) -> list[list[str]]:
    """Return the words of the package's own command lines, from `workflows` on."""
    calls = [shlex.split(line) for line in printed.splitlines() if " -m workflows " in line]
    return [words[words.index("workflows") + 1 :] for words in calls]


@needs_make
def test_variables_become_options() -> None:
    given = ["RECIPE=x", "RUN=y", "DEVICE=cpu", "SET=a.b=1 c.d=[2,3]"]
    options = shlex.split("--recipe x --run y --device cpu --set a.b=1 --set c.d=[2,3]")
    done = run("make", "--dry-run", "etl", *given)
    assert done.returncode == 0, done.stderr
    assert stages(done.stdout) == [["fetch", *options], ["etl", *options]]
    assert "--set 'c.d=[2,3]'" in done.stdout  # or the shell takes it for a file pattern


@needs_make
def test_goals_run_in_order_with_defaults() -> None:
    options = ["--recipe", "movielens-100k", "--device", "auto"]
    done = run("make", "--dry-run", "--jobs=4", "etl", "train", "export")
    verbs = ["fetch", "etl", "train", "evaluate", "export"]  # export comes with the comparison
    assert stages(done.stdout) == [[verb, *options] for verb in verbs]


@needs_make
def test_test_runs_every_check_in_order() -> None:
    done = run("make", "--dry-run", "test", "NGC=0")
    places = [
        done.stdout.index(name)
        for name in ("ruff check", "ruff format --check", "mypy", "lint-imports", "-m pytest")
    ]
    assert places == sorted(places)
    assert "quality" not in done.stdout, "setup.cfg leaves these tests out, and nothing else does"
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "exec make test" in ci
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


@needs_make
@pytest.mark.parametrize("ngc", ["0", "1"])
def test_what_make_test_leaves_out_is_what_test_quality_runs(ngc: str) -> None:
    every, quality = (
        run("make", "--dry-run", name, f"NGC={ngc}", "PYTEST=-k some").stdout.splitlines()
        for name in ("test", "test-quality")
    )
    assert every[-1].endswith("-k some")
    assert quality[-1] == f"{every[-1]} -m quality"
    options = setup_cfg()["tool:pytest"]["addopts"]
    assert shlex.split(options)[-2:] == ["-m", "not quality"]


@needs_make
def test_the_container_keeps_its_packages() -> None:
    done = run("make", "--dry-run", "--always-make", "etl", "train", "NGC=1")
    assert done.returncode == 0, done.stderr
    assert "venv" not in done.stdout
    assert " uv " not in done.stdout
    installs = [line for line in done.stdout.splitlines() if "pip install" in line]
    assert len(installs) == 2
    assert all(line.startswith("python3 -m pip install --no-deps ") for line in installs)
    assert [words[0] for words in stages(done.stdout)] == ["fetch", "etl", "train"]
    plain = run("make", "--dry-run", "--always-make", "etl", "NGC=0").stdout
    assert "requirements.lock" in plain


def test_the_container_gets_nothing_of_its_own_anew() -> None:
    listed = [
        Requirement(line)
        for name in ("requirements-ngc.txt", "requirements-ngc-tests.txt")
        for line in lines((ROOT / "docker" / name).read_text(encoding="utf-8"))
        if not line.startswith("#")
    ]
    names = {canonicalize_name(requirement.name) for requirement in listed}
    assert names >= {"msgspec", "typer"}
    kept = "tensorflow tensorflow-cpu keras numpy pandas pyarrow numba dask distributed nvtabular"
    kept += " merlin-core merlin-models protobuf typing-extensions wrapt cudf"
    assert not names & set(kept.split())
    assert all(spec.operator in {">=", "<"} for each in listed for spec in each.specifier)


@needs_make
def test_test_ngc_takes_python_310_or_skips() -> None:
    skipped = run("make", "test-ngc", "PYTHON310=no-such-python")
    assert skipped.returncode == 0, skipped.stderr
    assert "skipped" in skipped.stdout
    assert "no-such-python" in skipped.stdout
    if sys.version_info[:2] != (3, 10):
        return
    done = run("make", "--dry-run", "--always-make", "test-ngc", f"PYTHON310={sys.executable}")
    assert "docker/ngc-like.lock" in done.stdout
    assert "-m pytest" in done.stdout


@pytest.mark.parametrize("name", ["Dockerfile.cpu", "Dockerfile.gpu"])
def test_dockerfiles_are_clean(name: str) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint is not installed here")
    done = run(str(hadolint), "--failure-threshold", "info", f"docker/{name}")
    assert done.returncode == 0, done.stdout
    assert done.stdout == ""


@pytest.mark.parametrize("name", ["Dockerfile.cpu", "Dockerfile.gpu"])
def test_what_an_image_copies_is_sent_to_the_builder(name: str) -> None:
    text = (ROOT / "docker" / name).read_text(encoding="utf-8")
    copied = [
        source
        for words in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE)
        for source in words.split()[:-1]
    ]
    ignore = lines((ROOT / "docker" / f"{name}.dockerignore").read_text(encoding="utf-8"))
    allowed = {line[1:] for line in ignore if line.startswith("!")}
    assert "*" in ignore
    assert set(copied) >= {*ROOMS, "recipes"}
    assert set(copied) <= allowed
    assert all((ROOT / source).exists() for source in copied)
