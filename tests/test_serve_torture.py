"""The campaigns of `torture_http.py`, small: `make torture` runs them at full size."""

from __future__ import annotations

from pathlib import Path

import pytest
import torture_http
from test_serve import STAGES
from tiny_run import Tiny
from torture_http import Size, torture

SIZE = Size(malformed=150, invented=150, seconds=1.5, idle=120, deadlines=False)


@pytest.fixture
def root(tiny: Tiny, tmp_path: Path) -> Path:
    return tiny.exported.branch(tmp_path / "run", stages=STAGES).store.root


def test_no_client_harms_the_requests_of_others(root, monkeypatch):
    """No 5xx but 503, no hang, no traceback, no full log; a plain request is answered meanwhile.

    How long it takes is measured at full size, on a machine that does nothing else.
    """
    monkeypatch.setattr(torture_http, "PATIENCE", 10)
    only = ("odd", "flood", "invented", "slow", "stop")
    outcomes = dict(torture(root, SIZE, 9, only=only))
    assert {name: outcome.lost for name, outcome in outcomes.items() if outcome.lost} == {}
    assert tuple(outcomes) == only
    assert outcomes["odd"].figures["statuses"]["400"] > 20  # the control: they were asked
    assert outcomes["flood"].tried > 50
