"""Held-out rows that no list may show: how many, and from when on that is told."""

from __future__ import annotations

import numpy as np
import pytest

from models.core.evaluation_set import EvaluationSet
from models.core.retriever import Queries, Ragged
from workflows.stages.held_out import warn_of_hidden


def evaluation_set(n_seen: int, *, n: int = 10, exclude: bool = True) -> EvaluationSet:
    """Return the set of n users who want one item each, which the first ones have seen."""
    owners = np.arange(n_seen)
    seen = Ragged.from_pairs(owners, owners % 4, n_lists=n)
    targets = Ragged(np.arange(n) % 4, np.arange(n + 1))
    queries = Queries(np.arange(n), seen)
    return EvaluationSet(
        queries, targets, seen if exclude else None, np.ones(4, bool), np.ones(n, bool)
    )


def test_targets_that_users_had_are_told_with_their_share(
    caplog: pytest.LogCaptureFixture,
) -> None:
    warn_of_hidden(evaluation_set(0), "test")
    warn_of_hidden(evaluation_set(10, exclude=False), "test")
    assert not caplog.messages
    warn_of_hidden(evaluation_set(3), "test")
    assert caplog.messages == [
        "3 of 10 targets of test (30 %) are items that their users had before. "
        "`evaluate.exclude_seen: true` leaves such items out of all lists; they are misses for "
        "every model. Set `evaluate.exclude_seen: false` where users come back to the same items."
    ]


def test_if_no_target_can_be_found_figures_are_said_to_be_chance(
    caplog: pytest.LogCaptureFixture,
) -> None:
    warn_of_hidden(evaluation_set(10), "valid")
    assert "10 of 10 targets of valid (100 %)" in caplog.messages[0]
    assert "every figure is 0, and an epoch that is chosen by them is chosen" in caplog.messages[0]
