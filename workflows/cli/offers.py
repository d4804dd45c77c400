"""What train, evaluate and export say of a recipe with `offers`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workflows.cli.show import counts, show, show_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workflows.cli.call import Call
    from workflows.ground.device import Device
    from workflows.recipe import Recipe
    from workflows.stages.store import Store


def refuse(recipe: Recipe, options: Mapping[str, object]) -> None:
    """Refuse options that are of two towers only, rather than let them do nothing.

    Args:
        recipe: the recipe of models of offers.
        options: name → what was given; falsy where it was not.

    Raises:
        RecipeError: one was given.
    """
    from workflows.ground.errors import RecipeError

    given = [name for name, value in options.items() if value]
    if given:
        raise RecipeError(
            f"recipe {recipe.name} has models of offers, not two towers, and knows no "
            f"{', '.join(given)}: leave that out."
        )


def evaluate(call: Call, recipe: Recipe, store: Store, device: Device) -> None:
    """Score all models on all tasks."""
    from workflows.offers.evaluate import evaluate
    from workflows.offers.table import tables

    result = evaluate(recipe, store, device)
    if not call.as_json:
        for table in tables(result.report):
            show_text(table)
    show(result, call, {"seconds": f"{result.seconds:.1f}", "folder": result.folder})


def export(call: Call, recipe: Recipe, store: Store, device: Device) -> None:
    """Write vectors of users and offers, towers, similar offers and pictures."""
    from workflows.offers.export import export

    result = export(recipe, store, device)
    rows = {
        "users": f"{result.users:,}",
        "offers": counts(result.offers),
        "seconds": f"{result.seconds:.1f}",
        "folder": result.folder,
        "files": "\n".join(sorted(p.name for p in result.folder.iterdir())),
    }
    show(result, call, rows)
