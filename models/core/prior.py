"""A prior for recent popularity, as one more dimension of the dot product.

If data is split at one time for all users, the items that were popular last week can beat learned
models (Ji et al. 2020). The prior β·z(log decayed count), where z standardises, is one more
dimension of the item embeddings; in query embeddings this dimension is 1. Therefore any dot-product
index can hold the prior. β and the decay are chosen on the validation part; β = 0 is one of the
choices.
"""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from models.core.config import PriorConfig
from models.core.retriever import Interactions

_DAY = 86_400.0  # seconds
_FLOOR = 1e-3  # added to each decayed count, so that the logarithm of a count of 0 is finite


class Prior(msgspec.Struct, frozen=True):
    """The popularity prior that was chosen on the validation part.

    Attributes:
        days: the age at which an interaction weighs 1/e; None: all interactions weigh the same.
        weight: the factor β of the prior; 0 means no prior.
    """

    days: float | None
    weight: float

    def scores(self, history: Interactions) -> npt.NDArray[np.float32]:
        """Return each item's popularity prior at the time of the last interaction, float32."""
        if self.weight == 0 or (self.days is not None and history.times is None):
            return np.zeros(history.n_items, np.float32)
        logs = np.log(decayed_counts(history, self.days) + _FLOOR)
        return (self.weight * (logs - logs.mean()) / max(logs.std(), 1e-9)).astype(np.float32)


def decayed_counts(history: Interactions, days: float | None) -> npt.NDArray[np.float64]:
    """Return the number of interactions of each item, float64 [n_items]; older ones count less.

    Args:
        history: the interactions; items that are not in the item table are ignored.
        days: the age, before the last interaction, at which an interaction counts 1/e; with None,
            or if the interactions have no times, each interaction counts 1.
    """
    if days is None or history.times is None or not len(history.times):
        return history.item_counts().astype(np.float64)
    weights = np.exp(-(history.times.max() - history.times) / _DAY / days)
    known = history.items >= 0
    counts = np.bincount(history.items[known], weights[known], minlength=history.n_items)
    return np.asarray(counts, np.float64)


def grid(config: PriorConfig) -> list[Prior]:
    """Return the popularity priors to choose from; the first one, of factor 0, is no prior."""
    tried = [Prior(days, weight) for days in config.days for weight in config.weights]
    return [Prior(config.days[0], 0.0), *tried]
