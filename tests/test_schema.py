"""The JSON Schema of recipes: it takes the shipped recipes, and refuses what the parser refuses."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from workflows import recipe as recipes
from workflows.cli import app
from workflows.ground.errors import RecipeError
from workflows.recipe.schema import schema
from workflows.recipe.text import Loader

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
FIRST = "# yaml-language-server: $schema=schema.json\n"


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    found = schema()
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


def raw(path: Path) -> dict[str, Any]:
    return yaml.load(path.read_text(encoding="utf-8"), Loader)


def parse(changed: dict[str, Any], variant: str) -> None:
    """Read a recipe's plain data with a variant; "" for none."""
    variants = changed["variants"]
    changed = {name: value for name, value in changed.items() if name != "variants"}
    if variant:
        changed = recipes.reading._vary(changed, variants, variant, Path("x.yaml"))
    recipes.parse(changed, where="x.yaml")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_fits_and_names_the_schema(path: Path, validator) -> None:
    assert [error.message for error in validator.iter_errors(raw(path))] == []
    assert path.read_text(encoding="utf-8").startswith(FIRST)


def test_the_file_beside_the_recipes_is_what_the_verb_prints() -> None:
    done = CliRunner().invoke(app, ["schema"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output) == schema()
    written = (ROOT / "recipes" / "schema.json").read_text(encoding="utf-8")
    assert written == done.output, "A field or its meaning has changed: run `make schema`."


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("trian",), {"epochs": 3}),
        (("train", "epoch"), 3),
        (("train", "epochs"), 0),
        (("train", "epochs"), "three"),
        (("split", "kind"), "leave_lats"),
        (("features", "age", "null"), "median"),
        (("features", "age", "role"), "itme"),
        (("join", 0, "on"), "user_id"),
        (("model", "kind"), "tensor"),
        (("model", "encoder", "hedas"), 2),
        (("variants", "pool", "train", "epoch"), 3),
        (("variants", "pool", "features", "age", "role"), "itme"),
        (("variants", "pool"), "small"),
        (("name",), "a b"),
        (("name",), "a\n"),
        (("evaluate", "also"), [{"candidates": "hot"}]),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_what_the_parser_refuses_does_not_fit(
    path: tuple[str | int, ...], value: object, validator
) -> None:
    changed = copy.deepcopy(raw(ROOT / "recipes" / "movielens-100k.yaml"))
    at: Any = changed
    for step in path[:-1]:
        at = at[step] if isinstance(at, list) else at.setdefault(step, {})
    at[path[-1]] = value
    assert not validator.is_valid(changed)
    with pytest.raises(RecipeError):
        parse(changed, str(path[1]) if path[0] == "variants" else "")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", {}),
        ("model", {"encoder": {"decay": None}}),
        ("model", {"kind": "popularity"}),
        ("loss", {"temperature": 1}),
        ("variants", {"empty": None, "other": {"split": {"valid": 2}}}),
        ("variants", {"other": {"model": {"encoder": {"kind": "decay_pool"}}}}),
    ],
)
def test_what_the_parser_takes_beyond_the_types_fits(field: str, value: Any, validator) -> None:
    changed = raw(ROOT / "recipes" / "movielens-100k.yaml") | {field: value}
    assert [error.message for error in validator.iter_errors(changed)] == []
    for variant in ("", *(value if field == "variants" else ())):
        parse(changed, variant)


def test_fields_have_their_meanings_and_bounds() -> None:
    found = schema()["$defs"]
    epochs = found["TrainConfig"]["properties"]["epochs"]
    assert epochs["minimum"] == 1
    assert all("description" in field for field in found["Recipe"]["properties"].values())
    assert "required" not in found["FeatureVariant"]
    assert found["Feature"]["required"] == ["role"]
    assert "JoinVariant" not in found, "a variant replaces a list as a whole"
