"""Count the interactions that etl drops, by the cause (such as a filter rule or a missing id)."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc


@dataclass
class DropCounts:
    """Counts of the interactions that etl drops, and of those that a join does not match.

    Attributes:
        dropped: cause → number of interactions that were dropped for this cause.
        unmatched: joined table → number of interactions whose id is not in this table.
    """

    dropped: dict[str, int] = field(default_factory=dict)
    unmatched: dict[str, int] = field(default_factory=dict)

    def keep(self, table: pa.Table, mask: pa.Array | pa.ChunkedArray, cause: str) -> pa.Table:
        """Return the interactions where a mask is true, and count the others as dropped."""
        if pc.all(pc.fill_null(mask, False), min_count=0).as_py():
            kept = table  # without a copy
        else:
            kept = table.filter(mask)
        self.add(cause, len(table) - len(kept))
        return kept

    def describe_drops(self) -> str:
        """Return a sentence about the dropped interactions; empty if there are none."""
        causes = {cause: n for cause, n in self.dropped.items() if n}
        shown = ", ".join(f"{cause} ({n:,})" for cause, n in causes.items())
        return f"{sum(causes.values()):,} rows were dropped before: {shown}." if causes else ""

    def add(self, cause: str, n: int) -> None:
        """Add n to the number of interactions that were dropped for a cause."""
        self.dropped[cause] = self.dropped.get(cause, 0) + n

    def merge(self, other: DropCounts) -> None:
        """Add the counts of another part of the interactions."""
        for cause, n in other.dropped.items():
            self.add(cause, n)
        for table, n in other.unmatched.items():
            self.unmatched[table] = self.unmatched.get(table, 0) + n
