"""Files of training handed in again: raw names, more columns than wanted, derived ones missing."""

from __future__ import annotations

import logging

import pytest
from world import RECIPE, World

from workflows.feature_files.columns import choose_columns, warn_of_missing
from workflows.ground.errors import DataError
from workflows.recipe import Recipe

DERIVE = """
derive: [{kind: bins, of: age, to: group, edges: [30], labels: [young, old]}]
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    text = RECIPE + DERIVE
    text = text.replace(
        "people: {files: people.csv}", "people: {files: people.csv, rename: RENAME}"
    )
    text = text.replace("RENAME", "{Customer No: user_id, Town: city, town: city}")
    text = text.replace("  city: {role: user}\n", "  city: {role: user}\n  group: {role: user}\n")
    return World(tmp_path_factory.mktemp("world"), text=text).write().recipe()


def test_raw_names_become_those_of_the_recipe(recipe):
    raw = ["Town", "Customer No"]
    found = choose_columns(raw, recipe, "user_id", ["age", "city"], "new.csv")
    assert found == {"city": "Town", "user_id": "Customer No"}
    raw = ["user_id", "Customer No"]
    assert choose_columns(raw, recipe, "user_id", ["age"], "new.csv") == {"user_id": "user_id"}
    with pytest.raises(DataError, match="renames both 'Town' and 'town' to 'city'"):
        choose_columns(["user_id", "town", "Town"], recipe, "user_id", ["city"], "new.csv")


def test_other_columns_are_passed_over_and_named(recipe, caplog):
    raw = ["user_id", "citty", "phone", "age"]
    with caplog.at_level(logging.WARNING):
        found = choose_columns(raw, recipe, "user_id", ["age", "city"], "new.csv")
    assert list(found) == ["user_id", "age"]
    (record,) = caplog.records
    assert record.getMessage() == (
        "new.csv: 2 columns passed over, which no feature needs: "
        "'citty' (did you mean 'city'?), 'phone'"
    )


def test_an_id_column_of_another_name_is_found_out(recipe):
    with pytest.raises(DataError, match=r"no column 'user_id'\. Did you mean 'userid'"):
        choose_columns(["userid", "age"], recipe, "user_id", ["age"], "new.csv")


def test_inputs_that_are_not_given_are_named(caplog):
    with caplog.at_level(logging.WARNING):
        warn_of_missing(["city", "shop"], "new.csv", among="all 3 users")
        warn_of_missing([], "new.csv", among="all 3 users")
    (record,) = caplog.records
    assert record.getMessage() == (
        "new.csv lacks 2 inputs of the tower, so that values are missing for all 3 users: "
        "'city', 'shop'"
    )
