"""Some users with the end of their history beside what they are recommended."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.core.retriever import Ints
from workflows.report.finished import Finished

N_USERS, N_LATEST, N_RECOMMENDED = 20, 10, 10


@dataclass(frozen=True)
class Example:
    """A user of the test part.

    Attributes:
        user: his row.
        n_earlier: interactions before the test part.
        latest: item rows of the last of them, the latest first.
        recommended: item rows of his list, the best first.
        withheld: item rows of his test part; -1 is an item of no table.
    """

    user: int
    n_earlier: int
    latest: Ints
    recommended: Ints
    withheld: Ints

    @property
    def hits(self) -> int:
        """How many of the recommended items were withheld."""
        return int(np.isin(self.recommended, self.withheld).sum())


def examples(finished: Finished) -> list[Example]:
    """Return one user of each twentieth of the test users in order of history length, by seed.

    They are asked under the rules of the evaluation.
    """
    trial = finished.trial
    known = np.flatnonzero(trial.queries.users >= 0)
    lengths = trial.queries.histories.lengths
    in_order = known[np.argsort(lengths[known], kind="stable")]
    rng = np.random.default_rng(finished.recipe.evaluate.seed)
    bands = [band for band in np.array_split(in_order, N_USERS) if len(band)]
    chosen = trial.take(np.array([rng.choice(band) for band in bands], np.int64))
    lists = chosen.ask(finished.tower, N_RECOMMENDED).items
    return [
        Example(
            user=int(chosen.queries.users[i]),
            n_earlier=len(chosen.queries.histories[i]),
            latest=chosen.queries.histories[i][::-1][:N_LATEST],
            recommended=lists[i][lists[i] >= 0],
            withheld=chosen.targets[i],
        )
        for i in range(len(chosen.queries))
    ]
