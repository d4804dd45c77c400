"""The kinds of models that a recipe may describe, and which verbs each of them answers.

A new kind is a class in a file beside this one, and an entry in `KINDS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from workflows.ground.errors import RecipeError
from workflows.recipe import Recipe
from workflows.stages.store import Store

if TYPE_CHECKING:
    from workflows.kinds.protocol import Models


class Kind(NamedTuple):
    """A kind of model.

    Attributes:
        name: what messages call its models.
        answers: the verbs that ask its exports. They know how to ask no other kind.
        open: returns the models of a recipe on the etl stage of a run; it loads TensorFlow.
    """

    name: str
    answers: tuple[str, ...]
    open: Callable[[Store, Recipe], Models]


def _open_two_towers(store: Store, recipe: Recipe) -> Models:
    from workflows.kinds.two_tower import TwoTowers

    return TwoTowers.open(store, recipe)


def _open_offers(store: Store, recipe: Recipe) -> Models:
    from workflows.kinds.offers import OfferModels

    return OfferModels.open(store, recipe)


_LISTS = ("recommend", "similar-items", "index", "serve", "load", "triton", "report")
_TWO_TOWERS = Kind("two towers", _LISTS, _open_two_towers)

#: `model.kind` of a recipe → the kind of model.
KINDS = {
    "two_tower": _TWO_TOWERS,
    "popularity": _TWO_TOWERS,
    "content": _TWO_TOWERS,
    "offers": Kind("models of offers", ("audience", "similar-offers"), _open_offers),
}


def kind_of(recipe: Recipe) -> Kind:
    """Return the kind of a recipe's model."""
    return KINDS[str(recipe.model.__struct_config__.tag)]


def open_models(store: Store, recipe: Recipe) -> Models:
    """Return the models of a recipe on the etl stage of a run.

    Raises:
        MissingStage, StaleInput, ArtifactError: the stage cannot be used.
    """
    return kind_of(recipe).open(store, recipe)


def refuse_verb(recipe: Recipe, verb: str) -> None:
    """Refuse a verb that only models of other kinds answer.

    Raises:
        RecipeError: the message names the verbs that this kind answers.
    """
    mine = kind_of(recipe)
    if verb in mine.answers or all(verb not in kind.answers for kind in KINDS.values()):
        return
    others = next(kind.name for kind in KINDS.values() if verb in kind.answers)
    raise RecipeError(
        f"recipe {recipe.name} has {mine.name}, and `{verb}` asks {others}: ask "
        f"{', '.join(f'`{name}`' for name in mine.answers)}, or take another recipe."
    )
