"""Explain an error that msgspec reports about a recipe: file, line, field, problem and remedy."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from workflows.recipe.text import line_of, nearest
from workflows.recipe.whole import Recipe

#: The beginning of the pattern for names that become parts of file names.
_NAME = "^[A-Za-z0-9][A-Za-z0-9_.-]*"

#: Field of earlier versions of recipes → the remedy, a sentence of the message. `*` is the name of
#: a feature, or the number of a join.
_MOVED = {
    "offers": "Its fields belong to `model` now, with kind: offers. ",
    "model.history_decay": "It is model.encoder.decay now, such as encoder: {decay: 10}. ",
    "features.*.null": "It is `fill` now, such as fill: median. ",
    "join.*.on": "It is `key` now, such as {table: products, key: sku}. ",
}


def explain(message: str, raw: Mapping[str, Any], where: str, text: str) -> str:
    """Turn an error message of msgspec about a recipe into file, line, field, problem and remedy.

    Args:
        message: the error message of msgspec about the plain data `raw`.
        raw: the plain data of the recipe.
        where: the name of the recipe file.
        text: the text of the recipe file, in which the line of the field is looked up.
    """
    problem, _, location = message.partition(" - at `")
    of_key = location.removeprefix("key` in `$")
    steps = re.split(r"[.\[\]`]+", of_key.removeprefix("$").replace("...", "*"))
    path = [step for step in steps if step] + ["*"] * (of_key != location)
    path = _name_the_keys(path, raw, message)
    hint = ""
    if unknown := re.search(r"unknown field `(.+?)`", problem):
        hint = _hint_of_unknown(unknown[1], path, raw)
        path.append(unknown[1])
    elif choices := _choices_at(path):
        hint = f" Expected one of: {', '.join(choices)}."
    hint += _yaml_hint(problem)
    line = line_of(text, path)
    place = (
        where + (f", line {line}" if line else "") + (f", field {'.'.join(path)}" if path else "")
    )
    return f"{place}: {problem}.{hint}"


def _yaml_hint(problem: str) -> str:
    """Return a hint if YAML has probably read a text as another type, such as a number."""
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


def _hint_of_unknown(field: str, path: Sequence[str], raw: Any) -> str:
    """Return a hint for an unknown field of a recipe: the field to write instead."""
    blocks = [t for t in _types_at(path) if isinstance(t, msgspec.inspect.StructType)]
    tag = _value_at(raw, path).get("kind")
    mine = [block for block in blocks if block.tag == tag and block.tag_field] or blocks
    known = list(dict.fromkeys(name for block in mine for name in _names_of(block)))
    kinds = [str(block.tag) for block in blocks if field in _names_of(block)]
    inside = [path[0], "*"] if path[:1] in (["features"], ["join"]) else path
    if moved := _MOVED.get(".".join([*inside, field])):
        hint = moved
    elif kinds:
        plural = "s" if len(kinds) > 1 else ""
        hint = f"It is for kind{plural} {' and '.join(kinds)}; this block has kind {tag}. "
    else:
        hint = nearest(field, known)
    return f" {hint}Fields here: {', '.join(known) or 'none'}."


def _names_of(block: msgspec.inspect.StructType) -> list[str]:
    return [field.encode_name for field in block.fields]


def _name_the_keys(path: list[str], raw: Any, message: str) -> list[str]:
    """Replace each `*` in the path of a wrong recipe field by the key that it stands for.

    msgspec writes `*` for any key of a mapping. The key at fault is the first one that gives the
    same error message if the mapping has this key alone.
    """
    for position in [number for number, step in enumerate(path) if step == "*"]:
        above = path[:position]
        for key in _value_at(raw, above):
            if _message_of(_with_one_key(raw, above, key)) == message:
                path[position] = str(key)
                break
        else:
            return path
    return path


def _message_of(raw: Any) -> str:
    """Return msgspec's error message for a recipe; an empty text if the recipe is valid."""
    try:
        msgspec.convert(raw, Recipe)
    except msgspec.ValidationError as error:
        return str(error)
    return ""


def _value_at(raw: Any, path: Sequence[str]) -> Any:
    """Return the value at a path of a recipe's plain data; an empty mapping if it is unknown."""
    for step in path:
        raw = raw[int(step)] if isinstance(raw, list) else raw.get(step, {})
    return raw


def _with_one_key(raw: Any, path: Sequence[str], key: Any) -> Any:
    """Return a copy of a recipe in which the mapping at a path has only the given key."""
    if not path:
        return {key: raw[key]}
    if isinstance(raw, list):
        number = int(path[0])
        return [*raw[:number], _with_one_key(raw[number], path[1:], key), *raw[number + 1 :]]
    return {**raw, path[0]: _with_one_key(raw[path[0]], path[1:], key)}


def _types_at(path: Sequence[str]) -> list[Any]:
    """Return the Python types that the recipe field at a path may have."""
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


def _choices_at(path: Sequence[str]) -> list[str]:
    """Return the words that are valid values of the recipe field at a path, such as known kinds."""
    tagged = (
        [t.tag for t in _types_at(path[:-1]) if getattr(t, "tag_field", None) == path[-1]]
        if path
        else []
    )
    literal = [str(v) for t in _types_at(path) for v in getattr(t, "values", ())]
    return tagged + literal
