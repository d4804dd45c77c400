"""The exchange of numbers between the processes (ranks) of one training: protocol, one process.

In a training by N ranks, each rank has all weights and takes a share of the rows of each batch. The
ranks exchange what the loss compares, add up their gradients, and make the same step. Whatever
exchanges numbers gets a `Collectives`; in a training by one process, it is `ALONE`, whose functions
return what they get, so that one process and several run the same code.

The protocol has no TensorFlow: `models.training.collectives` implements it for several processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np

from models.core.retriever import Ints

#: A tensor of TensorFlow; gradients may be IndexedSlices.
Tensor: TypeAlias = Any


@dataclass(frozen=True)
class Share:
    """The share of one rank in lists that all ranks have: a run of elements, in the order of ranks.

    Attributes:
        rank: the number of this rank, from 0.
        size: number of ranks.
    """

    rank: int = 0
    size: int = 1

    def of(self, n: int) -> slice:
        """Return the share of n elements; the shares of two ranks differ by one element at most."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def of_lists(self, lengths: Ints) -> slice:
        """Return the share of lists, such that the ranks have about equally many elements."""
        middles = np.cumsum(lengths) - lengths / 2
        total = lengths.sum() / self.size
        start, stop = np.searchsorted(middles, [total * self.rank, total * (self.rank + 1)])
        return slice(int(start), int(stop) if self.rank + 1 < self.size else len(lengths))


class RankLostError(Exception):
    """Another rank of the training ended, or no longer answers."""


class Gathered(NamedTuple):
    """The rows of all ranks.

    Attributes:
        values: the rows of rank 0, then those of rank 1, and so on, [n, …].
        start: the number of this rank's first row among them.
    """

    values: Tensor
    start: Tensor


class Collectives(Protocol):
    """The protocol of the exchange between ranks; each function must be called by all ranks.

    Attributes:
        share: the number of this rank, and the number of ranks.
    """

    share: Share

    def begin(self) -> None:
        """Begin a training, before its step is traced; call it once for each training."""

    def total(self, tensor: Tensor) -> Tensor:
        """Return the sum of a tensor of all ranks; its gradient for the own tensor is 1."""

    def gather(self, rows: Tensor) -> Gathered:
        """Return the rows of all ranks.

        The gradient of a row is the sum of the gradients that the ranks have for it.
        """

    def exchange(self, gradients: Sequence[tuple[Tensor, Any]]) -> list[tuple[Tensor, Any]]:
        """Return the sum of the ranks' gradients for each variable; sparse ones stay sparse.

        Args:
            gradients: pairs of a gradient, which may be None, and its variable.
        """

    def share_out(self, array: np.ndarray) -> np.ndarray:
        """Return the array of rank 0, on all ranks; the arrays have equal shapes and types."""

    def collect(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows of all ranks, in the order of ranks, on all ranks."""


class Alone:
    """The exchange in a training by one process: each function returns what it gets."""

    share = Share()

    def begin(self) -> None:
        """Do nothing."""

    def total(self, tensor: Tensor) -> Tensor:
        """Return the tensor itself."""
        return tensor

    def gather(self, rows: Tensor) -> Gathered:
        """Return the rows themselves."""
        return Gathered(rows, 0)

    def exchange(self, gradients: Sequence[tuple[Tensor, Any]]) -> list[tuple[Tensor, Any]]:
        """Return the gradients themselves."""
        return list(gradients)

    def share_out(self, array: np.ndarray) -> np.ndarray:
        """Return the array itself."""
        return array

    def collect(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows themselves."""
        return rows


#: The exchange in a training by one process.
ALONE = Alone()
