"""Check the columns that a recipe reads or derives, and the order of the steps that derive them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from workflows.recipe.features import Feature, History
from workflows.recipe.kinds.base import Cells
from workflows.recipe.steps import Clip, CyclicMonth, Derive, Join, Log1p, Pivot

Known = Mapping[str, Cells]

#: Type of a column's cells → its name in messages.
_NAMED = {"time": "a time", "number": "a number", "text": "a text", "lists": "a column of lists"}


def known(features: Mapping[str, Feature], derive: Sequence[Derive], pivot: Pivot | None) -> Known:
    """Return the type of cells of each column that a recipe declares or derives."""
    found: dict[str, Cells] = {step.to: step.gives for step in derive}
    found |= dict.fromkeys(pivot.counts.values() if pivot else (), "number")
    for name, feature in features.items():
        found[name] = feature.meaning.cells
    return found


def check_order(
    features: Mapping[str, Feature], derive: Sequence[Derive], history: History | None
) -> None:
    """Raise ValueError if a step needs dates, but the recipe's times only order the events."""
    order = [name for name, feature in features.items() if feature.unit == "order"]
    for name in order:
        if history and history.before == "day":
            raise ValueError(
                f"history.before: day needs dates, and features.{name}.unit: order says that its "
                "numbers are none; use before: event"
            )
        for step in derive:
            if step.of == name:
                raise ValueError(
                    f"derive makes {step.to!r} of the dates in {name!r}, and features.{name}.unit: "
                    "order says that its numbers are none"
                )


def check_fill(columns: Known, joins: Sequence[Join], derive: Sequence[Derive]) -> None:
    """Raise ValueError if a join's field `fill` has a value that its column cannot have."""
    learnt = {step.to: step.of for step in derive if step.fitted}
    for join in joins:
        for column, value in join.fill.items():
            if column in learnt:
                raise ValueError(
                    f"join of {join.table!r} fills {column!r}, which is learnt from the training "
                    f"rows; fill {learnt[column]!r}, which it is made of"
                )
            if value == "":
                raise ValueError(
                    f"join of {join.table!r} fills {column!r} with an empty text, which never is a "
                    "value: it is missing. Leave it out of `fill`, or give it a name"
                )
            found = columns.get(column)
            if found is None or (found == "text") != isinstance(value, str) or found == "lists":
                what = "which the recipe does not name" if found is None else _NAMED[found]
                raise ValueError(
                    f"join of {join.table!r} fills {column!r}, {what}, with {value!r}; a number "
                    "is filled with a number, a category or label with (quoted) text"
                )


def check_made(
    columns: Known,
    features: Mapping[str, Feature],
    derive: Sequence[Derive],
    pivot: Pivot | None,
) -> None:
    """Raise ValueError if a step of `derive` does not fit its columns or the steps before it."""
    for name in pivot.counts.values() if pivot else ():
        _refuse_special(f"pivot makes {name!r}", features.get(name))
    made = [step.to for step in derive]
    for number, step in enumerate(derive):
        place = f"derive makes {step.to!r}"
        if step.to in made[:number] or (pivot and step.to in pivot.counts.values()):
            raise ValueError(f"{place} twice; give one of them another name in `to`")
        if step.of in made[number:]:
            raise ValueError(f"{place} of {step.of!r}, which is made later; put that step first")
        if any(earlier.to == step.of and earlier.fitted for earlier in derive):
            raise ValueError(
                f"{place} of {step.of!r}, which is learnt from the training rows; a step cannot "
                "read that"
            )
        found = columns.get(step.of)
        if found is not None and found not in (step.reads, *step.also_reads):
            raise ValueError(
                f"{place} of {step.of!r}, {_NAMED[found]}; expected {_NAMED[step.reads]}"
            )
        _refuse_unlike(place, step, features.get(step.to))


def _refuse_unlike(place: str, step: Derive, feature: Feature | None) -> None:
    _refuse_special(place, feature)
    if feature is None:
        return
    is_number = feature.meaning.cells == "number"
    if is_number and step.gives == "text":
        raise ValueError(f"{place}, which is text, but features.{step.to} has kind number")
    if not is_number and isinstance(step, CyclicMonth | Log1p | Clip):
        raise ValueError(f"{place}, a number, so features.{step.to} needs kind: number")


def _refuse_special(place: str, feature: Feature | None) -> None:
    if feature and (feature.id or feature.role == "time" or feature.meaning.is_list):
        raise ValueError(f"{place}, but among the features that is an id, a time or a list")


def raw_features(
    features: Mapping[str, Feature],
    made: Sequence[str],
    needed: Sequence[tuple[str, Cells]],
) -> dict[str, Feature]:
    """Return the columns that a recipe reads from raw files, each described as a feature.

    Args:
        features: all features of the recipe.
        made: columns that the recipe derives, so that raw files need not have them.
        needed: columns that steps or filters read, each with the type of cells that is needed.
    """
    found = {name: feature for name, feature in features.items() if name not in made}
    for name, kind in needed:
        if name in made or name in features:
            continue
        as_number = kind == "number"
        if name in found and (found[name].meaning.cells == "number") != as_number:
            raise ValueError(f"{name!r} is read both as number and as text; declare it")
        found[name] = Feature(role="context", kind="number" if as_number else "label")
    return found
