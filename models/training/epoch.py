"""The metrics and the duration of one training epoch."""

from __future__ import annotations

import msgspec

#: The mean of `models.core.evaluation_set.SELECTION_METRICS`.
VAL_MEAN = "val_mean"


class Epoch(msgspec.Struct, frozen=True, omit_defaults=True):
    """The metrics and the duration of one training epoch.

    Attributes:
        epoch: the number of the epoch, from 0.
        metrics: name of a metric → its value.
        seconds: wall time, including validation; 0 if it was not recorded.
    """

    epoch: int
    metrics: dict[str, float]
    seconds: float = 0.0
