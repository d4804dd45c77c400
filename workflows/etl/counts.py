"""What became of the interactions on the way: how many were dropped, and why."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc


@dataclass
class Counts:
    """What was dropped on the way, by cause.

    Attributes:
        dropped: cause → interactions.
        unmatched: joined table → interactions whose id is not in it.
    """

    dropped: dict[str, int] = field(default_factory=dict)
    unmatched: dict[str, int] = field(default_factory=dict)

    def kept(self, table: pa.Table, keep: pa.Array | pa.ChunkedArray, cause: str) -> pa.Table:
        """Return the rows that are kept (a null keeps none), and count the others."""
        if pc.all(pc.fill_null(keep, False), min_count=0).as_py():
            kept = table  # and no copy of it
        else:
            kept = table.filter(keep)
        self.count(cause, len(table) - len(kept))
        return kept

    def told(self) -> str:
        """Return a sentence on the interactions that were dropped; nothing if none were."""
        causes = {cause: n for cause, n in self.dropped.items() if n}
        shown = ", ".join(f"{cause} ({n:,})" for cause, n in causes.items())
        return f"{sum(causes.values()):,} rows were dropped before: {shown}." if causes else ""

    def count(self, cause: str, n: int) -> None:
        self.dropped[cause] = self.dropped.get(cause, 0) + n
