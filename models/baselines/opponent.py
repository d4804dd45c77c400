"""What every baseline offers to an evaluation: a grid to choose a model from, or why there is none.

The grids stand beside each model and grow where their best point lies at an edge (`search`), so
that opponents are honest. The best point is chosen on the validation part, as the two-tower's best
epoch is. Where there is no validation part, the first point of a grid is taken.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import scipy.sparse as sp

from models.baselines import content, ease, item_knn, popularity
from models.baselines.errors import CannotFit
from models.baselines.fallback import Fallback, without_history
from models.baselines.random import Random
from models.baselines.search import Grid
from models.config import Baseline
from models.core.retriever import Interactions, Retriever


@dataclass(frozen=True)
class Facts:
    """What baselines learn from.

    Attributes:
        train: the training interactions.
        attributes: multi-hot attributes of the items, float32 [n_items, n_attributes].
        seed: the seed of random numbers.
    """

    train: Interactions
    attributes: sp.csr_matrix
    seed: int


def _by_history(grid: Callable[[Facts], Grid]) -> Callable[[Facts], Grid]:
    """Return a grid whose models fall back to popularity where there is no history."""

    def with_fallback(facts: Facts) -> Grid:
        popular = popularity.Popularity().fit(facts.train)
        bare = grid(facts)
        return dataclasses.replace(
            bare, fit=lambda point: Fallback(bare.fit(point), popular, without_history)
        )

    return with_fallback


def _als(facts: Facts) -> Grid:
    try:
        from models.baselines import als  # implicit is an extra, and slow to import
    except ImportError as error:
        raise CannotFit(
            f"the library {error.name} is not installed; the extra `baselines` brings it"
        ) from None
    return als.grid(facts.train, seed=facts.seed)


def _alone(model: Random | popularity.Popularity, facts: Facts) -> Grid:
    """Return the grid of a model without parameters."""
    return Grid(start=((),), fit=lambda _: model.fit(facts.train))


#: Each gives a baseline's grid, or raises CannotFit.
GRIDS: Mapping[Baseline, Callable[[Facts], Grid]] = {
    "random": lambda facts: _alone(Random(seed=facts.seed), facts),
    "popularity": lambda facts: _alone(popularity.Popularity(), facts),
    "recent-popularity": lambda facts: popularity.grid(facts.train),
    "content": _by_history(lambda facts: content.grid(facts.train, facts.attributes)),
    "item-knn": _by_history(lambda facts: item_knn.grid(facts.train)),
    "ease": _by_history(lambda facts: ease.grid(facts.train)),
    "ease-decayed": _by_history(lambda facts: ease.decayed_grid(facts.train)),
    "als": _by_history(_als),
}


def as_of(model: Retriever, known: Interactions) -> Retriever:
    """Return the model with its counts of popularity as of a cut; what it has learnt stays.

    Args:
        model: the model of a grid.
        known: all interactions before the cut.
    """
    if isinstance(model, popularity.Popularity | popularity.RecentPopularity):
        return model.fit(known)
    if isinstance(model, Fallback):
        return dataclasses.replace(model, popular=model.popular.fit(known))
    return model


def parameters(model: Retriever) -> dict[str, float]:
    """Return the hyper-parameters of a grid's model by name; those that are None are left out."""
    chosen: Any = model.model if isinstance(model, Fallback) else model
    values = {f.name: getattr(chosen, f.name) for f in dataclasses.fields(chosen) if f.repr}
    return {name: value for name, value in values.items() if value is not None}
