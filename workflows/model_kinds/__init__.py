"""The kinds of models that a recipe can describe, and the verbs that each kind supports.

A new kind of model is a class in a file of this folder, and an entry in `KINDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from workflows.ground.errors import RecipeError
from workflows.recipe import Recipe
from workflows.stages.store import Store

if TYPE_CHECKING:
    from rich.console import RenderableType

    from workflows.model_kinds.protocol import Models
    from workflows.stages.evaluate import Report
    from workflows.stages.offers_report import OffersReport


class Kind(NamedTuple):
    """A kind of model that a recipe can describe, with the verbs and options that it supports.

    Attributes:
        answers: names of the verbs that query exports of this kind of model only.
        ignores: command-line options that do not apply to this kind of model, and are refused.
        tables: function that returns the report of an evaluation as tables for a terminal.
        open: function that returns a recipe's models, which read the etl stage of a run; it loads
            TensorFlow.
    """

    answers: tuple[str, ...]
    ignores: tuple[str, ...]
    tables: Callable[[Recipe, Any], list[RenderableType]]
    open: Callable[[Store, Recipe], Models]


def _open_two_towers(store: Store, recipe: Recipe) -> Models:
    from workflows.model_kinds.two_tower import TwoTowers

    return TwoTowers.open(store, recipe)


def _tables_of_ranking(recipe: Recipe, report: Report) -> list[RenderableType]:
    from workflows.ranking.table import tables

    return tables(report, recipe.evaluate.ks)


def _tables_of_offers(recipe: Recipe, report: OffersReport) -> list[RenderableType]:
    from workflows.offers.table import tables

    return tables(report)


def _open_offers(store: Store, recipe: Recipe) -> Models:
    from workflows.model_kinds.offers import OfferModels

    return OfferModels.open(store, recipe)


_LISTS = ("recommend", "similar-items", "index", "serve", "load", "triton")
_TWO_TOWERS = Kind(_LISTS, (), _tables_of_ranking, _open_two_towers)

#: `model.kind` of a recipe → the kind of model.
KINDS = {
    "two_tower": _TWO_TOWERS,
    "popularity": _TWO_TOWERS,
    "content": _TWO_TOWERS,
    "offers": Kind(
        ("audience", "similar-offers"),
        ("--min-lift", "--as-of", "--workers"),
        _tables_of_offers,
        _open_offers,
    ),
}


def kind_of(recipe: Recipe) -> Kind:
    """Return the kind of a recipe's model, an entry of `KINDS`: two-tower, offers or another."""
    return KINDS[_tag(recipe)]


def _tag(recipe: Recipe) -> str:
    return str(recipe.model.__struct_config__.tag)


def open_models(store: Store, recipe: Recipe) -> Models:
    """Return the models that a recipe describes, which read the etl stage of a run.

    Raises:
        MissingStage, StaleInput, ArtifactError: the etl stage is missing, stale or damaged.
    """
    return kind_of(recipe).open(store, recipe)


def refuse_verb(recipe: Recipe, verb: str) -> None:
    """Refuse a verb that the kind of a recipe's model does not support.

    Raises:
        RecipeError: the kind of model does not support the verb; the message names the verbs that
            it supports.
    """
    mine = kind_of(recipe)
    if verb in mine.answers or all(verb not in kind.answers for kind in KINDS.values()):
        return
    others = " or ".join(tag for tag, kind in KINDS.items() if verb in kind.answers)
    raise RecipeError(
        f"recipe {recipe.name} has a model of kind {_tag(recipe)}, and `{verb}` is for models "
        f"of kind {others}. Use {', '.join(f'`{name}`' for name in mine.answers)}, or use another "
        "recipe."
    )


def refuse_options(recipe: Recipe, options: Mapping[str, bool]) -> None:
    """Refuse command-line options that would have no effect for the kind of a recipe's model.

    Args:
        recipe: the recipe that describes the model.
        options: name of a command-line option → whether it was given.

    Raises:
        RecipeError: an option was given that does not apply to the recipe's kind of model.
    """
    mine = kind_of(recipe)
    given = [name for name, is_given in options.items() if is_given and name in mine.ignores]
    if given:
        raise RecipeError(
            f"recipe {recipe.name} has a model of kind {_tag(recipe)}, which has no "
            f"{', '.join(given)}: leave that out."
        )
