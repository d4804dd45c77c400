"""Recipes in a wheel: they come with the package, and what they are about stays outside of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from workflows import recipe as recipes

ROOT = Path(__file__).resolve().parent.parent
ASKED = """
from workflows import recipe
from workflows.cli import main
path = recipe.find("movielens-100k")
print(path)
print(recipe.data_folder(recipe.load(path), path))
print(*recipe.known_names(), repr(recipe.default_name()))
main()
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with what a wheel of this package holds."""
    checkout = tmp_path_factory.mktemp("checkout")
    for name in ("models", "samples", "workflows", "recipes"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, checkout / name, ignore=ignored)
    for name in ("setup.cfg", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, checkout)
    build = checkout.parent / "site-packages"
    setup = ["-W", "ignore", "-c", "import setuptools; setuptools.setup()"]
    subprocess.run(
        [sys.executable, *setup, "--quiet", "build_py", "--build-lib", str(build)],
        cwd=checkout,
        check=True,
        capture_output=True,
    )
    shutil.rmtree(checkout)
    return build


def test_a_wheel_holds_all_recipes_and_no_data_goes_into_it(
    installed: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASKED, "etl"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    path, data, known = done.stdout.splitlines()
    names = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))
    assert Path(path).is_relative_to(installed)
    assert Path(path).read_bytes() == (ROOT / "recipes" / "movielens-100k.yaml").read_bytes()
    assert Path(data) == tmp_path / "data" / "movielens-100k"
    assert known.split() == [*names, "''"]
    assert done.returncode == 2
    assert done.stderr.startswith("two-tower: etl needs a recipe. Give --recipe with ")


def test_every_file_of_the_checkouts_packages_is_in_the_wheel(installed: Path) -> None:
    here = {
        p.relative_to(ROOT) for name in ("models", "workflows") for p in (ROOT / name).rglob("*")
    }
    files = {p for p in here if (ROOT / p).is_file() and "__pycache__" not in p.parts}
    assert {p for p in files if not (installed / p).is_file()} == set()


def test_data_of_a_recipe_of_ones_own_lies_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "shop.yaml"
    recipe = recipes.load(recipes.find("movielens-100k"))
    assert recipes.data_folder(recipe, path) == tmp_path.parent / "data" / "movielens-100k"
