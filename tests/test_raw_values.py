"""Raw values in requests: the weights of a list, which etl and files check by the same rules."""

from __future__ import annotations

from typing import Any

import pytest

from workflows.recipe.kinds.form import NUMBERS, TEXTS
from workflows.serve.raw_values import table_of
from workflows.serve.wire import Refusal
from workflows.stages.embedding import RawTower

TOWER = RawTower({"tags": TEXTS, "w": NUMBERS}, {}, {}, None, None)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"tags": ["a", "b"], "w": [1.0, -2.0]}, "numbers of 0 or more"),
        ({"tags": ["a", "b"], "w": [1.0]}, "2 numbers, one for each value of 'tags'"),
        ({"tags": [], "w": [1.0]}, "0 numbers, one for each value of 'tags'"),
    ],
)
def test_weights_that_do_not_fit_their_list_are_a_fault(row: Any, expected: str) -> None:
    with pytest.raises(Refusal) as caught:
        table_of([{}, row], TOWER, "users", "features", weights={"w": "tags"})
    faults = [(fault.field, fault.expected) for fault in caught.value.body.faults]
    assert faults == [("body.users[1].features.w", expected)]


@pytest.mark.parametrize("w", [[1.0, 0.0], None])
def test_weights_that_fit_are_passed_on(w: Any) -> None:
    table = table_of([{"tags": ["a", "b"], "w": w}], TOWER, "users", weights={"w": "tags"})
    assert table.to_pylist() == [{"tags": ["a", "b"], "w": w}]
