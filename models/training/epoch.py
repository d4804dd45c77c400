"""The figures of one epoch of a fit."""

from __future__ import annotations

import msgspec

#: The mean of `models.core.evaluation_set.SELECTION_METRICS`.
VAL_MEAN = "val_mean"


class Epoch(msgspec.Struct, frozen=True, omit_defaults=True):
    """The figures of one epoch.

    Attributes:
        epoch: number, from 0.
        metrics: name → value.
        seconds: wall time, validation included; 0 where it was not kept.
    """

    epoch: int
    metrics: dict[str, float]
    seconds: float = 0.0
