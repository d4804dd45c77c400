"""The published systems' requirements: each has a test that carries its id, `test_e05_…`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

#: etl, model, train, evaluate.
IDS = [
    *(f"e{n:02}" for n in (*range(1, 16), 17, 18, 19, 20)),
    *(f"m{n:02}" for n in range(1, 7)),
    *("t01", "t04", "t10"),
    *(f"v{n:02}" for n in (1, 2, 3, 4, 5, 8, 9)),
]


@pytest.fixture(scope="module")
def tested() -> set[str]:
    """Return the ids that tests are named after."""
    files = Path(__file__).parent.glob("test_*.py")
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    return set(re.findall(r"^def test_([emtv]\d\d)_", text, re.MULTILINE))


@pytest.mark.parametrize("name", IDS)
def test_a_requirement_has_a_test_of_its_name(name: str, tested: set[str]):
    assert name in tested
    assert "e99" not in tested
