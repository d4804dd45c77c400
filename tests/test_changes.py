"""A message about a stale stage names each field that differs, with both values."""

from __future__ import annotations

from workflows.recipe.changes import changes

THEN = {"model": {"kind": "two_tower", "dim": 64}, "split": {"kind": "random"}, "ks": [10]}


def test_fields_that_differ_are_named_with_both_values() -> None:
    now = {**THEN, "model": {"kind": "two_tower", "dim": 32, "bias": True}}
    assert changes(["model", "ks"], THEN, now) == (
        "model.dim was 64 and is 32 now; model.bias was absent and is true now"
    )
    assert changes(["ks"], THEN, {**now, "ks": [20]}) == "ks was [10] and is [20] now"


def test_a_block_of_another_kind_is_told_as_a_whole() -> None:
    now = {**THEN, "split": {"kind": "time", "valid": 0.1}}
    said = changes(["split"], THEN, now)
    assert said == 'split was {"kind":"random"} and is {"kind":"time","valid":0.1} now'


def test_many_fields_are_counted() -> None:
    then, now = {"a": {}}, {"a": {str(n): n for n in range(1, 8)}}
    assert changes(["a"], then, now).endswith(", and 3 more fields")


def test_a_recipe_that_another_version_read_is_told_so() -> None:
    now = {**THEN, "model": {**THEN["model"], "new": None}}
    assert changes(["model"], THEN, now) == "another version of this package read it"
