"""Describe the differences between two recipes, field by field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

#: Greatest number of fields that a message names, and of characters of a value that it shows.
_NAMED, _WIDTH = 4, 60


def changes(parts: Sequence[str], then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return a text with the first fields that differ between two recipes, and their values.

    If no value differs, the text says that another version of this package read the recipe.

    Args:
        parts: the parts of the recipes to compare, such as `train` or `evaluate.ks`.
        then, now: the older and the newer recipe as plain data.
    """
    found = [
        f"{path} was {_show(before)} and is {_show(after)} now"
        for part in parts
        for path, before, after in _differences(part, _at(then, part), _at(now, part))
    ]
    if not found:
        return "another version of this package read it"
    more = f", and {len(found) - _NAMED} more fields" if len(found) > _NAMED else ""
    return "; ".join(found[:_NAMED]) + more


def _differences(path: str, then: Any, now: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield the path of each recipe field that differs, with the older and the newer value."""
    if isinstance(then, dict) and isinstance(now, dict) and then.get("kind") == now.get("kind"):
        for key in dict.fromkeys((*then, *now)):
            yield from _differences(f"{path}.{key}", then.get(key), now.get(key))
    elif then != now:
        yield path, then, now


def _show(value: Any) -> str:
    """Return the value of a recipe field as text that fits into a sentence."""
    text = "absent" if value is None else msgspec.json.encode(value).decode()
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH]}…"


def _at(recipe: Any, path: str) -> Any:
    """Return the value at a path such as `evaluate.ks` of a recipe's plain data; None if absent."""
    for step in path.split("."):
        recipe = recipe.get(step) if isinstance(recipe, dict) else None
    return recipe
