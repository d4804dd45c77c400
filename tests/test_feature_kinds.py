"""Feature kinds: each keeps what rooms expect of it, and refuses the fields of other kinds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from workflows.ground.statistics import NumberFact
from workflows.raw.values import Place
from workflows.recipe import Feature
from workflows.recipe.kinds import BY_ROLE, KINDS
from workflows.recipe.kinds.base import LookUp, MarkMissing, PassOn, Reading, Standardise
from workflows.recipe.kinds.form import NUMBER, NUMBERS, TEXT, TEXTS, Form

FACTS = {"x": NumberFact(mean=2.0, std=1.0, fill=0.0)}
#: Fields of a feature `x` of each kind and role.
FEATURES: dict[str, dict[str, Any]] = {
    "id": {"role": "user", "id": True},
    "category": {"role": "item"},
    "category, no input": {"role": "item", "input": False},
    "categories": {"role": "item", "kind": "categories", "separator": "|"},
    "weighted categories": {"role": "item", "kind": "categories", "weights": "w"},
    "number": {"role": "context", "kind": "number"},
    "number with indicator": {"role": "user", "kind": "number", "fill": 0.0, "indicator": True},
    "number, no input": {"role": "user", "kind": "number", "input": False},
    "label": {"role": "item", "kind": "label"},
    "weights": {"role": "item", "kind": "weights"},
    "time": {"role": "time"},
    "row weight": {"role": "weight", "kind": "number", "fill": 1.0},
}


@pytest.mark.parametrize("name", FEATURES)
def test_the_columns_of_a_kind_are_those_that_it_describes(name: str) -> None:
    feature = Feature(**FEATURES[name])
    described = [e.name for e in feature.meaning.encode("x", feature, FACTS)]
    if name == "weighted categories":  # a list describes its weights, too
        assert described == ["x", "w"]
    elif name != "weights":
        assert described == feature.meaning.columns("x", feature)


@pytest.mark.parametrize("name", FEATURES)
def test_a_tower_takes_what_has_a_form(name: str) -> None:
    feature = Feature(**FEATURES[name])
    inputs = [e for e in feature.meaning.encode("x", feature, FACTS) if len(e.tags) > 1]
    assert not inputs or feature.meaning.form(feature) is not None
    assert all(e.tags[0].removesuffix("_id") == feature.role for e in inputs)


def test_changes_and_tags_by_hand() -> None:
    found = {}
    for name in ("id", "category, no input", "number with indicator", "row weight", "time"):
        feature = Feature(**FEATURES[name])
        found[name] = [(e.change, e.tags) for e in feature.meaning.encode("x", feature, FACTS)]
    assert found == {
        "id": [(LookUp("x"), ("user_id", "categorical"))],
        "category, no input": [(LookUp("x"), ("item",))],
        "number with indicator": [
            (Standardise(FACTS["x"]), ("user", "continuous")),
            (MarkMissing(), ("user", "continuous")),
        ],
        "row weight": [(PassOn(1.0), ())],
        "time": [(PassOn(), ())],
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_refuses_the_fields_of_others(kind: str) -> None:
    given: dict[str, Any] = {"separator": "|", "weights": "w", "fill": 0.0, "indicator": True}
    given |= {"vocabulary": {"min_count": 2}, "dim": 8}
    needed = {"dim": 8} if "dim" in KINDS[kind].takes else {}
    for field, value in given.items():
        if field in KINDS[kind].takes:
            Feature(role="item", kind=kind, **{**needed, field: value})
        else:
            with pytest.raises(ValueError, match=f"^{field} is for kind"):
                Feature(role="item", kind=kind, **{**needed, field: value})


def test_a_role_decides_in_place_of_a_kind() -> None:
    assert Feature(role="time", kind="number").meaning is BY_ROLE["time"]
    assert Feature(role="weight", kind="number").meaning is BY_ROLE["weight"]
    with pytest.raises(ValueError, match="a weight has kind number"):
        Feature(role="weight")
    with pytest.raises(ValueError, match="vocabulary is for"):
        Feature(role="time", vocabulary={"min_count": 2})


@pytest.mark.parametrize("form", [TEXT, NUMBER, TEXTS, NUMBERS])
def test_a_form_is_known_by_its_tensor(form: Form) -> None:
    assert Form.of_tensor(form.dtype, form.shape) == form


@pytest.mark.parametrize(
    ("form", "right", "wrong", "expected"),
    [
        (TEXT, ["a", ""], [1, ["a"], {}], "text, or null"),
        (NUMBER, [1, -2.5], ["1", [1], {}], "a number, or null"),
        (TEXTS, [[], ["a", "b"]], ["a", ["a", 1], 3], "a list of texts, or null"),
        (NUMBERS, [[], [1, 2.5]], [1, ["a"], "a"], "a list of numbers, or null"),
    ],
)
def test_values_of_json_by_hand(
    form: Form, right: list[Any], wrong: list[Any], expected: str
) -> None:
    assert [form.fault(value) for value in [*right, None]] == [""] * (len(right) + 1)
    assert {form.fault(value) for value in wrong} == {expected}


def test_a_number_beyond_float32_is_no_value() -> None:
    assert NUMBER.fault(1e39) == "a number of at most 3.40282e+38, or null"
    assert NUMBERS.fault([0, -1e39]) == "a number of at most 3.40282e+38, or null"


def test_arrays_have_gaps_and_padding() -> None:
    def array(form: Form, cells: list[Any]) -> list[Any]:
        found = form.array(pa.chunked_array([pa.array(cells, form.arrow)])).tolist()
        return [["gap" if _is_gap(v) else v for v in row] if form.is_list else row for row in found]

    def _is_gap(value: Any) -> bool:
        return value == "" or (isinstance(value, float) and math.isnan(value))

    assert array(TEXT, ["a", None]) == ["a", ""]
    np.testing.assert_equal(array(NUMBER, [1.5, None]), [1.5, np.nan])
    assert array(TEXTS, [["a", None], None, []]) == [["a", "gap"], ["gap"] * 2, ["gap"] * 2]
    assert array(NUMBERS, [[1.0], [2.0, 3.0], None]) == [[1.0, "gap"], [2.0, 3.0], ["gap"] * 2]
    assert array(NUMBERS, [None]) == [["gap"]]


@pytest.mark.parametrize("name", ["category", "categories", "number", "weights"])
def test_cells_given_with_a_question_have_the_type_of_the_form(name: str) -> None:
    fields = {**FEATURES[name], **({"separator": "|"} if name == "weights" else {})}
    feature = Feature(**fields)
    how = Reading(Place("a file", "x"))
    cells = pa.chunked_array([pa.array(["1", None, "2"])])
    found = feature.meaning.read_given(cells, feature, how)
    decoded = found.cast(feature.meaning.form(feature).arrow)
    assert (
        decoded.to_pylist()
        == {
            "category": ["1", None, "2"],
            "categories": [["1"], None, ["2"]],
            "number": [1.0, None, 2.0],
            "weights": [[1.0], None, [2.0]],
        }[name]
    )
