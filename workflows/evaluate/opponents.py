"""The baselines of a recipe: fitted on train, the best of each grid chosen on valid."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from models.baselines import opponent
from models.baselines.content import multi_hot
from models.baselines.errors import CannotFit
from models.baselines.opponent import Facts
from models.columns import Column
from models.config import Baseline
from models.retriever import Retriever
from models.trial import Trial
from workflows.evaluate.report import Opponent
from workflows.recipe import Recipe
from workflows.vocabulary import FIRST_OOV

log = logging.getLogger(__name__)

#: Choosing asks dozens of models; so many users leave a standard error of 0.005 at most.
MAX_USERS = 10_000


class Chosen(NamedTuple):
    """The best model of a grid, and how it was found."""

    model: Retriever
    note: Opponent


def chosen(
    names: Sequence[Baseline], facts: Facts, valid: Trial | None
) -> Iterator[tuple[Baseline, Chosen | CannotFit]]:
    """Yield each baseline, or why it cannot run, with a bar where somebody looks.

    Args:
        names: of baselines.
        facts: what they learn from.
        valid: what they are chosen by; None takes the first of each grid.
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


def choose(name: Baseline, facts: Facts, valid: Trial | None) -> Chosen:
    """Fit a baseline's grid on train and return the best on valid; of equals the first.

    Raises:
        CannotFit: it does not run on this data.
    """
    start = time.perf_counter()
    best: Retriever | None = None
    value, tried = -np.inf, 0
    for model in opponent.GRIDS[name](facts):
        tried += 1
        if valid is None:
            best = model
            break
        score = valid.steady(model)
        if score > value:
            best, value = model, score
    assert best is not None
    note = Opponent(
        parameters=opponent.parameters(best),
        tried=tried,
        valid=None if valid is None else value,
        valid_users=None if valid is None else len(valid.queries),
        seconds=round(time.perf_counter() - start, 3),
    )
    return Chosen(best, note)


def _some_users(valid: Trial, seed: int) -> Trial:
    """Return the trial of at most `MAX_USERS` users, drawn at random."""
    n_users = len(valid.queries)
    if n_users <= MAX_USERS:
        return valid
    drawn = np.random.default_rng(seed).choice(n_users, MAX_USERS, replace=False)
    return valid.take(np.sort(drawn))


def attributes(recipe: Recipe, items: dict[str, Column]) -> sp.csr_matrix:
    """Return the items' categories beside their id, float32 [n_items, n_values].

    Args:
        recipe: which columns are categories.
        items: the encoded item table.
    """
    names = [
        name
        for name in recipe.columns("item")
        if recipe.features[name].encoded and name != recipe.item_id
    ]
    if not names:
        return sp.csr_matrix((len(items[recipe.item_id]), 0), dtype=np.float32)
    firsts = [FIRST_OOV + recipe.vocabulary_rule(name).oov_buckets for name in names]
    return multi_hot([items[name] for name in names], firsts)
