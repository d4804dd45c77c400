"""The exchange between the processes of a training, by TensorFlow's collective operations.

`tf.distribute` connects the processes, and notices if one of them ends; its scope is not used,
because Merlin's models cannot be built in it. The processes identify a collective operation by a
key. A collective operation may run again with the same key if its tensors have the same shape as
before. tf.distribute takes a new key for each run. Then an operation takes 1.6 times as long,
because the processes agree on the key first, and each run keeps 0.9 kB of memory. In this module,
the key of an operation consists of its position in the training step and of the shape of its
tensors, which are padded to one of a few shapes.
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
#: Seconds to wait for an answer of a process on the same machine. Another process sees whether it
#: lives; and on an overloaded machine, a process that lives may not answer for a long time.
_ANSWER_HERE = 600

#: The errors of an operation if another rank ended, or no longer answers.
LOST = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.UnavailableError,
)


def connect(addresses: Sequence[str], rank: int) -> Ranks:
    """Connect this process with the other processes of a training, and wait for all of them.

    No TensorFlow operation may have run in this process before. Python's threads may stop during
    the wait, so a time limit must be enforced by another process.

    Args:
        addresses: `host:port` of each process.
        rank: the number of this process, from 0.

    Raises:
        tf.errors.OpError: the port of this process is taken, or another process ended.
    """
    watch = strategies.CollectiveAllReduceExtended
    is_here = all(address.startswith("127.0.0.1:") for address in addresses)
    watch._check_health_interval = _INTERVAL
    watch._check_health_timeout = _ANSWER_HERE if is_here else _ANSWER
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
    """The exchange of this process with the other processes of a training.

    Args:
        share: the number of this process, and the number of processes.
        strategy: the strategy that connected the processes; as long as it exists, it checks that
            they live.
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
        """Return the sum of the tensors of all processes; its gradient for each of them is 1."""
        if not tensor.dtype.is_floating:
            return self._sum(tensor)

        @tf.custom_gradient
        def total(own: tf.Tensor) -> Any:
            return self._sum(own), lambda slope: slope

        return total(tensor)

    def gather(self, rows: tf.Tensor) -> Gathered:
        """Return the rows that all processes give, on each process.

        The gradient of a row is the sum of its gradients in all processes.
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
        """Return each variable's gradient, summed over processes; sparse gradients stay sparse."""
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
        """Return the array of process 0; the arrays of all processes have one shape and type."""
        own = array if self.share.rank == 0 else np.zeros_like(array)
        numbers = own.astype(np.int32) if own.dtype.kind in "bu" else own
        return self._sum(tf.constant(numbers)).numpy().astype(array.dtype)

    def collect(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows that all processes give, in the order of their numbers."""
        return self.gather(tf.constant(rows)).values.numpy()

    def _sum_together(self, slopes: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Return dense gradients, each summed over the processes, by one collective operation."""
        flat = [tf.reshape(slope, [-1]) for slope in slopes]
        parts = tf.split(self._sum(tf.concat(flat, 0)), [tf.size(part) for part in flat])
        return [tf.reshape(part, tf.shape(s)) for part, s in zip(parts, slopes, strict=True)]

    def _sparse(self, slopes: Sequence[tf.IndexedSlices]) -> list[tf.IndexedSlices]:
        """Return sparse gradients with the rows of all processes; equal indices may remain."""
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
        """Return, for each embedding table, the numbers that all processes have for it.

        Args:
            numbers: the numbers of this process, one table after the other, [n].
            counts: how many numbers each process has for each table, int32 [size, n_tables].
        """
        sizes = tf.reduce_sum(counts, 1)
        ranks = tf.split(self._gather(numbers, sizes), sizes, num=self.share.size)
        n_tables = counts.shape[1]
        parts = [tf.split(own, counts[r], num=n_tables) for r, own in enumerate(ranks)]
        return [tf.concat(of_ranks, 0) for of_ranks in zip(*parts, strict=True)]

    def _gather(self, rows: tf.Tensor, sizes: tf.Tensor) -> tf.Tensor:
        """Return the rows of all processes; `sizes` has the row count of each, int32 [size]."""
        rounded, key = _round_up(tf.reduce_max(sizes))
        joined = self._join(_fill_up(rows, rounded), key)
        starts = range(self.share.size)
        return tf.concat([joined[r * rounded : r * rounded + sizes[r]] for r in starts], 0)

    def _sum_rows(self, rows: tf.Tensor) -> tf.Tensor:
        """Return the sum over processes of tensors with equally many rows."""
        rounded, key = _round_up(tf.shape(rows)[0])
        return self._sum(_fill_up(rows, rounded), key)[: tf.shape(rows)[0]]

    def _sum(self, tensor: tf.Tensor, shape: tf.Tensor | int = 0) -> tf.Tensor:
        with tf.device(self._device(tensor)):
            return tf.raw_ops.CollectiveReduceV2(
                **self._how(tensor, shape), merge_op="Add", final_op="Id"
            )

    def _join(self, tensor: tf.Tensor, shape: tf.Tensor | int) -> tf.Tensor:
        """Concatenate the tensors of all processes, which have equal shapes."""
        with tf.device(self._device(tensor)):
            return tf.raw_ops.CollectiveGatherV2(**self._how(tensor, shape))

    def _how(self, tensor: tf.Tensor, shape: tf.Tensor | int) -> dict[str, Any]:
        """Return the arguments that every collective operation takes."""
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
        """Return the key of the next collective operation, which is the same in all processes."""
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
    """Return a row count, rounded up by at most an eighth, and a key for the rounded count."""
    power = tf.reduce_sum(tf.cast(n > tf.constant([2**p for p in range(4, 31)]), tf.int32))
    step = tf.bitwise.left_shift(1, power)
    steps = -(-n // step)
    return steps * step, power * 17 + steps


def _fill_up(rows: tf.Tensor, n: tf.Tensor) -> tf.Tensor:
    """Pad a tensor with rows of zeros to n rows."""
    more = [[0, n - tf.shape(rows)[0]]]
    return tf.pad(rows, more + [[0, 0]] * (len(rows.shape) - 1))
