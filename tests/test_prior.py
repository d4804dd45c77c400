"""The recency prior against numbers by hand, and that 0 is always among the choices."""

from __future__ import annotations

import math

import numpy as np
import pytest

from models.core.config import PriorConfig
from models.core.prior import Prior, grid
from models.core.retriever import Interactions

DAY = 86_400


def history(items, days) -> Interactions:
    times = np.array(days, np.int64) * DAY
    return Interactions(np.zeros(len(items), np.int64), np.array(items), times, 1, 3)


def test_scores_are_standardised_logs_of_decayed_counts():
    # item 0: today and 7 days ago; item 1: 14 days ago; item 2: never
    scores = Prior(days=7.0, weight=2.0).scores(history([1, 0, 0], [0, 7, 14]))
    logs = np.log([1 + math.exp(-1) + 1e-3, math.exp(-2) + 1e-3, 1e-3])
    assert scores == pytest.approx(2.0 * (logs - logs.mean()) / logs.std(), rel=1e-5)
    assert scores[0] > scores[1] > scores[2]


def test_what_is_in_no_table_is_not_counted():
    a = Prior(days=7.0, weight=1.0).scores(history([0, 1], [0, 1]))
    b = Prior(days=7.0, weight=1.0).scores(history([0, -1, 1], [0, 1, 1]))
    assert b == pytest.approx(a)


def test_no_weight_and_no_times_are_no_prior():
    assert not Prior(days=7.0, weight=0.0).scores(history([0, 0], [0, 1])).any()
    timeless = Interactions(np.zeros(2, int), np.array([0, 1]), None, 1, 3)
    assert not Prior(days=7.0, weight=5.0).scores(timeless).any()


def test_the_grid_begins_with_no_prior():
    tried = grid(PriorConfig(days=(1.0, 2.0), weights=(3.0,)))
    assert tried == [Prior(1.0, 0.0), Prior(1.0, 3.0), Prior(2.0, 3.0)]
