"""Count how many interactions have each time, or each span of time if there are many times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class TimeCounts:
    """How many interactions lie in each span of time, of those spans that have some.

    Attributes:
        starts: the earliest time of an interaction in each span, rising, int64 [n].
        counts: number of interactions in each span, int64 [n].
        width: length of a span in seconds; spans begin at multiples of it.
    """

    starts: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    width: int = 1

    @classmethod
    def of(cls, times: npt.NDArray[np.int64], most: int | None = None) -> TimeCounts:
        """Count times.

        Args:
            times: time of each interaction in seconds, int64 [n], rising.
            most: greatest number of spans; None for a span per time.
        """
        new = np.flatnonzero(np.concatenate([[True], times[1:] != times[:-1]])[: len(times)])
        found = cls(times[new], np.diff(np.append(new, len(times))))
        while most is not None and len(found.starts) > most:
            found = found.coarsen(found.width * 4)
        return found

    def coarsen(self, width: int) -> TimeCounts:
        """Return the counts of longer spans, whose length is a multiple of the length here."""
        if width == self.width:
            return self
        return self._join(width)

    @classmethod
    def merge(cls, some: Sequence[TimeCounts]) -> TimeCounts:
        """Add up the counts of several partitions, in spans of the greatest length of them."""
        width = max(of.width for of in some)
        if len(some) == 1:
            return some[0]
        of_width = [of.coarsen(width) for of in some]
        starts = np.concatenate([of.starts for of in of_width])
        counts = np.concatenate([of.counts for of in of_width])
        order = np.argsort(starts, kind="stable")
        return cls(starts[order], counts[order])._join(width)

    def _join(self, width: int) -> TimeCounts:
        """Merge neighbours of one span."""
        numbers = self.starts // width
        if not len(numbers):
            return TimeCounts(self.starts, self.counts, width)
        new = np.flatnonzero(np.concatenate([[True], numbers[1:] != numbers[:-1]]))
        return TimeCounts(self.starts[new], np.add.reduceat(self.counts, new), width)

    def within(self, spans: Sequence[tuple[int, int]]) -> TimeCounts:
        """Return the counts in some spans alone: first second, and the second after the last."""
        chosen = np.zeros(len(self.starts), bool)
        for first, after in spans:
            chosen |= (self.starts >= first) & (self.starts < after)
        return TimeCounts(self.starts[chosen], self.counts[chosen], self.width)

    def refine(self, finer: TimeCounts) -> TimeCounts:
        """Replace spans by the times in them, as far as `finer` has them."""
        kept = ~np.isin(self.starts // self.width, finer.starts // self.width)
        starts = np.concatenate([self.starts[kept], finer.starts])
        counts = np.concatenate([self.counts[kept], finer.counts])
        order = np.argsort(starts)
        return TimeCounts(starts[order], counts[order], self.width)
