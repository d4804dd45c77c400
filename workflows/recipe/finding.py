"""Find recipe files, and the folders of the raw data that they describe."""

from __future__ import annotations

import contextlib
from pathlib import Path

from workflows.ground.errors import RecipeError
from workflows.recipe.text import nearest
from workflows.recipe.whole import Recipe

#: Folders of the recipes of this package: in a wheel, and in a checkout.
_SHIPPED = Path(__file__).parent / "shipped"
_CHECKOUT = Path(__file__).parents[2] / "recipes"
#: The recipe that verbs use in a checkout if none is named.
FIRST = "movielens-100k"


def find(name: str) -> Path:
    """Return the path of a recipe file, given either the path or the recipe's name in `recipes/`.

    Raises:
        RecipeError: no recipe has the path or name; the message lists the known names.
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
    """Return the names of all recipes that `find` accepts by name."""
    return sorted({path.stem for folder in _folders() for path in folder.glob("*.yaml")})


def default_name() -> str:
    """Return the name of the default recipe in a checkout of this package, else an empty text."""
    return FIRST if Path("recipes", f"{FIRST}.yaml").is_file() else ""


def data_folder(recipe: Recipe, path: Path) -> Path:
    """Return the folder that holds the raw data files of a recipe.

    Args:
        recipe: the recipe, whose field `data` is relative to the folder of the recipe's file; `~`
            is the home folder.
        path: the path of the recipe's file. For a recipe inside an installed package, `data` is
            relative to `recipes/` in the working folder.
    """
    home = Path("recipes") if path.parent == _SHIPPED.resolve() else path.parent
    data = Path(recipe.data)
    with contextlib.suppress(RuntimeError):  # no such home folder
        data = data.expanduser()
    return (home / data).resolve()
