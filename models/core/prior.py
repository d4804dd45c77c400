"""Recent popularity as one more dimension of the dot product.

Where data is split at one time for all users, what was popular last week beats learned models
(Ji et al. 2020). A prior β·z(log decayed count) on the items' side, with 1 on the queries', puts it
into any dot-product index; β and the decay are chosen on the validation part, 0 among the choices.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from models.core.fields import Part, PositiveFloat
from models.core.retriever import Interactions

_DAY = 86_400.0  # seconds
_FLOOR = 1e-3  # of a decayed count: an item that nobody touched is not at minus infinity


class PriorConfig(Part, frozen=True):
    """Recent popularity as a part of the item bias, chosen on the validation part.

    Attributes:
        days: decays to try: the age at which an interaction weighs 1/e.
        weights: strengths to try; no prior is tried as well.
    """

    days: Annotated[tuple[PositiveFloat, ...], Meta(max_length=100)] = (3.0, 7.0, 14.0)
    weights: Annotated[tuple[PositiveFloat, ...], Meta(max_length=100)] = (
        *(0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0),
    )


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
