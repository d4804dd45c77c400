"""The JSON Schema of a recipe file, with which editors complete and check recipes.

msgspec derives the types and bounds from the blocks of the recipe. Added here are the meanings of
the fields, and what a file may have beyond a `Recipe`: variants, and blocks without a `kind` that
has a default. A schema cannot express the rules that concern several fields; `two-tower` checks
these when it reads a recipe.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from models.encoders.config import AttentionConfig, DecayPoolConfig
from models.towers.config import TwoTowerConfig
from workflows.recipe.meanings import blocks, meanings, summary
from workflows.recipe.whole import Recipe

#: Blocks whose field `kind` may be left out: workflows/recipe/defaults.py adds it.
_WITHOUT_KIND = (TwoTowerConfig, AttentionConfig, DecayPoolConfig)
#: The end of a text, in the syntax of Python and of JavaScript, which has no \Z.
_END = r"(?![\s\S])"
#: The part of a variant in the name of a definition.
_PATCH = "Variant"
_VARIANTS = (
    "name of a variant → the fields that it changes; `--recipe shop:small` takes the variant "
    "`small` of the recipe `shop`. A mapping is changed field by field, a list is replaced."
)


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a recipe file."""
    # by way of JSON, because msgspec has tuples and mappings of the blocks themselves as defaults
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(msgspec.json.schema(Recipe)))
    definitions = found["$defs"]
    for block in blocks(Recipe):
        _describe(block, definitions[block.__name__])
    for block in _WITHOUT_KIND:
        definitions[block.__name__]["required"].remove("kind")
    for part in _mappings(definitions):
        part.pop("discriminator", None)  # a word of OpenAPI
        if "pattern" in part:
            part["pattern"] = part["pattern"].replace(r"\Z", _END)
    patches = dict(_patches(definitions, "Recipe"))
    change = {"$ref": f"#/$defs/Recipe{_PATCH}"}
    definitions["Recipe"]["properties"]["variants"] = {
        "description": _VARIANTS,
        "type": "object",
        "additionalProperties": {"anyOf": [change, {"type": "null"}]},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Recipe of merlin-two-tower",
        **found,
        "$defs": {**definitions, **patches},
    }


def _describe(block: type[msgspec.Struct], definition: dict[str, Any]) -> None:
    """Write the meanings of a block and of its fields into its definition."""
    definition["description"] = " ".join(summary(block).split())
    for name, meaning in meanings(block).items():
        field = definition["properties"][name]
        # beside a reference, other keys are allowed since draft 2019-09
        definition["properties"][name] = {"description": meaning, **field}


def _patches(
    definitions: Mapping[str, dict[str, Any]], name: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the definitions for a variant of a block and of the blocks inside it, by name."""
    patch = _patch(definitions[name])
    yield f"{name}{_PATCH}", patch
    for part in _mappings(patch, into_lists=False):
        if "$ref" in part:
            inner = part["$ref"].rpartition("/")[2].removesuffix(_PATCH)
            yield from _patches(definitions, inner)


def _patch(block: dict[str, Any]) -> dict[str, Any]:
    """Return the definition of a block in a variant: no field is required, at any depth.

    The elements of a list are whole blocks, because a variant replaces a list.
    """
    changed = copy.deepcopy(block)
    changed.pop("required", None)
    for part in _mappings(changed, into_lists=False):
        if "$ref" in part:
            part["$ref"] += _PATCH
    return changed


def _mappings(value: Any, *, into_lists: bool = True) -> Iterator[dict[str, Any]]:
    """Yield all mappings inside a JSON value, outer ones first.

    Args:
        value: the JSON value.
        into_lists: whether to yield what describes the elements of lists (`items`) as well.
    """
    if isinstance(value, dict):
        yield value
        for name, part in list(value.items()):
            if into_lists or name not in ("items", "prefixItems"):
                yield from _mappings(part, into_lists=into_lists)
    elif isinstance(value, list):
        for part in value:
            yield from _mappings(part, into_lists=into_lists)
