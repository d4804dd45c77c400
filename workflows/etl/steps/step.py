"""Define what a step of etl is, and run the steps over one partition in memory or many on disk.

A step looks at each partition alone and returns facts, which are small. The facts of all partitions
are added up in the order of the partitions, and become the outcome of the step. A step that blocks
changes the rows by its outcome, as a split at the times that all rows decide does: all partitions
wait for it. Rows on disk are written once, by the first step. Later steps that change rows are
repeated whenever a partition is read again, which costs less than another copy of the rows.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from workflows.derive.fitted import States
from workflows.etl.counts import DropCounts
from workflows.etl.encode.graph import Fitted
from workflows.etl.encode.writer import Shares
from workflows.etl.memory import release_unused
from workflows.etl.read.sources import Raw
from workflows.etl.shape import split
from workflows.etl.shape.seen import Seen
from workflows.etl.shape.split import SplitPlan
from workflows.etl.shape.tables import Table
from workflows.etl.workers import Workers
from workflows.recipe import Recipe

log = logging.getLogger(__name__)

#: Part of the split (train, valid or test) → its interactions.
Parts = dict[split.Part, pa.Table]


@dataclass
class Rows:
    """The interactions of one partition on their way through the steps.

    Attributes:
        recipe: the recipe.
        number: number of the partition.
        partitions: number of partitions.
        raw: tables of the sources; the interactions have no rows after the first step.
        counts: counts of the interactions that were dropped.
        dropped: part of a source → interactions that were dropped, but whose items count as seen.
        logs: part of a source → its interactions before the split; `train` if there is one source.
        parts: part of the split → its interactions, after the split.
        labels: part of each interaction, if the step that looks at them knows it.
        plan: the plan of the split.
        seen: dropped interactions that count as seen, after the split.
        derived: the sources after columns were derived, without rows, if their tables have these
            columns already; None in memory.
        keep: function that writes the rows to disk when they are prepared; None in memory.
    """

    recipe: Recipe
    number: int
    partitions: int
    raw: Raw
    counts: DropCounts = field(default_factory=DropCounts)
    dropped: dict[split.Part, list[pa.Table]] = field(default_factory=dict)
    logs: Parts = field(default_factory=dict)
    parts: Parts = field(default_factory=dict)
    labels: split.Labels | None = None
    plan: SplitPlan | None = None
    seen: Seen | None = None
    derived: Raw | None = None
    keep: Callable[[Rows], None] | None = None

    @property
    def only(self) -> int | None:
        """The number of the partition; None if it is the only one."""
        return self.number if self.partitions > 1 else None


@dataclass
class Known:
    """What is known of all interactions together, in the process that runs the steps.

    Attributes:
        counts: counts of the interactions that were dropped.
        older: fitted states of an earlier run, which are kept.
        folder: folder of the stage.
        plan: the plan of the split.
        fitted: vocabularies of text columns and statistics of number columns.
        sizes: part of the split → number of interactions.
        targets: part of the split → number of interactions that are targets of the model.
        users, items: the user table and the item table.
        raw: the tables of the sources, if there are several partitions.
        shares: split or table → text column → the numbers of its cells.
        unknown: number of users, in valid and test, that the user table lacks, in all earlier
            partitions, for each partition.
    """

    counts: DropCounts
    older: States
    folder: Path
    plan: SplitPlan | None = None
    fitted: Fitted = field(default_factory=Fitted)
    sizes: dict[split.Part, int] = field(default_factory=dict)
    targets: dict[split.Part, int] = field(default_factory=dict)
    users: Table | None = None
    items: Table | None = None
    raw: Raw | None = None
    unknown: tuple[int, ...] = ()
    shares: Shares = field(default_factory=dict)


class Step:
    """A step of etl; see the top of this file. Steps are sent to workers, so they hold little."""

    #: Whether all partitions wait for the outcome, before their rows are changed.
    blocks = False

    def is_needed(self, known: Known) -> bool:
        """Say whether the step has something to do."""
        return True

    def look(self, rows: Rows) -> Any:
        """Return the facts of one partition."""

    def add(self, total: Any, facts: Any) -> Any:
        """Return the sum of the facts of several partitions, and those of the next one."""
        return facts if total is None else [*total, *facts]

    def finish(self, total: Any, known: Known) -> Any:
        """Note in `known` what the step found in all partitions, and return its outcome."""

    def apply(self, rows: Rows, outcome: Any) -> None:
        """Change the rows of one partition."""


def run_in_memory(rows: Rows, steps: Sequence[Step], known: Known) -> None:
    """Run the steps over the only partition."""
    rows.counts = known.counts
    for step in steps:
        if not step.is_needed(known):
            continue
        facts = step.look(rows)
        if step.blocks:
            step.apply(rows, step.finish(step.add(None, facts), known))
        else:
            step.apply(rows, None)
            step.finish(step.add(None, facts), known)


@dataclass(frozen=True)
class Visit:
    """A job that takes one partition through some steps.

    Attributes:
        partitions: where the partitions are read from.
        number: number of the partition.
        past: earlier steps that change rows, with their outcomes.
        due: the steps, among the earlier ones, whose outcome this visit applies for the first time.
        steps: the steps to take.
    """

    partitions: Any
    number: int
    past: Sequence[tuple[Step, Any]]
    due: int
    steps: Sequence[Step]

    def run(self) -> tuple[list[Any], DropCounts]:
        """Return the facts of each step, and the counts of dropped interactions."""
        rows = self.partitions.load(self.number, is_prepared=bool(self.past))
        for at, (step, outcome) in enumerate(self.past):
            if at == len(self.past) - self.due:
                rows.counts = DropCounts()
            step.apply(rows, outcome)
        if not self.due:
            rows.counts = DropCounts()
        facts = []
        for step in self.steps:
            facts.append(step.look(rows))
            if not step.blocks:
                step.apply(rows, None)
        # a copy: a piece of a mapped file would keep the pages of the whole file in memory
        facts, counts = copy.deepcopy(facts), rows.counts
        del rows
        release_unused()
        return facts, counts


class DiskRun:
    """Runs steps over partitions on disk.

    Args:
        partitions: where the partitions are read from.
        n: number of partitions.
        known: what is known of all interactions.
        workers: workers that take partitions through steps, as many as fit into memory.
    """

    def __init__(self, partitions: Any, n: int, known: Known, workers: Workers) -> None:
        self._partitions = partitions
        self._n = n
        self._known = known
        self._workers = workers
        self._past: list[tuple[Step, Any]] = []
        self._due = 0

    def run(self, steps: Sequence[Step]) -> None:
        """Run some steps."""
        for group in _groups(steps, self._known):
            self.visit(group)

    def visit(self, group: Sequence[Step]) -> None:
        """Take all partitions through steps of which only the last one may block."""
        known = self._known
        totals: list[Any] = [None] * len(group)
        jobs = (
            Visit(self._partitions, number, tuple(self._past), self._due, group)
            for number in range(self._n)
        )
        for facts, counts in self._workers.map(Visit.run, jobs):
            totals = [
                step.add(total, of) for step, total, of in zip(group, totals, facts, strict=True)
            ]
            known.counts.merge(counts)
        self._due = 0
        for place, step in enumerate(group):
            outcome = step.finish(totals[place], known)
            totals[place] = None  # the sums of users and items are large
            release_unused()
            self._past.append((step, outcome if step.blocks else None))
            self._due += step.blocks


def _groups(steps: Sequence[Step], known: Known) -> Iterator[list[Step]]:
    """Yield the steps in groups, of which only the last step blocks; the others need no outcome."""
    group: list[Step] = []
    for step in steps:
        if group and group[-1].blocks:
            yield group
            group = []
        if step.is_needed(known):
            group.append(step)
    if group:
        yield group
