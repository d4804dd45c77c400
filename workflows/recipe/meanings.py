"""Read the meanings of a recipe's fields from the docstrings of its blocks.

A block of a recipe is a msgspec struct. Its docstring begins with a summary of the block, and its
section `Attributes:` has an entry for each field, so that a meaning is written only once: there.
"""

from __future__ import annotations

import inspect
import re

import msgspec
from msgspec import inspect as types

#: The section of a docstring that describes fields or arguments, up to the next line that is not
#: indented.
_SECTION = re.compile(r"^(?:Attributes|Args):\n((?:(?: {4}.*)?\n?)*)", re.MULTILINE)
#: An entry of the section: names of fields, a colon, and the meaning with its further lines.
_ENTRY = re.compile(r"^ {4}(\w+(?:, \w+)*): (.*(?:\n {8}.*)*)", re.MULTILINE)


def summary(block: type) -> str:
    """Return the docstring of a class without its section `Attributes:`."""
    return _SECTION.sub("", _docstring(block)).strip()


def meanings(block: type[msgspec.Struct]) -> dict[str, str]:
    """Return a map from the fields of a block to their meanings, those of base classes included.

    The names are those of a recipe file. A field that no docstring describes is left out.
    """
    found: dict[str, str] = {}
    for base in reversed(block.__mro__):
        found |= described(_docstring(base))
    fields = msgspec.structs.fields(block)
    return {f.encode_name: found[f.name] for f in fields if f.name in found}


def described(docstring: str) -> dict[str, str]:
    """Return a map from the fields or arguments that a docstring describes to their meanings."""
    found: dict[str, str] = {}
    for section in _SECTION.findall(docstring):
        for names, meaning in _ENTRY.findall(section):
            found |= dict.fromkeys(names.split(", "), " ".join(meaning.split()))
    return found


def _docstring(block: type) -> str:
    """Return the docstring of the class itself, not of a base class, without its indentation."""
    return inspect.cleandoc(block.__dict__.get("__doc__") or "")


def blocks(root: type[msgspec.Struct]) -> list[type[msgspec.Struct]]:
    """Return a block and all blocks that it contains, in the order in which fields name them."""
    found: list[type[msgspec.Struct]] = []
    open_types: list[types.Type] = [types.type_info(root)]
    while open_types:
        one = open_types.pop(0)
        if isinstance(one, types.StructType):
            if one.cls in found:
                continue
            found.append(one.cls)
            open_types = [field.type for field in one.fields] + open_types
        else:
            open_types = parts_of(one) + open_types
    return found


def parts_of(one: types.Type) -> list[types.Type]:
    """Return the types within a type: of its alternatives, its elements, or a mapping's values."""
    if isinstance(one, types.UnionType):
        return list(one.types)
    if isinstance(one, types.DictType):
        return [one.value_type]
    if isinstance(one, types.VarTupleType | types.ListType):
        return [one.item_type]
    return list(one.item_types) if isinstance(one, types.TupleType) else []
