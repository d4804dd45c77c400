"""The page of the recipe: every block and field, with its type, bounds, default and meaning."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import msgspec
from msgspec import NODEFAULT
from msgspec import inspect as types

from reference_pages.page import Entry, Page, Section
from workflows.recipe.meanings import blocks, meanings, parts_of, summary
from workflows.recipe.whole import Recipe

INTRODUCTION = """
A recipe is one YAML file. The tables below are made from the code, so they are complete. A field
without a default is required. Unknown fields are refused, with the nearest known name.

`--set loss.temperature=0.1` on the command line sets a field for one run. `variants` at the end of
a recipe are patches by name: `--recipe shop:small` lays the patch `small` over the recipe. Some
defaults depend on other fields: without a time feature, histories are bags (`history.before:
others`, `max_len: 200`), and an epoch takes at most 50 rows of a user; where the history of a row
is all earlier rows of the user, the encoder is `attention`, with `train.batch_size: 1600`,
`epochs: 60`, `patience: 10` and `optimizer.lr: 0.002`.

`two-tower schema` prints the JSON Schema of these tables, with which editors complete and check
recipes.
""".strip()


def page() -> Page:
    """Return the page of the recipe's fields."""
    places = _all_places()
    sections = [section_of(block, places[block]) for block in blocks(Recipe)]
    return Page("Recipe", INTRODUCTION, sections)


def section_of(block: type[msgspec.Struct], place: str) -> Section:
    """Return the section of one block of a recipe.

    Args:
        block: the class of the block.
        place: the path of the block in a recipe; empty for the recipe itself.
    """
    info = types.type_info(block)
    assert isinstance(info, types.StructType)
    found, link = meanings(block), _anchor(info, place)
    entries = []
    if info.tag_field:
        entries.append(Entry(info.tag_field, "The kind of the block.", (f"`{info.tag}`", "")))
    for field in info.fields:
        facts = (_type(field.type), _default(field))
        entries.append(Entry(field.encode_name, found.get(field.encode_name, ""), facts))
    kind = f" of kind `{info.tag}`" if info.tag_field else ""
    title = f"`{place}`{kind}" if place else "The whole recipe"
    return Section(title, summary(block), entries, ("field", "type", "default", "meaning"), link)


@cache
def _all_places() -> dict[type, str]:
    """Return each block of the recipe with the first path at which it stands."""
    found: dict[type, str] = {}
    for block, place in _places(Recipe, ""):
        found.setdefault(block, place)
    return found


def _anchor(info: types.StructType, place: str) -> str:
    """Return the name by which links name the section of a block."""
    words = re.findall(r"[a-z0-9_]+", place.replace("<name>", ""))
    return "-".join([*words, *([str(info.tag)] if info.tag else [])])


def _places(block: type, place: str) -> Iterator[tuple[type, str]]:
    """Yield each block inside a block, with the first path at which it stands."""
    info = types.type_info(block)
    assert isinstance(info, types.StructType)
    yield block, place
    for field in info.fields:
        inner = f"{place}.{field.encode_name}".lstrip(".")
        for found, at in _inside(field.type, inner):
            yield from ((each, where) for each, where in _places(found, at))


def _inside(one: types.Type, place: str) -> Iterator[tuple[type, str]]:
    if isinstance(one, types.StructType):
        yield one.cls, place
        return
    step = ".<name>" if isinstance(one, types.DictType) else ""
    step = "[]" if isinstance(one, types.VarTupleType) else step
    for part in parts_of(one):
        yield from _inside(part, place + step)


def _type(one: types.Type) -> str:
    """Return the type of a field in words, with its bounds."""
    if isinstance(one, types.UnionType):
        return " or ".join(dict.fromkeys(_type(part) for part in one.types))
    if isinstance(one, types.LiteralType):
        return " or ".join(f"`{value}`" for value in one.values)
    if isinstance(one, types.DictType):
        return f"mapping of names to {_type(one.value_type)}"
    if isinstance(one, types.VarTupleType):
        return f"list of {_type(one.item_type)}"
    if isinstance(one, types.TupleType):
        return "list of " + ", then ".join(_type(part) for part in one.item_types)
    if isinstance(one, types.StructType):
        anchor = _anchor(one, _all_places()[one.cls])
        return f"[{one.tag or 'block'}](#{anchor})"
    if isinstance(one, types.IntType | types.FloatType):
        return _number(one)
    names = {types.BoolType: "true or false", types.NoneType: "null", types.StrType: "text"}
    return names[type(one)]


def _number(one: types.IntType | types.FloatType) -> str:
    words = "whole number" if isinstance(one, types.IntType) else "number"
    bounds = [
        f"{word} {bound:,}"
        for word, bound in (("from", one.ge), ("above", one.gt), ("to", one.le), ("below", one.lt))
        if bound is not None and abs(bound) < 1e18
    ]
    return " ".join([words, *bounds])


def _default(field: types.Field) -> str:
    """Return the default of a field as YAML; "required" where there is none."""
    if field.default_factory is not NODEFAULT:
        value = field.default_factory()
    elif field.default is NODEFAULT:
        return "required"
    else:
        value = field.default
    if isinstance(value, msgspec.Struct):
        kind = value.__struct_config__.tag
        return f"`{{kind: {kind}}}`" if kind else "its defaults"
    return f"`{_yaml(msgspec.to_builtins(value))}`"


def _yaml(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_yaml(each)}" for key, each in value.items()) + "}"
    return '""' if value == "" else str(value)
