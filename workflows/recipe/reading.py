"""Read recipes from YAML files, and change them by variants and overrides."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from workflows.ground.errors import RecipeError
from workflows.recipe.defaults import with_defaults
from workflows.recipe.explain import explain
from workflows.recipe.text import LONGEST, Loader, nearest, yaml_problem
from workflows.recipe.whole import Recipe


def load(path: Path, overrides: Sequence[str] = (), *, variant: str = "") -> Recipe:
    """Read a recipe from its YAML file, apply a variant and overrides, and check it.

    Args:
        path: the YAML file of the recipe.
        overrides: texts such as `train.epochs=3`, which replace fields of the recipe; the value is
            YAML.
        variant: name of one of the recipe's `variants`, each of which replaces some fields; "" for
            none.

    Raises:
        RecipeError: the recipe is not valid; the message names the file, the line, the field, what
            was expected and what was found.
    """
    text = ""
    try:
        text = _text_of(path)
        raw = yaml.load(text, Loader)
    except RecursionError:
        raise RecipeError(f"{path} cannot be read as YAML: it is nested too deeply.") from None
    except (OSError, ValueError, AttributeError, yaml.YAMLError) as error:  # of tags such as !!int
        raise RecipeError(f"{path} cannot be read as YAML: {yaml_problem(error, text)}") from None
    if not isinstance(raw, dict):
        raise RecipeError(f"{path}: expected a mapping of fields, got {type(raw).__name__}.")
    variants = raw.pop("variants", {})
    if variant:
        raw = _vary(raw, variants, variant, path)
    for override in overrides:
        _override(raw, override)
    where = " --set ".join([str(path), *overrides])
    return parse(raw, where=where, text=text)


def _text_of(path: Path) -> str:
    """Return the text of a recipe file.

    Raises:
        OSError, UnicodeDecodeError: the file cannot be read.
        RecipeError: the file is not a regular file, or is too large to be a recipe.
    """
    if not path.is_file():
        raise RecipeError(f"{path} is no regular file. Name the YAML file of a recipe.")
    size = path.stat().st_size
    if size > LONGEST:
        raise RecipeError(
            f"{path} has {size:,} bytes; a recipe has at most {LONGEST:,}. Raw data belongs in "
            "files of its own, which `sources:` names."
        )
    return path.read_text(encoding="utf-8")


def override(recipe: Recipe, overrides: Sequence[str], *, where: str) -> Recipe:
    """Return a recipe in which texts such as `train.epochs=3` replace the values of fields.

    Args:
        recipe: the recipe to change.
        overrides: texts such as `train.epochs=3`. A block that gets another `kind` loses its other
            fields, which belong to the former kind.
        where: the origin of the recipe, for error messages.

    Raises:
        RecipeError: the recipe is not valid.
    """
    raw = recipe.to_dict()
    for override in overrides:
        _override(raw, override, whole=True)
    return parse(raw, where=" --set ".join([where, *overrides]))


def _vary(raw: dict[str, Any], variants: Any, variant: str, path: Path) -> dict[str, Any]:
    """Return a recipe's plain data changed by a variant, with the name `<name>-<variant>`."""
    known = list(variants) if isinstance(variants, dict) else []
    if variant not in known:
        raise RecipeError(
            f"{path} has no variant {variant!r}; {nearest(variant, known)}"
            f"known: {', '.join(known) or 'none'}."
        )
    patch = variants[variant] or {}
    if not isinstance(patch, dict):
        raise RecipeError(
            f"{path}, variants.{variant}: expected a mapping of fields, got {patch!r}."
        )
    varied = _merge(raw, patch)
    return {**varied, "name": f"{raw.get('name')}-{variant}"}


def _merge(base: Any, patch: Any) -> Any:
    """Merge a patch into a recipe's mapping, field by field.

    A block of the recipe whose `kind` changes is replaced as a whole.
    """
    if not isinstance(base, dict) or not isinstance(patch, dict):
        return patch
    if "kind" in patch and patch["kind"] != base.get("kind"):
        return patch
    return {**base, **{key: _merge(base.get(key), value) for key, value in patch.items()}}


def parse(raw: Mapping[str, Any], *, where: str, text: str = "") -> Recipe:
    """Convert a recipe's plain data to a `Recipe`, checking types and values.

    Args:
        raw: the plain data of the recipe's YAML file.
        where: the name of the file, for error messages.
        text: the text of the file, in which the line of a field is looked up.

    Raises:
        RecipeError: the recipe is not valid.
    """
    try:
        _refuse_infinite(raw)
        raw = with_defaults(raw)  # the explanation needs the kinds
        return msgspec.convert(raw, Recipe)
    except RecursionError:
        raise RecipeError(f"{where}: a value contains itself, by a YAML anchor.") from None
    except msgspec.ValidationError as error:
        raise RecipeError(explain(str(error), raw, where, text)) from None


def replace_fields(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """Return a recipe in which some fields have other values.

    Args:
        recipe: the recipe to change.
        settings: path of a field (such as `train.epochs`) → the field's new value.

    Raises:
        RecipeError: the recipe is not valid.
    """
    raw = recipe.to_dict()
    for path, value in settings.items():
        *parents, last = path.split(".")
        _block_at(raw, parents, f"recipe {recipe.name}, field {path}")[last] = value
    return parse(raw, where=f"recipe {recipe.name}")


def _block_at(raw: dict[str, Any], parents: Sequence[str], what: str) -> dict[str, Any]:
    """Return a block of a recipe's plain data, such as `train`; add an empty one if it is absent.

    Args:
        raw: plain data of the recipe, which may be changed.
        parents: names of the outer blocks, from the outermost, and the block's own name.
        what: text that names the change of the recipe, for messages.

    Raises:
        RecipeError: one of the blocks is a value, which has no fields.
    """
    at = raw
    for parent in parents:
        if at.get(parent) is None:  # a whole recipe has null for an absent block
            at[parent] = {}
        at = at[parent]
        if not isinstance(at, dict):
            raise RecipeError(f"{what}: {parent!r} is a value, it has no fields.")
    return at


def _refuse_infinite(value: Any, at: str = "$") -> None:
    """Refuse .inf and .nan in a recipe: no field can use them, and JSON has no such numbers."""
    if isinstance(value, float) and not math.isfinite(value):
        raise msgspec.ValidationError(f"Expected a finite number, got {value} - at `{at}`")
    if isinstance(value, Mapping):
        for key, part in value.items():
            _refuse_infinite(part, f"{at}.{key}")
    elif isinstance(value, list):
        for number, part in enumerate(value):
            _refuse_infinite(part, f"{at}[{number}]")


def _override(raw: dict[str, Any], override: str, *, whole: bool = False) -> None:
    """Set one field of a recipe's plain data from a text such as `train.epochs=3`.

    If the text changes the `kind` of a block in a whole recipe, the other fields of the block are
    removed first.
    """
    key, equals, value = override.partition("=")
    if not equals or not all(part.strip() for part in key.split(".")):
        raise RecipeError(f"--set {override!r}: expected key=value, such as train.epochs=3.")
    *parents, last = key.strip().split(".")
    at = _block_at(raw, parents, f"--set {override!r}")
    try:
        new = yaml.load(value, Loader)
    except RecursionError:
        raise RecipeError(f"--set {key}: the value is nested too deeply.") from None
    except (ValueError, AttributeError, yaml.YAMLError) as error:
        raise RecipeError(
            f"--set {override!r}: the value is not YAML: {yaml_problem(error, value)}"
        ) from None
    if whole and last == "kind" and at.get("kind") != new:
        at.clear()
    at[last] = new
