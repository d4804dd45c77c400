"""map_threads: results are in order, and the first fault is raised."""

from __future__ import annotations

import time

import pytest

from workflows.etl.threads import map_threads


def test_what_is_made_stands_in_the_order_of_the_names() -> None:
    waits = {"slow": 0.05, "quick": 0.0, "middling": 0.02}

    def make(name: str) -> str:
        time.sleep(waits[name])
        return name.upper()

    found = map_threads(waits, make)
    assert list(found.items()) == [(name, name.upper()) for name in waits]


def test_the_first_fault_is_told() -> None:
    def make(name: str) -> str:
        if name == "a":
            time.sleep(0.05)
        if name in "ac":
            raise ValueError(name)
        return name

    with pytest.raises(ValueError, match=r"^a$"):
        map_threads("abc", make)
