"""Recent popularity as one more dimension of the dot product.

Where data is split at one time for all users, what was popular last week beats learned models
(Ji et al. 2020). A prior β·z(log decayed count) on the items' side, with 1 on the queries', puts it
into any dot-product index; β and the decay are chosen on the validation part, 0 among the choices.
"""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from models.config import PriorConfig
from models.core.retriever import Interactions

_DAY = 86_400.0  # seconds
_FLOOR = 1e-3  # of a decayed count: an item that nobody touched is not at minus infinity


class Prior(msgspec.Struct, frozen=True):
    """The chosen prior.

    Attributes:
        days: the age at which an interaction weighs 1/e; None lets all weigh the same.
        weight: β; 0 is no prior.
    """

    days: float | None
    weight: float

    def scores(self, history: Interactions) -> npt.NDArray[np.float32]:
        """Return what each item gets, float32 [n_items], as of the end of a history."""
        if self.weight == 0 or (self.days is not None and history.times is None):
            return np.zeros(history.n_items, np.float32)
        known = history.items >= 0
        counts = np.bincount(
            history.items[known], self._weights(history)[known], minlength=history.n_items
        )
        logs = np.log(counts + _FLOOR)
        return (self.weight * (logs - logs.mean()) / max(logs.std(), 1e-9)).astype(np.float32)

    def _weights(self, history: Interactions) -> npt.NDArray[np.float64]:
        if self.days is None or history.times is None:
            return np.ones(len(history.items))
        return np.exp(-(history.times[-1] - history.times) / _DAY / self.days)


def grid(config: PriorConfig) -> list[Prior]:
    """Return the priors to choose from, none first."""
    tried = [Prior(days, weight) for days in config.days for weight in config.weights]
    return [Prior(config.days[0], 0.0), *tried]
