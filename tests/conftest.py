"""Settings and fixtures of all tests: no GPU, quiet imports of other packages, the tiny world."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

# before any module imports merlin or TensorFlow
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["DASK_DISTRIBUTED__DIAGNOSTICS__NVML"] = "False"  # else Merlin asks the driver for GPUs
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

sys.path.append(str(Path(__file__).parents[1] / "docs"))  # the package that writes the reference
from world import World

if TYPE_CHECKING:
    from tiny_run import Tiny


#: Test files → packages that they need and the NGC container lacks.
NEEDS = {
    "test_copied_export.py": ("fastapi", "httpx"),
    "test_docs.py": ("fastapi",),
    "test_raw_columns.py": ("uvicorn",),
    "test_raw_values.py": ("fastapi",),
    "test_reference.py": ("fastapi",),
    "test_report_charts.py": ("matplotlib",),
    "test_schema.py": ("jsonschema",),
    "test_sequences.py": ("uvicorn",),
    "test_serve*.py": ("fastapi", "fastapi_offline", "httpx"),
    "test_tracking.py": ("mlflow",),
    "test_tune.py": ("optuna",),
    "test_unsafe_models.py": ("fastapi", "httpx"),
    "test_vector.py": ("fastapi", "httpx"),
}
collect_ignore_glob = [files for files, names in NEEDS.items() if not all(map(find_spec, names))]

# a shared machine can be slow, and failures should be reproducible
settings.register_profile("house", deadline=None, derandomize=True)
settings.load_profile("house")


def pytest_configure(config: pytest.Config) -> None:
    """Warnings are errors (setup.cfg); these are not ours to mend."""
    for exempt in (
        # merlin-core warns so for every Dataset on a CPU
        "ignore:Initializing an NVTabular Dataset in CPU mode:UserWarning",
        # merlin-core prefers .merlin/schema.json; merlin-models still writes schema.pbtxt
        "ignore:Found schema.pbtxt:DeprecationWarning",
    ):
        config.addinivalue_line("filterwarnings", exempt)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name binary values by their length: an archive holds the second at which it was made, and
    the workers of pytest-xdist must collect tests of the same names."""
    if isinstance(val, bytes) and not (val.isascii() and val.decode("ascii").isprintable()):
        return f"{argname}-{len(val)}-bytes"
    return None


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """Ignore warnings of other packages while a test file imports them; ours stay errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", module=r"(models|workflows|test_\w+)\b")
        yield


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Restore logging after a test, because a command line that it calls configures logging."""
    loggers = [logging.getLogger(name) for name in (None, "workflows", "models", "tensorflow")]
    before = [(logger.level, list(logger.handlers)) for logger in loggers]
    yield
    for logger, (level, handlers) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        for handler in list(logger.handlers):
            if handler not in handlers and not type(handler).__module__.startswith("_pytest"):
                logger.removeHandler(handler)


@pytest.fixture
def measured(record_property: Callable[[str, object], None]) -> Callable[..., float]:
    """Return a function that takes a name and a figure, and gives the figure back.

    `make test-quality` ends with a list of these figures, for the notes of a release.
    """

    def note(name: str, figure: float) -> float:
        record_property(_FIGURE + name, f"{figure:.3f}")
        return figure

    return note


_FIGURE = "figure: "


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the figures that tests have measured."""
    figures = [
        (report.nodeid.rpartition("::")[2], name.removeprefix(_FIGURE), figure)
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, figure in report.user_properties
        if name.startswith(_FIGURE)
    ]
    if figures:
        terminalreporter.section("measured")
        for test, name, figure in figures:
            terminalreporter.write_line(f"{figure}  {name}  ({test})")


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Return a small data set with each oddity of real logs, written to disk."""
    return World(tmp_path / "raw").write()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Return the results of the verbs on the tiny world; each is computed at its first use."""
    from tiny_run import Tiny  # imports TensorFlow and Merlin, which few test files need

    own = tmp_path_factory.getbasetemp()
    # each worker of xdist has a folder within the folder of the session
    return Tiny((own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "tiny")


@pytest.fixture
def checked_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check exports in the process of the test, because a fresh process imports TensorFlow first.

    The export of `tiny` shows that a fresh process, without our packages, can check an export.
    """
    from tiny_run import check_here

    from workflows.towers import checks

    monkeypatch.setattr(checks, "check_from_outside", check_here)


@pytest.fixture
def eagerly() -> Iterator[None]:
    """Run the training steps of the test eagerly, without tracing them."""
    from tiny_run import steps_run_eagerly

    with steps_run_eagerly():
        yield
