"""Apply the memory limit of etl: refuse data that cannot fit, and choose the size of blocks."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import pyarrow as pa
from dask.utils import format_bytes, parse_bytes
from distributed.system import MEMORY_LIMIT

from workflows.ground.errors import DataError, RecipeError

#: Largest number of copies of a row in memory: the raw row, the sorted row, the row of a part.
_COPIES = 3
#: Share of the limit that a block of rows with its results may take.
_SHARE = 1 / 16
#: Number of bytes of cells up to which a log is one partition, in memory: partitions on disk take
#: nearly twice the processor time where rows have many columns.
WHOLE = 1 << 30
#: Number of bytes of cells of a partition of a larger log. Both are fixed, so that the number of
#: partitions, and with it the bytes that etl writes, depend on the raw files alone.
PARTITION = 128 << 20
#: Largest number of partitions; their numbers are uint16.
_MOST = 1 << 15


def count_partitions(cells: float) -> int:
    """Return the number of partitions of a log whose cells take about that many bytes."""
    if cells <= WHOLE:
        return 1
    return min(_MOST, max(1, round(cells / PARTITION)))


@dataclass(frozen=True)
class Memory:
    """The memory limit of etl: how many bytes the rows that are read and encoded may take.

    Attributes:
        limit: number of bytes of memory that etl may take.
        wider: number of bytes by which joins and derived columns lengthen a row of the log.
    """

    limit: int
    wider: int = 0

    @classmethod
    def of(cls, text: str = "") -> Memory:
        """Parse a limit such as 8GiB; an empty text means half of the machine or container.

        Raises:
            RecipeError: the text is not a number of bytes.
        """
        if not text:
            return cls(MEMORY_LIMIT // 2)
        return cls(parse_size(text, "--memory-limit"))

    def refuse(self, where: str, rows: int, row: float) -> None:
        """Raise an error if the rows of a raw file or source do not fit into the memory limit.

        Args:
            where: name of the file or source, for the message.
            rows: number of rows of the file or source.
            row: bytes that a row takes in memory after it is read.

        Raises:
            DataError: the rows do not fit; the message states the estimate.
        """
        need = int(rows * (row + self.wider) * _COPIES)
        if need > self.limit:
            raise DataError(
                f"{where} needs about {format_bytes(need)} of memory ({rows:,} rows of "
                f"{row + self.wider:.0f} bytes, up to {_COPIES} times), and the limit is "
                f"{format_bytes(self.limit)}. Raise --memory-limit if the machine has more, leave "
                "columns out of the recipe, or read fewer files."
            )

    def jobs(self, most: int, each: float) -> int:
        """Return how many jobs may run at a time, at least 1.

        Args:
            most: number of workers.
            each: bytes of the rows that a job holds, which it copies.
        """
        return max(1, min(most, int(self.limit // max(1, each * _COPIES))))

    def rows(self, row: float, *, least: int, most: int) -> int:
        """Return how many rows to process at a time to use a fixed share of the memory limit.

        Args:
            row: bytes that a row takes in memory, with the columns that are computed from it.
            least, most: lower and upper limit of the number of rows.
        """
        return int(min(most, max(least, self.limit * _SHARE // max(row, 1))))


def release_unused() -> None:
    """Return memory that was freed, but is kept for later use, to the operating system."""
    pa.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # only the GNU C library has it
    if trim is not None:
        trim(0)


def parse_size(text: str, option: str) -> int:
    """Parse a number of bytes such as 8GiB, 64MB or 1048576.

    Args:
        text: the text to parse.
        option: name of the option, for the message.

    Raises:
        RecipeError: the text is not a number of bytes, or the number is below 1.
    """
    try:
        size = int(parse_bytes(text))
    except ValueError:
        size = 0
    if size < 1:
        raise RecipeError(f"{option} is {text!r}; expected a number of bytes such as 8GiB.")
    return size
