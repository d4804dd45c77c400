"""What every verb is called with: a verb is a function of a `Call`, and of options of its own."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

if TYPE_CHECKING:
    from workflows.device import Device
    from workflows.recipe import Recipe
    from workflows.store import Store


@dataclasses.dataclass(frozen=True)
class Call:
    """The options that every verb has, and what they stand for."""

    recipe_name: Annotated[
        str,
        typer.Option(
            "--recipe", help="A name in recipes/ or a .yaml file; NAME:VARIANT for a variant."
        ),
    ] = "movielens-100k"
    run: Annotated[
        str, typer.Option("--run", help="Folder runs/<RUN>, or a path. Default: the recipe's name.")
    ] = ""
    device_name: Annotated[str, typer.Option("--device", help="auto, cpu or gpu.")] = "auto"
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a recipe field: train.epochs=3. May be repeated."),
    ] = None
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False

    def device(self) -> Device:
        """Decide the device of this process. Before anything heavy is imported."""
        from workflows import device

        return device.choose(None if self.device_name == "auto" else self.device_name)

    def open(self, *, offers: bool = False) -> tuple[Recipe, Store, Path]:
        """Return the recipe, the run, and the folder of raw data.

        Args:
            offers: whether the verb knows what to do with models of offers.
        """
        from workflows import recipe as recipes
        from workflows.errors import RecipeError

        name, _, variant = self.recipe_name.partition(":")
        path = recipes.find(name)
        recipe = recipes.load(path, self.settings or [], variant=variant)
        if recipe.offers and not offers:
            raise RecipeError(
                f"recipe {recipe.name} has models of offers, not two towers: ask `audience` and "
                "`similar-offers`."
            )
        return recipe, self.store(self.run or recipe.name), (path.parent / recipe.data).resolve()

    def store(self, run: str) -> Store:
        """Return a run by its name in runs/, or by its path."""
        from workflows.store import Store

        return Store(Path(run) if "/" in run else Path("runs") / run)


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Return what typer calls for a function of a `Call`: the shared options are written once.

    Keyword-only parameters of the function, annotated for typer, are options of this verb alone.
    """
    fields = dataclasses.fields(Call)
    shared = get_type_hints(Call, include_extras=True)
    own = inspect.signature(function, eval_str=True).parameters.values()

    def called(**options: Any) -> None:
        call = Call(**{field.name: options.pop(field.name) for field in fields})
        function(call, **options)

    parameters = [
        inspect.Parameter(f.name, _KEYWORD, default=f.default, annotation=shared[f.name])
        for f in fields
    ]
    parameters += [p for p in own if p.kind is _KEYWORD]
    called.__doc__ = function.__doc__
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return called


_KEYWORD = inspect.Parameter.KEYWORD_ONLY
