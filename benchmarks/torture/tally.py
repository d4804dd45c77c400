"""Counts of a campaign: cases, survived cases, and a line for each loss."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Tally:
    """Result of a campaign.

    Attributes:
        campaign: name of the campaign.
        tried: number of cases.
        survived: number of cases without a loss.
        losses: a line for each loss; a case can have several.
        seen: event → number of times, which shows that the campaign did what it should.
        is_control: whether losses are expected.
        began: start on the monotonic clock.
        seconds: duration, once it is finished.
    """

    campaign: str
    tried: int = 0
    survived: int = 0
    losses: list[str] = field(default_factory=list)
    seen: dict[str, int] = field(default_factory=dict)
    is_control: bool = False
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0

    def count(self, case: str, faults: Sequence[str], *seen: str) -> None:
        """Count a case with its losses and events."""
        self.tried += 1
        self.survived += not faults
        self.losses += [f"{case}: {fault}" for fault in faults]
        # printed at once, as a campaign can take an hour
        for fault in () if self.is_control else faults:
            print(f"lost: {self.campaign}: {case}: {fault}", file=sys.stderr, flush=True)
        for what in seen:
            self.seen[what] = self.seen.get(what, 0) + 1

    def finished(self) -> Tally:
        """Set the duration, and return the tally."""
        self.seconds = round(time.monotonic() - self.began, 1)
        return self
