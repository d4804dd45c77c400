"""The places of recipes and of their raw files."""

from __future__ import annotations

import contextlib
from pathlib import Path

from workflows.ground.errors import RecipeError
from workflows.recipe.text import nearest
from workflows.recipe.whole import Recipe

#: Where the recipes of this package lie: in its wheel, or at the top of a checkout.
_SHIPPED = Path(__file__).parent / "shipped"
_CHECKOUT = Path(__file__).parents[2] / "recipes"
#: The recipe of the first commands: what a verb works by in a checkout where none is named.
FIRST = "movielens-100k"


def find(name: str) -> Path:
    """Return the file of a recipe given by path, or by name in `recipes/`.

    Raises:
        RecipeError: if there is none; it lists the names that exist.
    """
    if name.endswith((".yaml", ".yml")):
        if Path(name).is_file():
            return Path(name).resolve()
        raise RecipeError(f"There is no recipe file {name}. Working folder: {Path.cwd()}.")
    folders = _folders()
    for folder in folders:
        if (folder / f"{name}.yaml").is_file():
            return (folder / f"{name}.yaml").resolve()
    known = known_names()
    raise RecipeError(
        f"There is no recipe {name!r}; {nearest(name, known)}known: {', '.join(known) or 'none'}. "
        "A recipe of your own is given by its path, ending in .yaml."
    )


def _folders() -> list[Path]:
    return [Path("recipes"), _SHIPPED if _SHIPPED.is_dir() else _CHECKOUT]


def known_names() -> list[str]:
    """Return the names that `find` knows."""
    return sorted({path.stem for folder in _folders() for path in folder.glob("*.yaml")})


def default_name() -> str:
    """Return the recipe of a verb that is given none: the first one in a checkout, else none."""
    return FIRST if Path("recipes", f"{FIRST}.yaml").is_file() else ""


def data_folder(recipe: Recipe, path: Path) -> Path:
    """Return the folder of a recipe's raw files.

    Args:
        recipe: says where, relative to its own folder; `~` is a home folder.
        path: its file. A recipe inside an installed package is taken to lie in `recipes/` of the
            working folder: nobody's data belongs into the package.
    """
    home = Path("recipes") if path.parent == _SHIPPED.resolve() else path.parent
    data = Path(recipe.data)
    with contextlib.suppress(RuntimeError):  # a user who is unknown here
        data = data.expanduser()
    return (home / data).resolve()
