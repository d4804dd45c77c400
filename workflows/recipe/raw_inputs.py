"""List the inputs of raw towers, which take raw columns and compute derived columns themselves.

A raw tower takes every column that a step of `derive` reads. If one step makes the month of a date,
and the next step makes the sine of the month, then the tower takes the date and the month. Where
the month is missing, the tower computes it from the date. The sine, which no further step reads, is
always computed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.core.column_names import HISTORY_AGES
from workflows.recipe.features import Feature
from workflows.recipe.kinds.form import NUMBER, TEXT, Form
from workflows.recipe.steps import Derive

if TYPE_CHECKING:
    from workflows.recipe.whole import Recipe


@dataclass(frozen=True)
class RawInput:
    """An input of a tower that takes raw values.

    Attributes:
        column: the column whose values the input takes.
        feature: how the cells of the column are read.
        in_history: whether the input is a history, with a list of the column's values.
        is_time: whether a step of `derive` reads the values as times, which are ISO 8601 text.
        source: the column from which missing values are derived; None if they stay missing.
    """

    column: str
    feature: Feature
    in_history: bool = False
    is_time: bool = False
    source: str | None = None

    @property
    def form(self) -> Form:
        """The type and shape of the raw values."""
        meaning = self.feature.meaning
        form = meaning.form(self.feature) or (NUMBER if meaning.cells == "number" else TEXT)
        return Form(form.is_text, is_list=True) if self.in_history else form


def step_to(recipe: Recipe, column: str) -> Derive | None:
    """Return the step of `derive` that makes a column; None for a raw column.

    If the `fill` of a join has a value for the column, but not for the column from which the step
    makes it, then the column counts as raw.
    """
    for step in recipe.derive:
        if step.to == column:
            is_filled = any(column in j.fill and step.of not in j.fill for j in recipe.join)
            return None if is_filled else step
    return None


def raw_inputs(recipe: Recipe, sources: Iterable[str]) -> dict[str, RawInput]:
    """Return the raw inputs from which features and histories of a tower can be computed.

    Args:
        recipe: the recipe that describes the features.
        sources: names of features, and names of history inputs such as `history_item_id`.
    """
    features, times = recipe.raw_features, times_read(recipe)
    found: dict[str, RawInput] = {}
    for source in sources:
        listed = recipe.history_inputs.get(source)
        for column in columns_read(recipe, listed or source):
            step = step_to(recipe, column)
            found[input_name(source, listed, column)] = RawInput(
                column,
                recipe.features.get(column) or features.get(column) or _undeclared(step),
                in_history=listed is not None or source == HISTORY_AGES,
                is_time=column in times,
                source=input_name(source, listed, step.of) if step else None,
            )
    return found


def given_inputs(recipe: Recipe, sources: Iterable[str]) -> dict[str, RawInput]:
    """Return those inputs of `raw_inputs` that cannot be derived from other inputs."""
    inputs = raw_inputs(recipe, sources)
    return {name: raw for name, raw in inputs.items() if raw.source is None}


def input_name(source: str, listed: str | None, column: str) -> str:
    """Return the name of the raw input that takes a column for a feature or a history.

    Args:
        source: the name of the feature, or of the history input.
        listed: the item column that the history lists; None for a feature.
        column: the column whose values the input takes.
    """
    return source.removesuffix(listed) + column if listed else column


def columns_read(recipe: Recipe, column: str) -> list[str]:
    """Return the columns that are read to compute a column, from the raw column on.

    For a raw column, this is the column itself.
    """
    step = step_to(recipe, column)
    if step is None:
        return [column]
    before = columns_read(recipe, step.of)
    return before if step.of in before else [*before, step.of]


def times_read(recipe: Recipe) -> set[str]:
    """Return the columns that steps of `derive` read as times."""
    steps = [step for step in recipe.derive if step.reads == "time"]
    return {step.of for step in steps if recipe.cells_read(step) != "number"}


def columns_of_roles(recipe: Recipe, *roles: str) -> list[str]:
    """Return the raw columns from which features of some roles are derived.

    Columns that are features of these roles themselves are left out. For a recipe of offer models,
    which have no raw towers, the list is empty.
    """
    if recipe.has_offers:
        return []
    names = recipe.columns(*roles)
    return [column for column in given_inputs(recipe, names) if column not in names]


def _undeclared(step: Derive | None) -> Feature:
    """Return a feature for a column that is neither declared as a feature nor in raw files.

    Such a column is made by one step and read by the next, is a count of a pivot, or has the ages
    of the items of a history.
    """
    is_number = step is None or step.gives == "number"
    return Feature(role="context", kind="number" if is_number else "label")
