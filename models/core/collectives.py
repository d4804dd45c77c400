"""The protocol by which the processes of a distributed training exchange numbers.

Each process of a training, called a rank and numbered from 0, has all weights and takes a share of
the rows of each batch. The processes exchange the items with which the loss compares, add up their
gradients, and make the same step. All code that exchanges numbers takes a `Collectives`. A training
by one process uses `ALONE`, whose methods return their arguments, so that one process and several
run the same code.

The protocol does not import TensorFlow: `models.training.collectives` implements it for several
processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np

#: A tensor of TensorFlow; gradients may be IndexedSlices.
Tensor: TypeAlias = Any


@dataclass(frozen=True)
class Share:
    """The part of a list that one process of a training works on; processes take consecutive parts.

    Attributes:
        rank: the number of this process, from 0.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    def of(self, n: int | Tensor) -> slice:
        """Return this process's part of n elements; the parts differ by one element at most."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)


class RankLostError(Exception):
    """Another process of the training has ended, or does not answer any more."""


class Gathered(NamedTuple):
    """The rows of a tensor that all processes of a training have given.

    Attributes:
        values: the rows of process 0, then those of process 1, and so on, [n, …].
        start: the index in `values` of the first row of this process.
    """

    values: Tensor
    start: Tensor


class Collectives(Protocol):
    """The protocol of exchanges between the processes of a training.

    Each method must be called by all processes, and waits for them.

    Attributes:
        share: the number of this process, and the number of processes.
    """

    share: Share

    def begin(self) -> None:
        """Begin a training, before its step is traced; each process calls this once a training."""

    def total(self, tensor: Tensor) -> Tensor:
        """Return the sum of the tensors of all processes; its gradient for each of them is 1."""

    def gather(self, rows: Tensor) -> Gathered:
        """Return the rows that all processes give, on each process.

        The gradient of a row is the sum of its gradients in all processes.
        """

    def exchange(self, gradients: Sequence[tuple[Tensor, Any]]) -> list[tuple[Tensor, Any]]:
        """Return each variable's gradient, summed over processes; sparse gradients stay sparse.

        Args:
            gradients: pairs of a gradient, which may be None, and its variable.
        """

    def share_out(self, array: np.ndarray) -> np.ndarray:
        """Return the array of process 0; the arrays of all processes have one shape and type."""

    def collect(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows that all processes give, in the order of their numbers."""


class Alone:
    """The exchange in a training by one process: each method returns its argument."""

    share = Share()

    def begin(self) -> None:
        """Do nothing, because one process has nothing to exchange."""

    def total(self, tensor: Tensor) -> Tensor:
        """Return the tensor itself, which is the sum over one process."""
        return tensor

    def gather(self, rows: Tensor) -> Gathered:
        """Return the rows of this process, which are all rows."""
        return Gathered(rows, 0)

    def exchange(self, gradients: Sequence[tuple[Tensor, Any]]) -> list[tuple[Tensor, Any]]:
        """Return the gradients of this process, which are all gradients."""
        return list(gradients)

    def share_out(self, array: np.ndarray) -> np.ndarray:
        """Return the array of this process, the only one."""
        return array

    def collect(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows of this process, which are all rows."""
        return rows


#: The exchange in a training by one process.
ALONE = Alone()
