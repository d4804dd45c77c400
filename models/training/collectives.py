"""The exchange between the ranks of a training, by the collective operations of TensorFlow.

`tf.distribute` connects the processes, and watches that they live; its scope is not used, because
Merlin's models cannot be built in it. The ranks know a collective operation by a key; with the same
key it may run again if its tensors have the same shape as before. tf.distribute takes a new key for
each run: then an operation takes 1.6 times as long, because the ranks agree on the key first, and
each run keeps 0.9 kB of memory. Here, the key of an operation in a training step is its place in
the step and the shape of its tensors, which are filled up to one of a few shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import tensorflow as tf
from tensorflow.python.distribute import collective_all_reduce_strategy as strategies

from models.core.collectives import Gathered, Share

#: Keys of the groups of all CPUs and of all GPUs; tf.distribute has its own from 1.
_CPUS, _GPUS = 101, 102
#: Number of keys of one operation, one for each of its shapes.
_SHAPES = 512
#: Number of operations in a training step.
_PLACES = 64
#: Number of trainings of one process; the keys after theirs are for operations outside of a step.
_TRAININGS = 1024
#: Seconds between checks that the other ranks answer, and seconds to wait for an answer. After
#: three checks without an answer, the operations end with an error. A process that was killed
#: gives an error at once; this is for a machine that is gone.
_INTERVAL, _ANSWER = 4, 7

#: The errors of an operation if another rank ended, or no longer answers.
LOST = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.UnavailableError,
)


def connect(addresses: Sequence[str], rank: int) -> Ranks:
    """Connect this process with the other ranks of a training, and wait until all are there.

    TensorFlow must not have run anything before. Python's threads may stand still during the wait,
    so another process has to end this one if it takes too long.

    Args:
        addresses: `host:port` of each rank.
        rank: the number of this rank, from 0.

    Raises:
        tf.errors.OpError: the port of this rank is taken, or a rank ended.
    """
    watch = strategies.CollectiveAllReduceExtended
    watch._check_health_interval, watch._check_health_timeout = _INTERVAL, _ANSWER
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(addresses)}),
        task_type="worker",
        task_id=rank,
        rpc_layer="grpc",
    )
    return Ranks(
        Share(rank, len(addresses)),
        tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver),
    )


class Ranks:
    """The exchange of this process with the other ranks of a training.

    Args:
        share: the number of this rank, and the number of ranks.
        strategy: the strategy that connected the ranks; it watches them as long as it exists.
    """

    def __init__(self, share: Share, strategy: tf.distribute.Strategy) -> None:
        self.share = share
        self._strategy = strategy
        self._has_gpu = bool(tf.config.list_logical_devices("GPU"))
        self._training = -1
        self._outside = _TRAININGS * _PLACES * _SHAPES
        #: Traced function → number of its operations so far.
        self._places: WeakKeyDictionary[tf.Graph, int] = WeakKeyDictionary()
        with tf.device("CPU:0"):
            self._order = tf.Variable(0.0)  # operations that use it run in the order of the program

    def begin(self) -> None:
        """Begin a training, before its step is traced; its operations get keys of their own."""
        self._training = (self._training + 1) % _TRAININGS

    def total(self, tensor: tf.Tensor) -> tf.Tensor:
        """Return the sum of a tensor of all ranks; its gradient for the own tensor is 1."""
        if not tensor.dtype.is_floating:
            return self._sum(tensor)

        @tf.custom_gradient
        def total(own: tf.Tensor) -> Any:
            return self._sum(own), lambda slope: slope

        return total(tensor)

    def gather(self, rows: tf.Tensor) -> Gathered:
        """Return the rows of all ranks.

        The gradient of a row is the sum of the gradients that the ranks have for it.
        """
        sizes = self._join(tf.shape(rows)[:1], 0)
        start = tf.reduce_sum(sizes[: self.share.rank])
        if not rows.dtype.is_floating:
            return Gathered(self._gather(rows, sizes), start)

        @tf.custom_gradient
        def gather(own: tf.Tensor) -> Any:
            def gradient(slopes: tf.Tensor) -> tf.Tensor:
                return self._sum_rows(slopes)[start : start + sizes[self.share.rank]]

            return self._gather(own, sizes), gradient

        return Gathered(gather(rows), start)

    def exchange(
        self, gradients: Sequence[tuple[tf.Tensor | tf.IndexedSlices | None, tf.Variable]]
    ) -> list[tuple[tf.Tensor | tf.IndexedSlices | None, tf.Variable]]:
        """Return the sum of the ranks' gradients for each variable; sparse ones stay sparse."""
        found = [slope for slope, _ in gradients if slope is not None]
        sums: list[tf.Tensor | tf.IndexedSlices] = list(found)
        sparse = [n for n, slope in enumerate(found) if isinstance(slope, tf.IndexedSlices)]
        dense = [n for n, slope in enumerate(found) if not isinstance(slope, tf.IndexedSlices)]
        if dense:
            for n, total in zip(dense, self._sum_together([found[n] for n in dense]), strict=True):
                sums[n] = total
        if sparse:
            for n, rows in zip(sparse, self._sparse([found[n] for n in sparse]), strict=True):
                sums[n] = rows
        rest = iter(sums)
        return [(None if slope is None else next(rest), weight) for slope, weight in gradients]

    def share_out(self, array: np.ndarray) -> np.ndarray:
        """Return the array of rank 0, on all ranks; the arrays have equal shapes and types."""
        own = array if self.share.rank == 0 else np.zeros_like(array)
        numbers = own.astype(np.int32) if own.dtype.kind in "bu" else own
        return self._sum(tf.constant(numbers)).numpy().astype(array.dtype)

    def collect(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows of all ranks, in the order of ranks, on all ranks."""
        return self.gather(tf.constant(rows)).values.numpy()

    def _sum_together(self, slopes: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Return the sums of dense gradients of the ranks, by one operation."""
        flat = [tf.reshape(slope, [-1]) for slope in slopes]
        parts = tf.split(self._sum(tf.concat(flat, 0)), [tf.size(part) for part in flat])
        return [tf.reshape(part, tf.shape(s)) for part, s in zip(parts, slopes, strict=True)]

    def _sparse(self, slopes: Sequence[tf.IndexedSlices]) -> list[tf.IndexedSlices]:
        """Return the rows of sparse gradients of all ranks; rows with equal indices are added."""
        own = [_add_up(slope) for slope in slopes]
        widths = [int(np.prod(slope.values.shape[1:])) for slope in own]
        counts = tf.stack([tf.size(slope.indices) for slope in own])
        every = self._join(counts[None], 0)  # [size, number of tables]
        indices = tf.concat([tf.cast(slope.indices, tf.int64) for slope in own], 0)
        values = tf.concat([tf.reshape(slope.values, [-1]) for slope in own], 0)
        all_indices = self._by_table(indices, every)
        all_values = self._by_table(values, every * tf.constant(widths))
        return [
            tf.IndexedSlices(
                tf.reshape(value, [-1, *slope.values.shape[1:]]), index, slope.dense_shape
            )
            for slope, index, value in zip(own, all_indices, all_values, strict=True)
        ]

    def _by_table(self, numbers: tf.Tensor, counts: tf.Tensor) -> list[tf.Tensor]:
        """Return the numbers of all ranks for each table.

        Args:
            numbers: the numbers of this rank, one table after the other, [n].
            counts: how many numbers each rank has for each table, int32 [size, n_tables].
        """
        sizes = tf.reduce_sum(counts, 1)
        ranks = tf.split(self._gather(numbers, sizes), sizes, num=self.share.size)
        n_tables = counts.shape[1]
        parts = [tf.split(own, counts[r], num=n_tables) for r, own in enumerate(ranks)]
        return [tf.concat(of_ranks, 0) for of_ranks in zip(*parts, strict=True)]

    def _gather(self, rows: tf.Tensor, sizes: tf.Tensor) -> tf.Tensor:
        """Return the rows of all ranks, given how many rows each rank has, int32 [size]."""
        rounded, key = _round_up(tf.reduce_max(sizes))
        joined = self._join(_fill_up(rows, rounded), key)
        starts = range(self.share.size)
        return tf.concat([joined[r * rounded : r * rounded + sizes[r]] for r in starts], 0)

    def _sum_rows(self, rows: tf.Tensor) -> tf.Tensor:
        """Return the sum of rows of all ranks, which have equally many rows."""
        rounded, key = _round_up(tf.shape(rows)[0])
        return self._sum(_fill_up(rows, rounded), key)[: tf.shape(rows)[0]]

    def _sum(self, tensor: tf.Tensor, shape: tf.Tensor | int = 0) -> tf.Tensor:
        with tf.device(self._device(tensor)):
            return tf.raw_ops.CollectiveReduceV2(
                **self._how(tensor, shape), merge_op="Add", final_op="Id"
            )

    def _join(self, tensor: tf.Tensor, shape: tf.Tensor | int) -> tf.Tensor:
        """Return tensors of equal shapes of all ranks, one after the other."""
        with tf.device(self._device(tensor)):
            return tf.raw_ops.CollectiveGatherV2(**self._how(tensor, shape))

    def _how(self, tensor: tf.Tensor, shape: tf.Tensor | int) -> dict[str, Any]:
        """Return the arguments that all collective operations have."""
        on_gpu = "GPU" in self._device(tensor)
        return {
            "input": tensor,
            "group_size": self.share.size,
            "group_key": _GPUS if on_gpu else _CPUS,
            "instance_key": self._key(shape),
            "ordering_token": [self._order.handle],
            "communication_hint": "nccl" if on_gpu else "ring",
        }

    def _device(self, tensor: tf.Tensor) -> str:
        return "GPU:0" if self._has_gpu and tensor.dtype.is_floating else "CPU:0"

    def _key(self, shape: tf.Tensor | int) -> tf.Tensor | int:
        """Return the key of the next operation of the program, which is the same on all ranks."""
        if tf.executing_eagerly():
            self._outside += 1
            return self._outside
        graph = tf.compat.v1.get_default_graph()
        place = self._places.get(graph, 0)
        assert place < _PLACES, "a step has more operations than there are keys"
        self._places[graph] = place + 1
        return (self._training * _PLACES + place) * _SHAPES + shape


def _add_up(slope: tf.IndexedSlices) -> tf.IndexedSlices:
    """Add up the rows of a sparse gradient that have equal indices."""
    indices, places = tf.unique(slope.indices)
    values = tf.math.unsorted_segment_sum(slope.values, places, tf.size(indices))
    return tf.IndexedSlices(values, indices, slope.dense_shape)


def _round_up(n: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return a number of rows, rounded up by an eighth at most, and a key of the rounded number."""
    power = tf.reduce_sum(tf.cast(n > tf.constant([2**p for p in range(4, 31)]), tf.int32))
    step = tf.bitwise.left_shift(1, power)
    steps = -(-n // step)
    return steps * step, power * 17 + steps


def _fill_up(rows: tf.Tensor, n: tf.Tensor) -> tf.Tensor:
    """Append rows of zeros, such that there are n rows."""
    more = [[0, n - tf.shape(rows)[0]]]
    return tf.pad(rows, more + [[0, 0]] * (len(rows.shape) - 1))
