"""Training on the log of log_on_disk.py: from its files, or with some of its rows in memory.

`--option disk` trains from the files; `--option memory` has the rows of the first ten partitions in
memory. Towers, loss (with the mask `user`), optimiser and Keras fit are those of `two-tower train`.

The warm-up crosses the end of a window, so that the peak of memory is that of two windows. The
steps that are measured begin when the thread has read the next window, and its processor time is
reported by itself: a few hundred steps use a small part of a window, and would be charged for a
whole one.
"""

from __future__ import annotations

import json
import re
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1]))

from peers.pace import Pace, arguments

from workflows.ground import device

device.choose("cpu")

import numpy as np
from log_on_disk import features
from merlin.schema import ColumnSchema, Schema, Tags
from peers.ours import tag
from peers.watch import Watch

from models.core.partitions import ParquetPartitions, PartitionInMemory, Partitions
from models.losses.config import LossConfig
from models.losses.negatives import TrainingFacts
from models.towers.config import TwoTowerConfig
from models.training.batches import Batches, Window
from models.training.config import OptimizerConfig, TrainConfig
from models.training.fit import Fit
from models.training.row_batches import RowLoader
from models.training.two_tower import Model, build
from workflows.stages.etl import EtlFiles

#: Number of steps before the end of a window, with which the fit begins.
_BEFORE = 5


def main() -> None:
    """Fit until the time is over."""
    options = arguments(__doc__)
    facts = json.loads((options.data / "facts.json").read_text())
    files = EtlFiles(options.data).partitions("train")
    model = made(facts["n_users"], facts["n_items"], options.batch)
    names = model.schema.column_names
    rows: Partitions = ParquetPartitions(files, names)
    if options.option == "memory":
        rows = PartitionInMemory(rows.read(range(10)))
    loader = RowLoader(names, with_positives=True)
    batches = _FromTheMiddle(rows, loader, batch_size=options.batch, seed=1)
    config = TrainConfig(batch_size=options.batch, epochs=100)
    fit = Fit(model, batches, config, OptimizerConfig(lr=0.001), None)
    model.optimizer.build(model.trainable_variables)
    pace = Pace(options.warmup, options.seconds)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, watch = status("VmRSS"), _Watch(pace, batches)
    fit.run([watch])
    pace.print_result(
        rows=batches.n_rows,
        windows=len(batches.windows),
        resident_before_mib=before,
        resident_peak_mib=status("VmHWM"),
        cpu_seconds_per_million_rows=round((cpu_seconds() - watch.start) / pace.rows * 1e6, 2),
        reading_seconds_per_million_rows=round(batches.reading / batches.read * 1e6, 2),
    )


class _Watch(Watch):
    """Stops the fit when the time is over, and notes the processor time at the warm-up's end."""

    def __init__(self, pace: Pace, batches: _FromTheMiddle) -> None:
        super().__init__(pace, batches.batch_size)
        self.batches = batches
        self.start = 0.0

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        """Count a step."""
        if self.pace.steps == self.pace.warmup - 1:
            if self.batches._next:
                self.batches._next.result()
            self.start = cpu_seconds()
        super().on_train_batch_end(batch, logs)


class _FromTheMiddle(Batches):
    """Batches that begin a little before the end of the first window, if there are several.

    Attributes:
        reading: processor time of reading, preparing and shuffling windows, in seconds.
        read: number of rows of these windows.
    """

    reading = 0.0
    read = 0

    def _read(self, number: int) -> Window:
        start = time.thread_time()
        window = super()._read(number)
        self.reading += time.thread_time() - start
        self.read += len(window)
        return window

    @property
    def _first(self) -> int:
        if len(self.windows) == 1:
            return 0
        return max(0, int(self._ends[0]) // self.batch_size - _BEFORE)

    def __len__(self) -> int:
        return super().__len__() - self._first

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return super().__getitem__(index + self._first)


def made(n_users: int, n_items: int, batch: int) -> Model:
    """Return the model of this benchmark, with initial weights."""
    users, items = features(n_users, n_items)
    columns = [
        ColumnSchema(
            name,
            tags=[tag(name), Tags.CATEGORICAL],
            properties={"domain": {"min": 0, "max": int(values.max()), "name": name}},
            dtype=np.int32,
        )
        for name, values in {**users, **items}.items()
    ]
    rows = [ColumnSchema(name, dtype=np.int32) for name in ("user_row", "item_row")]
    towers = TwoTowerConfig(
        dim=16, combine="concat", query_layers=(128, 64), item_layers=(128, 64), item_bias=False,
        dropout=0.0,
    )  # fmt: skip
    loss = LossConfig(kind="in_batch", mask="user")
    counts = 1 + np.arange(n_items)[::-1]
    return build(
        Schema(columns + rows), towers, loss, TrainingFacts(counts, items, batch, 1), seed=1
    )


def status(name: str) -> int:
    """Return a figure of the memory of this process, MiB."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) // 1024


def cpu_seconds() -> float:
    """Return the processor time of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
