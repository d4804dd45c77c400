"""What a campaign counts: what was tried, what survived, and a line for each loss."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Tally:
    """The outcome of a campaign.

    Attributes:
        campaign: its name.
        tried: cases.
        survived: cases without a loss.
        losses: a line for each loss; a case can have several.
        seen: what happened → how often, to show that the campaign reached what it is about.
        is_control: losses are what it is for.
        began: on the monotonic clock.
        seconds: in all, once it is finished.
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
        """Count a case with its faults, and what was seen."""
        self.tried += 1
        self.survived += not faults
        self.losses += [f"{case}: {fault}" for fault in faults]
        for fault in () if self.is_control else faults:  # told at once: it can take an hour
            print(f"lost: {self.campaign}: {case}: {fault}", file=sys.stderr, flush=True)
        for what in seen:
            self.seen[what] = self.seen.get(what, 0) + 1

    def finished(self) -> Tally:
        """Note the time, and return the tally."""
        self.seconds = round(time.monotonic() - self.began, 1)
        return self
