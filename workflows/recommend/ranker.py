"""Re-ranks the retrieved items by a ranker: a Python function that the user of this package wrote.

The ranker is named on the command line, `--ranker shop.ranking:score` or
`--ranker ranking.py:score`, and not in the recipe, which contains data and never code.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.core import atomic
from models.core.retriever import Ints
from workflows.derive.given import add_derived
from workflows.ground.column_names import RANK, RANKER_SCORE
from workflows.ground.errors import DataError
from workflows.recommend.shards import ListBatch
from workflows.stages.recommender import Answers, ListOptions, Recommender
from workflows.stages.user_features import Users, overlay_given


@dataclass(frozen=True)
class Ranker:
    """A Python function, written by the user of this package, that re-ranks retrieved items.

    Attributes:
        name: the name of the function on the command line.
        score: the function. It takes a table with one row per candidate (the columns of a list, and
            raw feature values of item and user), and returns one number per row; the largest comes
            first.
        candidates: how many items are retrieved for each list.
    """

    name: str
    score: Callable[[pa.Table], npt.ArrayLike]
    candidates: int = 500

    @classmethod
    def from_name(cls, name: str, *, candidates: int = 500) -> Ranker:
        """Import a Python function, given its name, and return it as a ranker.

        Args:
            name: `module:function` or `file.py:function`.
            candidates: how many items are retrieved for each list.

        Raises:
            DataError: the function cannot be imported.
        """
        module, colon, function = name.partition(":")
        if not colon or not module or not function:
            raise DataError(f"--ranker {name!r}: expected module:function or file.py:function.")
        try:
            score = getattr(_imported(module), function)
        except Exception as error:  # a module may raise anything
            raise DataError(
                f"--ranker {name!r} cannot be loaded: {type(error).__name__}: {error}."
            ) from error
        if not callable(score):
            raise DataError(f"--ranker {name!r} is {score!r}, which cannot be called.")
        return cls(name, score, candidates)

    @property
    def digest(self) -> str:
        """SHA-256 of the file that defines the ranker's function; its name if it has no file."""
        module = self.name.partition(":")[0]
        if module.endswith(".py"):
            return atomic.sha256(Path(module))
        file = getattr(sys.modules.get(self.score.__module__), "__file__", None)
        return atomic.sha256(Path(file)) if file else self.name

    def lists(
        self,
        recommender: Recommender,
        users: Users,
        options: ListOptions,
        given: pa.Table | None,
        rows: Ints | None = None,
    ) -> ListBatch:
        """Return users' lists in the ranker's order and with its scores.

        Args:
            recommender: the recommender that makes the lists of retrieved items.
            users, options, given, rows: as in `Recommender.rank`.

        Raises:
            DataError: the function does not return one number per candidate.
        """
        retrieved = replace(options, k=max(options.k, self.candidates))
        answers = recommender.rank(users, retrieved, given, rows)
        table = recommender.table(answers)
        scores = self._scores(with_features(recommender, answers, table, given))
        owners = np.nonzero(answers.top.items >= 0)[0]
        ranks = table[RANK].to_numpy()
        order = np.lexsort((ranks, -scores, owners))  # ties stay in the order of retrieval
        places = np.arange(len(owners)) - np.searchsorted(owners, owners)
        kept = places < options.k  # owners rise, so places are those of the new order, too
        table = table.append_column(RANKER_SCORE, pa.array(scores)).take(pa.array(order[kept]))
        rank = pa.array((places[kept] + 1).astype(np.int32))
        table = table.set_column(table.column_names.index(RANK), RANK, rank)
        return ListBatch.of(answers, table, options.k)

    def _scores(self, candidates: pa.Table) -> npt.NDArray[np.float64]:
        given: Any = self.score(candidates)
        try:
            scores = np.asarray(given, np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(f"--ranker {self.name!r} gives no numbers: {error}.") from None
        if scores.shape != (len(candidates),) or np.isnan(scores).any():
            raise DataError(
                f"--ranker {self.name!r}: expected {len(candidates)} numbers, one a row of the "
                f"table, got shape {scores.shape} with {int(np.isnan(scores).sum())} NaN."
            )
        return scores


def with_features(
    recommender: Recommender, answers: Answers, table: pa.Table, given: pa.Table | None
) -> pa.Table:
    """Add the raw feature values of items and users to a table of recommendation lists.

    Args:
        recommender: the recommender that made the lists.
        answers: the lists as row numbers in the item table.
        table: the same lists, one row per rank.
        given: raw values of the users in the request; None if it has none.
    """
    owners, places = np.nonzero(answers.top.items >= 0)
    items = recommender.catalogue.items.take(pa.array(answers.top.items[owners, places]))
    recipe, export = recommender.recipe, recommender.export
    columns = recipe.columns("user", "context")
    if given is not None:
        given = add_derived(given, recipe, export.states, "raw values")
    users = overlay_given(export, answers.rows, given, columns).take(pa.array(owners))
    for more in (items, users):
        for name in more.column_names:
            if name not in table.column_names:
                table = table.append_column(name, more[name])
    return table


def _imported(module: str) -> ModuleType:
    if not module.endswith(".py"):
        if str(Path.cwd()) not in sys.path:  # the command `two-tower` does not look there
            sys.path.insert(0, str(Path.cwd()))
        return importlib.import_module(module)
    spec = importlib.util.spec_from_file_location(Path(module).stem, module)
    if spec is None or spec.loader is None:
        raise ImportError(f"{module} is not a Python file")
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made
    spec.loader.exec_module(made)
    return made
