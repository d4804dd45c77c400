"""Check the names of features: some are reserved for files, tensors and other columns."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping

from models.core.column_names import HISTORY_AGES
from workflows.ground import column_names
from workflows.recipe.features import Feature, History

#: Names of the other fields in a JSON line with recommendation lists.
_OF_LINES = ("items", "history")
#: The longest name of a column, in bytes: files are named after columns.
_LONGEST = 200
#: Merlin's loader writes the two parts of a list called `x` as `x__values` and `x__offsets`.
_PARTS = ("__values", "__offsets")
#: Names of the attributes of offers: the signatures of the exported towers have them.
_ATTRIBUTE = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def check_names(features: Mapping[str, Feature], history: History | None, *, offers: bool) -> None:
    """Raise ValueError if a feature has a name that files, tensors or other columns use.

    Args:
        features: all features of the recipe.
        history: the history block of the recipe.
        offers: whether the recipe has offer models.
    """
    taken = _taken(features, history)
    for name, feature in features.items():
        if problem := _problem(name, feature) or taken.get(name):
            raise ValueError(
                f"a feature may not be called {name!r}: {problem}. Give the raw column another "
                "name with `rename`"
            )
    if offers and history:
        _check_attributes(history)


def _problem(name: str, feature: Feature) -> str | None:
    """Return why a feature may not have its name; None if the name is allowed."""
    if not name:
        return "the name is empty"
    if "/" in name or name.startswith("."):
        return "there are files of that name, and they cannot have a / or begin with a dot"
    if len(name.encode()) > _LONGEST:
        return f"a name has at most {_LONGEST} bytes, and this one has {len(name.encode())}"
    if any(unicodedata.category(letter) in ("Cc", "Zl", "Zp") for letter in name):
        return "the name holds a line break, a tab or another control character"
    if any(part in name for part in _PARTS):
        return "Merlin's loader calls the parts of a list so"
    if (_is_shown(feature) and name in column_names.OF_LISTS) or (feature.id and name in _OF_LINES):
        return "lists have a column of that name"
    return None


def _taken(features: Mapping[str, Feature], history: History | None) -> dict[str, str]:
    """Map each column name that etl or export adds to the reason why no feature may have it."""
    added = [*column_names.OF_TABLES, *([*history.inputs, HISTORY_AGES] if history else ())]
    for name, feature in features.items():
        added += [column for column in feature.meaning.columns(name, feature) if column != name]
    inputs = [*(n for n, f in features.items() if f.input and _is_shown(f)), *added]
    return dict.fromkeys(added, "etl has a column of that name") | {
        column_names.input_of(
            name
        ): f"the export writes what the tower takes of {name!r} to such a column"
        for name in inputs
    }


def _is_shown(feature: Feature) -> bool:
    """Say whether the exported tables have the column of a feature."""
    return feature.role in ("user", "item", "context")


def _check_attributes(history: History) -> None:
    """Refuse names of offer attributes that TensorFlow would change in the exported towers."""
    known: dict[str, str] = {}
    for name in _lists(history):
        if not _ATTRIBUTE.fullmatch(name):
            raise ValueError(
                f"{name!r} is an attribute of offers or a list of them, so it needs a name of "
                "letters, digits and _ that begins with a letter. Give the raw column such a name "
                "with `rename`, or leave the kind of event out of history.events"
            )
        other = known.setdefault(name.lower(), name)
        if other != name:
            raise ValueError(
                f"the attributes of offers {other!r} and {name!r} differ only in case. Give one "
                "of them another name with `rename`"
            )


def _lists(history: History) -> Iterator[str]:
    yield from dict.fromkeys(history.columns)
    yield from history.inputs
