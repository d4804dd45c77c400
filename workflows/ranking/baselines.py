"""Fits the baselines of a recipe on train, and chooses their hyper-parameters on valid."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from models.baselines import search
from models.baselines.content import multi_hot
from models.baselines.errors import CannotFit
from models.baselines.fallback import parameters
from models.baselines.registry import Baseline, grid_of
from models.baselines.search import Facts, Grid, Point
from models.core.columns import Column
from models.core.evaluation_set import EvaluationSet
from models.core.reserved_codes import UNSEEN
from models.core.retriever import BrokenModel, Retriever
from models.core.user_sample import UserSample
from workflows.recipe import Recipe
from workflows.stages.evaluate import BaselineChoice

log = logging.getLogger(__name__)

#: Largest number of users on which a grid search measures each of its dozens of models; with so
#: many users, the standard error of a metric is at most 0.005.
MAX_USERS = 10_000


class FittedBaseline(NamedTuple):
    """The baseline model with the best hyper-parameters of its grid, and how it was chosen."""

    model: Retriever
    note: BaselineChoice


def fit_baselines(
    names: Sequence[Baseline], facts: Facts, valid: EvaluationSet | None
) -> Iterator[tuple[Baseline, FittedBaseline | CannotFit]]:
    """Yield the name of each baseline with the fitted baseline, or the reason why it cannot run.

    Args:
        names: the names of the baselines to fit.
        facts: the training data of the baselines.
        valid: the evaluation set of the valid part, on which hyper-parameters are chosen; None
            takes the first point of each grid.
    """
    if valid is not None:
        valid = _some_users(valid, facts.seed)
    bar = tqdm(names, unit="baseline", disable=None, file=sys.stderr)
    with logging_redirect_tqdm(), bar:  # lines of the log stand above the bar
        for name in bar:
            bar.set_postfix_str(name)
            try:
                yield name, choose(name, facts, valid)
            except CannotFit as why:
                log.warning("%s is left out: %s", name, why)
                yield name, why


def choose(name: Baseline, facts: Facts, valid: EvaluationSet | None) -> FittedBaseline:
    """Fit a baseline with each point of its grid on train, and return the best one on valid.

    Of equally good points of the grid, the first one is chosen.

    Raises:
        CannotFit: the baseline cannot be fitted on this data.
    """
    start = time.perf_counter()
    grid = grid_of(name, facts)
    if grid.notice:
        log.info("%s: %s", name, grid.notice)
    if valid is None:
        model = grid.fit(grid.start[0])
        log.info("%s %s: fitted; no valid part to choose by", name, grid.named(grid.start[0]))
        note = BaselineChoice(parameters=parameters(model), tried=1, seconds=_since(start))
        return FittedBaseline(model, note)
    grid_search = _GridSearch(name, grid, valid)
    found = search.coordinate_search(grid, grid_search.measure)
    if grid_search.best is None:
        raise CannotFit(f"all {found.tried} points of its grid give NaN scores")
    note = BaselineChoice(
        parameters=parameters(grid_search.best),
        tried=found.tried,
        edge=found.edge,
        valid=grid_search.value,
        valid_users=len(valid.queries),
        seconds=_since(start),
    )
    return FittedBaseline(grid_search.best, note)


@dataclass
class _GridSearch:
    """The state of the hyper-parameter search for one baseline, with the best model so far.

    The search logs one line for each point of the grid.

    Attributes:
        name: the name of the baseline.
        grid: the grid of hyper-parameters.
        valid: the evaluation set of the valid part, on which models are measured.
        best: the best baseline model so far; None if no model had valid scores.
        value: the mean of `SELECTION_METRICS` of the best model.
    """

    name: Baseline
    grid: Grid
    valid: EvaluationSet
    best: Retriever | None = None
    value: float = -np.inf

    def measure(self, point: Point) -> float:
        """Fit the baseline with a point of the grid, and return its mean metric on valid.

        The value of a model with NaN scores is -inf.
        """
        start = time.perf_counter()
        label = " ".join(filter(None, (self.name, self.grid.named(point))))
        try:
            model = self.grid.fit(point)
            value = self.valid.selection_score(model)
        except (BrokenModel, np.linalg.LinAlgError) as why:
            log.warning("%s: no value, because %s (%.1f s)", label, why, _since(start))
            return -np.inf
        log.info("%s: valid %.4f (%.1f s)", label, value, _since(start))
        if value > self.value:
            self.best, self.value = model, value
        return value


def _since(start: float) -> float:
    """Return the seconds since `start`, an earlier value of time.perf_counter()."""
    return round(time.perf_counter() - start, 3)


def _some_users(valid: EvaluationSet, seed: int) -> EvaluationSet:
    """Return an evaluation set with a random sample of at most `MAX_USERS` of the users."""
    if len(valid.queries) <= MAX_USERS:
        return valid
    return valid.take(UserSample(MAX_USERS, seed).draw(len(valid.queries)))


def attributes(recipe: Recipe, items: dict[str, Column]) -> sp.csr_matrix:
    """Return the items' categories (ids excepted) as multi-hot rows, float32 [n_items, n_values].

    Args:
        recipe: the recipe, which says which columns are categories.
        items: the encoded item table.
    """
    names = [
        name
        for name in recipe.columns("item")
        if recipe.features[name].meaning.has_codes and name != recipe.item_id
    ]
    if not names:
        return sp.csr_matrix((len(items[recipe.item_id]), 0), dtype=np.float32)
    firsts = [UNSEEN + recipe.vocabulary_rule(name).oov_buckets for name in names]
    return multi_hot([items[name] for name in names], firsts)
