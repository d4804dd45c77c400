"""The notebooks: stored clean, calling verbs only, and run in order on two tiny recipes."""

from __future__ import annotations

import ast
import itertools
import json
import logging
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from world import Rows, write_csv

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

FOLDER = Path(__file__).parent.parent / "notebooks"
NAMES = ["01-etl", "02-train-evaluate", "03-export-query"]
Cell = dict[str, Any]
#: Cell id → kind of output → what was shown.
Shown = dict[str, dict[str, list[str]]]

#: What a notebook may import beside nouns and verbs.
OTHERS = {"matplotlib", "numpy", "pandas", "pyarrow", "tensorflow"}
#: What it may import before the device is chosen: nothing here imports TensorFlow.
LIGHT = {"matplotlib", "numpy", "pandas", "pyarrow", "workflows.cli"} | sys.stdlib_module_names

every_notebook = pytest.mark.parametrize("name", NAMES)


def read(path: Path) -> dict[str, Any]:
    """Return a notebook as it is stored."""
    notebook: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return notebook


def stored(name: str) -> dict[str, Any]:
    return read(FOLDER / f"{name}.ipynb")


def code_cells(notebook: dict[str, Any]) -> list[Cell]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def source(cell: Cell) -> str:
    return "".join(cell["source"])


def modules(cell: Cell) -> Iterator[str]:
    """Yield the modules that a cell imports, by their full names."""
    for node in ast.walk(ast.parse(source(cell))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            assert node.level == 0, "a notebook has no package to be relative to"
            yield node.module


def is_among(module: str, allowed: set[str]) -> bool:
    return module in allowed or module.partition(".")[0] in allowed


def test_there_are_three() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES


@every_notebook
def test_nothing_of_a_run_is_stored(name: str) -> None:
    notebook = stored(name)
    for cell in code_cells(notebook):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
        assert cell["metadata"].keys() <= {"tags"}
    # no version of a machine's Python, no papermill record
    assert notebook["metadata"] == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)


@every_notebook
def test_cells_have_names_that_stay(name: str) -> None:
    ids = [cell["id"] for cell in stored(name)["cells"]]
    assert len(set(ids)) == len(ids)
    for given in ids:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", given), "a word, not a random number"


@every_notebook
def test_the_parameters_are_four(name: str) -> None:
    first, *rest = code_cells(stored(name))
    assert first["metadata"]["tags"] == ["parameters"]
    assert not any(cell["metadata"].get("tags") for cell in rest)
    # papermill's --help-notebook passes over a line with a second "="
    assert all(line.count("=") == 1 for line in first["source"])
    assigned = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(source(first)).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    assert assigned == {"recipe": "movielens-100k", "run": "", "device": "auto", "overrides": []}


@every_notebook
def test_prose_stands_before_code(name: str) -> None:
    cells = stored(name)["cells"]
    assert cells[0]["cell_type"] == "markdown"
    for before, cell in itertools.pairwise(cells):
        if cell["cell_type"] == "code":
            assert before["cell_type"] == "markdown"
            assert 1 <= len(re.findall(r"[.?!](?=\s|$)", source(before))) <= 3


@every_notebook
def test_no_absolute_paths(name: str) -> None:
    for cell in stored(name)["cells"]:
        assert not re.search(r"(?<![\w.~<>])(~|[A-Za-z]:\\|file:)?/\w", source(cell)), source(cell)


@every_notebook
def test_only_nouns_and_verbs_are_imported(name: str) -> None:
    for cell in code_cells(stored(name)):
        for module in modules(cell):
            assert is_among(module, {"models", "workflows", *OTHERS, *sys.stdlib_module_names})
        # a story, not a program: what needs a function belongs into the package
        kinds = (ast.FunctionDef, ast.ClassDef)
        assert not any(isinstance(node, kinds) for node in ast.walk(ast.parse(source(cell))))


@every_notebook
def test_the_device_is_chosen_before_tensorflow_can_be_imported(name: str) -> None:
    cells = code_cells(stored(name))
    choosing = [n for n, cell in enumerate(cells) if "= call.device()" in source(cell)]
    assert len(choosing) == 1
    for cell in cells[: choosing[0] + 1]:
        assert all(is_among(module, LIGHT) for module in modules(cell))
    assert any("workflows." in m for cell in cells[choosing[0] + 1 :] for m in modules(cell))


def test_the_light_imports_are_light() -> None:
    pytest.importorskip("matplotlib")
    code = f"import sys, {', '.join(sorted(LIGHT - sys.stdlib_module_names))}; "
    code += "sys.exit(bool({'tensorflow', 'merlin', 'nvtabular', 'cudf'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False).returncode == 0


TITLED = """\
name: titled
data: ../raw
sources:
  log: {files: log.csv}
  films: {files: films.csv}
interactions: log
join: [{table: films, key: film}]
split: {kind: leave_last, valid: 1, test: 1}
history: {columns: [film], max_len: 8}
features:
  person: {role: user, id: true}
  film: {role: item, id: true}
  title: {role: item, kind: label}
  genres: {role: item, kind: categories, separator: "|"}
  when: {role: time}
model: {dim: 8}
train: {epochs: 2}
evaluate: {ks: [5, 10], bootstrap: 50, baselines: [random, popularity, item-knn]}
"""

#: Two columns and nothing more: no time, titles, history, validation part or item bias.
BARE = """\
name: bare
data: ../raw
sources: {log: {files: log.csv}}
interactions: log
split: {kind: random, valid: 0, test: 0.2}
features:
  person: {role: user, id: true}
  film: {role: item, id: true}
model: {dim: 8, item_bias: false}
train: {epochs: 2}
evaluate: {ks: [5], bootstrap: 50, baselines: [random]}
"""


def write_project(folder: Path, recipe: str) -> Path:
    """Write 60 users, 40 films and a recipe into a folder laid out like the project; return it."""
    rng = random.Random(5)
    films: Rows = [
        {
            "film": f"f{n:02}",
            "title": None if n == 7 else f"Film {n}",
            "genres": "|".join(rng.sample(["drama", "crime", "war", "noir"], n % 3)) or None,
        }
        for n in range(40)
    ]
    log: Rows = []
    for user in range(60):
        seen: list[int] = []
        while len(seen) < 6 + user % 7:
            film = min(39, int(rng.expovariate(0.1)))
            if film not in seen:
                seen.append(film)
        start = 880_000_000 + 500 * user
        log += [{"person": f"u{user}", "film": f"f{f:02}", "when": start + f} for f in seen]
    for name in ("raw", "recipes", "notebooks"):
        (folder / name).mkdir(parents=True)
    write_csv(folder / "raw" / "log.csv", log)
    write_csv(folder / "raw" / "films.csv", films)
    (folder / "recipes" / "mine.yaml").write_text(recipe, encoding="utf-8")
    return folder


def kernel_environment(folder: Path) -> dict[str, str]:
    """Make `python3` the test's own interpreter, whatever kernels the machine has."""
    kernel = folder / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": command, "display_name": "Python 3", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    own = {f"JUPYTER_{name}_DIR": str(folder / name) for name in ("DATA", "CONFIG", "RUNTIME")}
    return {
        **os.environ,
        **own,
        "JUPYTER_PATH": str(folder / "jupyter"),
        "IPYTHONDIR": str(folder / "ipython"),
        "MPLCONFIGDIR": str(folder / "matplotlib"),
        "MPLBACKEND": INLINE,
        "PYTHONPATH": os.pathsep.join([str(FOLDER.parent), os.environ.get("PYTHONPATH", "")]),
    }


#: What draws figures in a notebook.
INLINE = "module://matplotlib_inline.backend_inline"
PARAMETERS = {"recipe": "mine", "device": "cpu", "overrides": ["train.batch_size=64"]}


def execute(name: str, project: Path, environment: dict[str, str]) -> Shown:
    """Run a notebook as Jupyter would: in the folder that it lies in, by a kernel of its own."""
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", "--kernel", "python3"]
    command += ["-y", json.dumps(PARAMETERS), str(FOLDER / f"{name}.ipynb"), f"{name}.ipynb"]
    folder = project / "notebooks"
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    shown: Shown = {}
    for cell in code_cells(read(folder / f"{name}.ipynb")):
        kinds = shown.setdefault(cell["id"], {})
        for output in cell["outputs"]:
            shapes = output.get("data") or {output["output_type"]: output["text"]}
            for kind, text in shapes.items():
                kinds.setdefault(kind, []).append("".join(text))
    return shown


@pytest.fixture(scope="module")
def shell() -> Iterator[InteractiveShell]:
    """IPython, which runs the cells inside of a kernel, here without one."""
    import matplotlib
    from IPython.core.interactiveshell import InteractiveShell
    from matplotlib_inline.backend_inline import configure_inline_support
    from traitlets.config import Config

    main, hook = sys.modules["__main__"], sys.excepthook
    shell = InteractiveShell.instance(config=Config(HistoryManager={"enabled": False}))
    before = matplotlib.get_backend()
    matplotlib.use(INLINE)
    configure_inline_support(shell, INLINE)
    yield shell
    matplotlib.use(before)
    InteractiveShell.clear_instance()
    # processes that are spawned later begin by importing the main module of this one
    sys.modules["__main__"], sys.excepthook = main, hook


class Here:
    """Run notebooks in this process, which has imported TensorFlow already.

    Args:
        shell: that runs the cells.
        logged: what was logged.
    """

    def __init__(self, shell: InteractiveShell, logged: pytest.LogCaptureFixture) -> None:
        self.shell = shell
        self.logged = logged

    def __call__(self, name: str) -> Shown:
        """Run a notebook."""
        self.shell.reset()
        return {cell["id"]: self._shown(cell) for cell in code_cells(stored(name))}

    def _shown(self, cell: Cell) -> dict[str, list[str]]:
        from IPython.utils.capture import capture_output

        code = source(cell)
        if "parameters" in cell["metadata"].get("tags", []):
            code += "".join(f"\n{name} = {value!r}" for name, value in PARAMETERS.items())
        values: list[dict[str, str]] = []
        hook = self.shell.displayhook
        hook.write_output_prompt = lambda: None
        hook.write_format_data = lambda data, _=None: values.append(data)
        self.logged.clear()
        with capture_output() as captured:
            self.shell.run_cell(code).raise_error()
        kinds: dict[str, list[str]] = {}
        for data in [*values, *(output.data for output in captured.outputs)]:
            for kind, text in data.items():
                kinds.setdefault(kind, []).append(text)
        said = [r.getMessage() for r in self.logged.records if r.levelno >= logging.WARNING]
        if said or captured.stdout or captured.stderr:
            kinds["stream"] = [*said, captured.stdout, captured.stderr]
        return kinds


def figures(shown: Shown) -> list[str]:
    """Return the cells that show a plot."""
    return [cell for cell, kinds in shown.items() if "image/png" in kinds]


needs_extra = pytest.mark.skipif(
    not (find_spec("papermill") and find_spec("ipykernel") and find_spec("matplotlib")),
    reason="needs the extra `notebooks`",
)
both_recipes = pytest.mark.parametrize(
    "recipe", [TITLED, pytest.param(BARE, marks=pytest.mark.quality)], ids=["titled", "bare"]
)


@needs_extra
@both_recipes
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("checked_here")
def test_they_run_in_order(
    recipe: str,
    tmp_path: Path,
    shell: InteractiveShell,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tiny_run import steps_run_eagerly

    project = write_project(tmp_path / "project", recipe)
    monkeypatch.chdir(project / "notebooks")
    here = Here(shell, caplog)
    etl = here("01-etl")
    with steps_run_eagerly():
        train = here("02-train-evaluate")
    check(project, recipe, etl, train, here("03-export-query"))


@needs_extra
@both_recipes
@pytest.mark.quality
def test_papermill_runs_them_in_order(recipe: str, tmp_path: Path) -> None:
    project = write_project(tmp_path / "project", recipe)
    environment = kernel_environment(tmp_path)
    check(project, recipe, *(execute(name, project, environment) for name in NAMES))


def check(project: Path, recipe: str, etl: Shown, train: Shown, export: Shown) -> None:
    """Compare what the notebooks show with the files of the run."""
    titled = recipe == TITLED
    cells = [kinds for shown in (etl, train, export) for kinds in shown.values()]
    said = [text for kinds in cells for text in kinds.get("stream", []) if text]
    assert ["no valid part" in text for text in said] == ([] if titled else [True]), said
    run = project / "runs" / ("titled" if titled else "bare")
    assert sorted(path.name for path in run.iterdir() if path.is_dir()) == [
        *("etl", "evaluate", "export", "train")
    ]

    assert "cpu" in etl["set-up"]["text/plain"][0]
    assert figures(etl) == ["popularity", "history-lengths"]
    assert ("genres" in etl["shares"]["text/plain"][0]) == titled

    assert "of 2" in train["train"]["text/plain"][0]
    assert figures(train) == ["learning-curve", "recall"]
    manifest = json.loads((run / "train" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["recipe"]["train"]["batch_size"] == 64
    report = json.loads((run / "evaluate" / "report.json").read_text(encoding="utf-8"))
    mean = report["headline"]["metrics"]["two-tower"]["recall@5"]["mean"]
    assert re.search(rf"two-tower +{mean:.3f} \[", train["metrics"]["text/plain"][0])

    assert figures(export) == ["norms"]
    name = r"Film \d+" if titled else r"f\d\d"
    assert len(re.findall(name, export["recommendations"]["text/plain"][0])) >= 10
    assert len(re.findall(rf"{name} \(-?[01]\.\d\d\)", export["neighbours"]["text/plain"][0])) >= 20
