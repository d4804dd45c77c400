"""The hook for a ranker: a function of yours puts the items that were retrieved into another order.

It is named on the command line, `--ranker shop.ranking:score` or `--ranker ranking.py:score`; a
recipe holds data, never code.
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
from workflows.ground.errors import DataError
from workflows.recommend.shards import Listed
from workflows.stages.export import Answers, Export, Users, Wish

SCORE = "ranker_score"


@dataclass(frozen=True)
class Ranker:
    """A function that scores candidates, and how many it is given.

    Attributes:
        name: as it was given.
        score: takes a table, a row a candidate: the columns of a list, the item's and the user's
            readable features. It returns a number for each; the largest comes first.
        candidates: items retrieved for a list.
    """

    name: str
    score: Callable[[pa.Table], npt.ArrayLike]
    candidates: int = 500

    @classmethod
    def load(cls, name: str, *, candidates: int = 500) -> Ranker:
        """Import a function.

        Args:
            name: `module:function` or `file.py:function`.
            candidates: items retrieved for a list.

        Raises:
            DataError: there is none.
        """
        module, colon, function = name.partition(":")
        if not colon or not module or not function:
            raise DataError(f"--ranker {name!r}: expected module:function or file.py:function.")
        try:
            score = getattr(_imported(module), function)
        except Exception as error:  # whatever a file of somebody's does
            raise DataError(
                f"--ranker {name!r} cannot be loaded: {type(error).__name__}: {error}."
            ) from error
        if not callable(score):
            raise DataError(f"--ranker {name!r} is {score!r}, which cannot be called.")
        return cls(name, score, candidates)

    @property
    def digest(self) -> str:
        """SHA-256 of the file that was named, or the function stands in; its name without one."""
        module = self.name.partition(":")[0]
        if module.endswith(".py"):
            return atomic.sha256(Path(module))
        file = getattr(sys.modules.get(self.score.__module__), "__file__", None)
        return atomic.sha256(Path(file)) if file else self.name

    def lists(self, export: Export, users: Users, wish: Wish, told: pa.Table | None) -> Listed:
        """Return users' lists in the ranker's order and with its scores.

        Raises:
            DataError: it does not give a number for each candidate.
        """
        answers = export.ask(users, replace(wish, k=max(wish.k, self.candidates)), told)
        table = export.table(answers)
        scores = self._scores(with_features(export, answers, table, told))
        owners = np.nonzero(answers.top.items >= 0)[0]
        ranks = table["rank"].to_numpy()
        order = np.lexsort((ranks, -scores, owners))  # what ties stays in the order of retrieval
        places = np.arange(len(owners)) - np.searchsorted(owners, owners)
        kept = places < wish.k  # owners rise, so places are those of the new order, too
        table = table.append_column(SCORE, pa.array(scores)).take(pa.array(order[kept]))
        rank = pa.array((places[kept] + 1).astype(np.int32))
        table = table.set_column(table.column_names.index("rank"), "rank", rank)
        return Listed.of(answers, table, wish.k)

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
    export: Export, answers: Answers, table: pa.Table, told: pa.Table | None
) -> pa.Table:
    """Return a table of lists with the readable features of its items and users.

    Args:
        export: the export that answered.
        answers: of which the table was made.
        table: a row a rank.
        told: raw values of the users, if any were told.
    """
    owners, places = np.nonzero(answers.top.items >= 0)
    items = export.items.take(pa.array(answers.top.items[owners, places]))
    columns = export.recipe.columns("user", "context")
    users = export.about(export.rows_of_users(answers.users), told, columns).take(pa.array(owners))
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
        raise ImportError(f"{module} is no Python file")
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made
    spec.loader.exec_module(made)
    return made
