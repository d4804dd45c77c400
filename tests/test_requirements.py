"""The published systems' requirements: each has a test that carries its id, `test_e05_…`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

#: etl, model, train, evaluate, export, questions.
IDS = [
    *(f"e{n:02}" for n in range(1, 22)),
    *(f"m{n:02}" for n in range(1, 17)),
    *(f"t{n:02}" for n in range(1, 11)),
    *(f"v{n:02}" for n in range(1, 10)),
    *(f"x{n:02}" for n in range(1, 8)),
    *(f"q{n:02}" for n in range(1, 8)),
]


@pytest.fixture(scope="module")
def tested() -> set[str]:
    """Return the ids that tests are named after."""
    files = Path(__file__).parent.glob("test_*.py")
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    names = re.findall(r"^def test((?:_[emtvxq]\d\d)+)_", text, re.MULTILINE)
    return {name for of in names for name in of.split("_")}


@pytest.mark.parametrize("name", IDS)
def test_a_requirement_has_a_test_of_its_name(name: str, tested: set[str]):
    assert name in tested
    assert "e99" not in tested
