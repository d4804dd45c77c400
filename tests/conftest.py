"""What all tests share: no GPU, quiet imports of other packages, and the tiny world."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# before anything can import merlin or TensorFlow
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from world import World


# a shared machine is slow at times, and a failure should come again
settings.register_profile("house", deadline=None, derandomize=True)
settings.load_profile("house")


def pytest_configure(config: pytest.Config) -> None:
    """Warnings are errors (setup.cfg); these are not ours to mend."""
    for exempt in (
        # merlin-core says this of every Dataset on a CPU
        "ignore:Initializing an NVTabular Dataset in CPU mode:UserWarning",
    ):
        config.addinivalue_line("filterwarnings", exempt)


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """Let other packages warn while a test file imports them; our own may not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", module=r"(models|workflows|test_\w+)\b")
        yield


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Return a small data set with every oddity, written to disk."""
    return World(tmp_path / "raw").write()
