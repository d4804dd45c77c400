"""Scales of a chart: from values to places, and round values to write beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Numbers = npt.NDArray[np.number] | Sequence[float]


@dataclass(frozen=True)
class Axis:
    """A scale.

    Attributes:
        label: what it measures, with its unit.
        low: where it begins.
        high: where it ends.
        log: on a logarithmic scale.
        whole: its values are whole numbers.
    """

    label: str
    low: float
    high: float
    log: bool = False
    whole: bool = False

    @classmethod
    def around(
        cls,
        label: str,
        values: Numbers,
        *,
        log: bool = False,
        zero: bool = False,
        whole: bool = False,
    ) -> Axis:
        """Return the scale that holds all values with some room around them.

        Args:
            label: what it measures.
            values: at least one; above 0 for a logarithmic scale.
            log: on a logarithmic scale.
            zero: hold 0 too, without room beyond it.
            whole: the values are whole numbers.
        """
        low, high = float(np.min(values)), float(np.max(values))
        if log:
            room = max((high / low) ** 0.04, 1.1)
            return cls(label, low / room, high * room, log, whole)
        if zero:
            low, high = min(low, 0.0), max(high, 0.0)
        room = 0.05 * (high - low) or 0.05 * max(abs(high), 1.0)
        if whole and not zero:
            room = max(0.5, room / 5)
        below, above = (low != 0 or not zero), (high != 0 or not zero or low == 0)
        return cls(label, low - room * below, high + room * above, log, whole)

    def place(self, values: Numbers) -> Floats:
        """Return values as shares of the way from low to high, float64 [n]."""
        at, low, high = np.asarray(values, np.float64), self.low, self.high
        if self.log:
            at, low, high = np.log(at), math.log(low), math.log(high)
        return (at - low) / (high - low)

    def ticks(self) -> list[float]:
        """Return round values on the scale."""
        ticks = self._of_decades() if self.log else []
        return ticks if len(ticks) > 1 else self._evenly()

    def _evenly(self) -> list[float]:
        rough = (self.high - self.low) / 7
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough * 0.999)
        if self.whole:
            step = max(1.0, step)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]

    def _of_decades(self) -> list[float]:
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        factors = (1,) if self.high / self.low > 100 else (1, 2, 5)
        values = [factor * 10.0**decade for decade in decades for factor in factors]
        return [v for v in values if self.low <= v <= self.high]
