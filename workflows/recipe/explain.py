"""Explain an error of msgspec: file, line, field, the problem, and the nearest known word."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from workflows.recipe.text import line_of, nearest
from workflows.recipe.whole import Recipe

#: The beginning of the pattern for names that become parts of file names.
_NAME = "^[A-Za-z0-9][A-Za-z0-9_.-]*"

#: Fields of earlier versions, and what has taken their place.
_MOVED = {"offers": "Its fields belong to `model` now, with kind: offers. "}


def explain(message: str, raw: Mapping[str, Any], where: str, text: str) -> str:
    """Turn a message of msgspec into file, line, field, the problem and a remedy."""
    problem, _, location = message.partition(" - at `$")
    path = _name_the_keys(
        [p for p in re.split(r"[.\[\]`]+", location.replace("...", "*")) if p], raw
    )
    hint = ""
    if unknown := re.search(r"unknown field `(.+?)`", problem):
        known = _fields_at(path)
        path.append(unknown[1])
        moved = _MOVED.get(unknown[1], "") if not path[:-1] else ""
        hint = f" {moved}{nearest(unknown[1], known)}Fields here: {', '.join(known)}."
    elif choices := _choices_at(path):
        hint = f" Expected one of: {', '.join(choices)}."
    hint += _yaml_hint(problem)
    line = line_of(text, path)
    place = (
        where + (f", line {line}" if line else "") + (f", field {'.'.join(path)}" if path else "")
    )
    return f"{place}: {problem}.{hint}"


def _yaml_hint(problem: str) -> str:
    """Return a hint if YAML has probably read a text as another type."""
    if "str |" in problem and "got `bool`" in problem:
        return ' To YAML an unquoted true, yes or on is no text; put it in quotes: "true".'
    if "`str" in problem and "got `null`" in problem:
        return ' To YAML an unquoted null, ~, # or nothing is no text; put it in quotes: "null".'
    if "`str" in problem and re.search(r"got `(int|float|bool)`", problem):
        return " If a text is meant, put it in quotes."
    if problem.startswith("Expected `str` of length >= 1"):
        return ' An unquoted | or > begins a block of text in YAML; put it in quotes: "|".'
    if f"matching regex '{_NAME}" in problem:
        return (
            " A name has letters, digits, `_`, `-` and dots, no blanks, and begins with a letter "
            "or a digit."
        )
    return ""


def _name_the_keys(path: list[str], raw: Any) -> list[str]:
    """Replace each `*`, by which msgspec means some value of a mapping, by the key."""
    named: list[str] = []
    for step in path:
        if step == "*" and isinstance(raw, Mapping):
            for key, value in raw.items():
                if _fails(value, _types_at([*named, step])):
                    step = str(key)
                    break
        named.append(step)
        if isinstance(raw, Mapping):
            raw = raw.get(step)
        elif isinstance(raw, list) and step.isdigit() and int(step) < len(raw):
            raw = raw[int(step)]
    return named


def _fails(value: Any, types: Sequence[Any]) -> bool:
    classes = [t.cls for t in types if hasattr(t, "cls")]
    texts = [str for t in types if isinstance(t, msgspec.inspect.StrType)]
    try:
        msgspec.convert(value, [*classes, *texts, Any][0])
    except msgspec.ValidationError:
        return True
    return False


def _types_at(path: Sequence[str]) -> list[Any]:
    """Return the types that a field at this path may have."""
    types: list[Any] = [msgspec.inspect.type_info(Recipe)]
    for step in path:
        found: list[Any] = []
        for kind in types:
            if isinstance(kind, msgspec.inspect.StructType):
                found += [f.type for f in kind.fields if f.encode_name == step]
            elif isinstance(kind, msgspec.inspect.DictType):
                found.append(kind.value_type)
            elif isinstance(kind, msgspec.inspect.VarTupleType):
                found.append(kind.item_type)
        types = [t for f in found for t in getattr(f, "types", (f,))]
    return types


def _fields_at(path: Sequence[str]) -> list[str]:
    names = [f.encode_name for t in _types_at(path) for f in getattr(t, "fields", ())]
    return list(dict.fromkeys(names))


def _choices_at(path: Sequence[str]) -> list[str]:
    """Return the literal values that a field may have, or the tags of a block's kinds."""
    tagged = (
        [t.tag for t in _types_at(path[:-1]) if getattr(t, "tag_field", None) == path[-1]]
        if path
        else []
    )
    literal = [str(v) for t in _types_at(path) for v in getattr(t, "values", ())]
    return tagged + literal
