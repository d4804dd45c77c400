"""What a dense inverse costs: an estimate that can refuse, and the inverse itself."""

from __future__ import annotations

import re

import numpy as np
import pytest

from models.baselines import cost
from models.baselines.cost import Cost, available_memory, inverse
from models.baselines.errors import CannotFit


@pytest.fixture
def steady_machine(monkeypatch):
    monkeypatch.setattr(cost, "speed", lambda _: 1e9)
    monkeypatch.setattr(cost, "available_memory", lambda: 8 * 2**30)


@pytest.mark.usefixtures("steady_machine")
def test_a_cost_is_said_in_time_and_memory():
    said = Cost(1_000, 4e9, 3 * 2**30, 5).sentence("a matrix")
    assert said == "a matrix: about 4.0 s a fit on an idle machine and 3.0 GiB"
    said = Cost(1_000, 150e9, 2**29, 5).sentence("a matrix")
    assert said == "a matrix: about 2 min a fit on an idle machine and 0.5 GiB"


@pytest.mark.usefixtures("steady_machine")
@pytest.mark.parametrize(
    ("operations", "gibibytes", "why"),
    [
        (
            1e9,
            8.1,
            "it would take about 1.0 s a fit on an idle machine and 8.1 GiB; 8.0 GiB of memory are "
            "free",
        ),
        (
            181e9,
            1,
            "it would take about 3 min a fit on an idle machine and 1.0 GiB, at least 15 min for "
            "its 5 fits; the limit is 15 min",
        ),
    ],
)
def test_too_much_of_either_is_refused(operations, gibibytes, why):
    with pytest.raises(CannotFit, match=re.escape(f"a matrix: {why}")):
        Cost(1_000, operations, gibibytes * 2**30, 5).sentence("a matrix")


def test_a_system_that_does_not_say_its_memory_refuses_nothing(monkeypatch):
    monkeypatch.setattr(cost, "available_memory", lambda: None)
    Cost(10, 1.0, 2.0**80, 1).sentence("a matrix")


def test_speed_is_that_of_a_processor():
    assert 1e7 < cost.speed(100) < 1e13


def test_available_memory_is_some_of_the_machine():
    free = available_memory()
    assert free is None or 2**20 < free < 2**50


def test_the_inverse_is_symmetric_and_inverts():
    draw = np.random.default_rng(0)
    half = draw.normal(size=(40, 60))
    matrix = half @ half.T + np.eye(40)
    inverted = inverse(matrix.copy())
    np.testing.assert_array_equal(inverted, inverted.T)
    np.testing.assert_allclose(inverted @ matrix, np.eye(40), atol=1e-10)


def test_a_matrix_that_is_not_positive_definite_is_refused():
    with pytest.raises(np.linalg.LinAlgError, match="not positive definite"):
        inverse(np.array([[1.0, 2.0], [2.0, 1.0]]))
