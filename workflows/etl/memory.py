"""How much memory etl may take: what cannot fit is refused, what can is done in blocks that do."""

from __future__ import annotations

from dataclasses import dataclass

from dask.utils import format_bytes, parse_bytes
from distributed.system import MEMORY_LIMIT

from workflows.ground.errors import DataError, RecipeError

#: A row as codes is in memory so many times at the worst moment: as read, in order, in its part.
_COPIES = 3
#: A block of rows with all that is made of it may take this share of the limit.
_SHARE = 1 / 16


@dataclass(frozen=True)
class Memory:
    """A limit.

    Attributes:
        limit: bytes.
        wider: bytes by which joins and derived columns make a row of the log wider.
    """

    limit: int
    wider: int = 0

    @classmethod
    def of(cls, text: str = "") -> Memory:
        """Parse a limit such as 8GiB; without one it is half of what machine or container have.

        Raises:
            RecipeError: it is no number of bytes.
        """
        if not text:
            return cls(MEMORY_LIMIT // 2)
        return cls(parsed(text, "--memory-limit"))

    def refuse(self, where: str, rows: int, row: float) -> None:
        """Refuse rows that do not fit.

        Args:
            where: names them.
            rows: how many.
            row: bytes of one as it is read.

        Raises:
            DataError: with the estimate.
        """
        need = int(rows * (row + self.wider) * _COPIES)
        if need > self.limit:
            raise DataError(
                f"{where} needs about {format_bytes(need)} of memory ({rows:,} rows of "
                f"{row + self.wider:.0f} bytes as codes, up to {_COPIES} times), and the limit is "
                f"{format_bytes(self.limit)}. Raise --memory-limit if the machine has more, leave "
                "columns out of the recipe, or read fewer files."
            )

    def rows(self, row: float, *, least: int, most: int) -> int:
        """Return how many rows of so many bytes make a block."""
        return int(min(most, max(least, self.limit * _SHARE // max(row, 1))))


def parsed(text: str, option: str) -> int:
    """Parse a number of bytes such as 8GiB, 64MB or 1048576.

    Raises:
        RecipeError: it is none, or below 1.
    """
    try:
        size = int(parse_bytes(text))
    except ValueError:
        size = 0
    if size < 1:
        raise RecipeError(f"{option} is {text!r}; expected a number of bytes such as 8GiB.")
    return size
