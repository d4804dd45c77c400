"""The verb etl: turn raw interaction logs into encoded splits, tables and vocabularies.

The package etl.read reads the raw files, etl.shape joins, filters and splits the interactions,
etl.check warns of odd values, etl.encode turns values into vocabulary codes and writes the etl
stage, and etl.steps runs these for one partition of the interactions after the other.

A log whose cells take up to 1 GiB is one partition, in memory. A larger log is cut into partitions
by a hash of the user id, on disk. Their number follows from the sizes of the raw files alone, so
that no byte of the stage depends on the workers or on the memory limit:

1. Spill: jobs read raw files, or pieces of one file, and write slices of rows, each ordered by
   partition. Then each text column but the user id is numbered for all slices at once.
2. Prepare, for each partition: derive, join, drop rows by the filter rules of single rows, sort by
   time. The rows are written to disk once more.
3. Split. A split by time waits for the times of all rows, a random one for the number of rows.
   The last rows of a user are known in the user's partition.
4. Filter. Only `top_users` waits for the counts of all partitions; other rules look at one user.
5. Learn: texts are counted and numbers are added up in each partition, and merged in their order.
   Clusters and frequent values, if the recipe derives such columns, come before.
6. Tables: user tables of partitions are concatenated; of each item the latest row of all
   partitions counts.
7. Write, for each partition: histories, codes, part files. A user has all rows in the part files of
   one partition, whose names begin with its number.

Whatever belongs to one user (histories, seen items, repeats, conflicts) is local to a partition.
Counts, cuts, vocabularies and tables are merged in the process that runs the steps, which never
holds the rows of more partitions than workers.
"""

from __future__ import annotations

import dataclasses
import logging
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from models.core import atomic
from workflows.derive.fitted import read as read_states
from workflows.etl import earlier_run
from workflows.etl.check import value_warnings
from workflows.etl.check.column_texts import find_columns, find_empty_columns
from workflows.etl.counts import DropCounts
from workflows.etl.encode.graph import Fitted
from workflows.etl.encode.lookups import LookupFiles, WholeLookups, find_unknown_users
from workflows.etl.encode.writer import Shares, Writer, add_shares, choose_block, write_tables
from workflows.etl.memory import PARTITION, Memory, parse_size, release_unused
from workflows.etl.read import sources
from workflows.etl.read.source_files import SourceFiles
from workflows.etl.read.sources import Raw
from workflows.etl.read.spill import choose_partitions, spill
from workflows.etl.read.spilled_log import SpilledLog
from workflows.etl.shape import split, tables
from workflows.etl.steps.disk import CheckLog, open_partitions
from workflows.etl.steps.learn_steps import (
    BuildTables,
    CheckWeights,
    CountTargets,
    Learn,
    event_kinds,
    feature_columns,
)
from workflows.etl.steps.log_steps import (
    CountParts,
    CutFiner,
    FitColumns,
    Prepare,
    SplitRows,
    filter_steps,
)
from workflows.etl.steps.step import DiskRun, Known, Parts, Rows, Step, run_in_memory
from workflows.etl.steps.write_steps import (
    CountUnknown,
    WriteParts,
    join_seen,
    seen_rows,
    write_partition_sizes,
)
from workflows.etl.workers import Workers, open_workers
from workflows.ground.device import Device
from workflows.ground.errors import RecipeError
from workflows.read.opening import BLOCK
from workflows.recipe import Keep, Recipe
from workflows.stages.etl import LATEST, EtlFiles, EtlReport
from workflows.stages.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EtlResult:
    """The result of etl: the folder of the stage, the report, and the time that etl took."""

    folder: Path
    report: EtlReport
    seconds: float


@dataclass(frozen=True)
class Engine:
    """The workers and the memory that etl uses, which have no influence on what etl writes.

    Attributes:
        dask: where jobs run: "" in threads of this process, `local` in processes on this machine,
            `cuda` in one process per GPU, or the address of a Dask scheduler.
        workers: number of threads or processes; 0 for one per core, worker or GPU.
        memory: memory limit such as 8GiB; "" for half of what the machine has.
        chunk: amount of raw text to read at a time, such as 8MiB; "" for the default.
        spill: folder for the partitions of a large log; "" for a folder in that of the run.
    """

    dask: str = ""
    workers: int = 0
    memory: str = ""
    chunk: str = ""
    spill: str = ""

    @property
    def block(self) -> int:
        """How many bytes of a raw text file are read at a time."""
        return parse_size(self.chunk, "--chunk") if self.chunk else BLOCK


def etl(
    recipe: Recipe,
    store: Store,
    device: Device,
    *,
    data: Path,
    grow_from: Store | None = None,
    engine: Engine | None = None,
) -> EtlResult:
    """Read the raw files and write the etl stage: encoded splits, tables and vocabularies.

    Args:
        recipe: recipe that describes the raw data, the features and the split.
        store: folder of the run into which the etl stage is written.
        device: device (CPU or GPU) of this process.
        data: folder of the raw files.
        grow_from: an earlier run whose vocabulary codes are kept; new values get higher codes.
        engine: workers and memory that etl may use.

    Raises:
        DataError: the raw data differs from its description in the recipe, or does not fit into
            memory.
    """
    start = time.perf_counter()
    engine = engine or Engine()
    memory = dataclasses.replace(Memory.of(engine.memory), wider=_added_bytes(recipe))
    with (
        ThreadPoolExecutor(1) as hasher,
        open_workers(engine.dask, number=engine.workers, device=device, memory=memory) as workers,
        store.write("etl", recipe, device) as draft,
        tempfile.TemporaryDirectory(dir=draft.folder, prefix=".aside-") as aside,
    ):
        earlier = earlier_run.checked_folder(recipe, grow_from, store) if grow_from else None
        job = _Job(recipe, data, draft.folder, Path(aside), device, workers, memory, hasher)
        report = job.run(engine, earlier)
        text = msgspec.json.format(msgspec.json.encode(report), indent=2)
        EtlFiles(draft.folder).report.write_bytes(text)
        draft.rows = {**report.rows, "users": report.users["rows"], "items": report.items["rows"]}
    return EtlResult(store.folder("etl"), report, time.perf_counter() - start)


@dataclass(frozen=True)
class _Job:
    """One run of etl: what it reads, where it writes, and what runs its jobs.

    Attributes:
        recipe: recipe that describes the raw data, the features and the split.
        data: folder of the raw files.
        folder: folder of the stage.
        aside: folder for files that are removed at the end.
        device: device (CPU or GPU) of this process.
        workers: threads or processes that run jobs.
        memory: the memory limit.
        hasher: thread that computes the hashes of the raw files.
    """

    recipe: Recipe
    data: Path
    folder: Path
    aside: Path
    device: Device
    workers: Workers
    memory: Memory
    hasher: Executor

    def run(self, engine: Engine, earlier: Path | None) -> EtlReport:
        """Read the raw files, take the interactions through all steps, and write the stage."""
        opened = sources.open_sources(self.recipe.of_raw_files(), self.data, engine.block)
        n = choose_partitions(self.recipe.of_raw_files(), opened, self.memory.wider)
        known = Known(DropCounts(), read_states(earlier) if earlier else {}, self.folder)
        if n == 1:
            return self._run_in_memory(opened, known, earlier)
        return self._run_on_disk(opened, n, engine.spill, known, earlier)

    # ── one partition, in memory ────────────────────────────────────────────────────────

    def _run_in_memory(
        self, opened: Mapping[str, SourceFiles], known: Known, earlier: Path | None
    ) -> EtlReport:
        recipe = self.recipe
        raw = sources.read_tables(
            recipe.of_raw_files(), opened, self.data, self.workers, self.memory
        )
        log.info("read %s", ", ".join(f"{n} {t.num_rows:,}" for n, t in raw.tables.items()))
        found = find_columns(recipe, raw)
        value_warnings.check_texts(recipe, raw, found, find_empty_columns(raw))
        del found
        facts = self._raw_facts(raw, {name: len(table) for name, table in raw.tables.items()})
        _count_skipped(recipe, raw, known)
        rows = Rows(recipe, 0, 1, raw)
        del raw
        run_in_memory(rows, [*_row_steps(recipe), *_learn_steps(recipe)], known)
        kinds = event_kinds(recipe, rows.parts)
        parts = {part: feature_columns(recipe, table) for part, table in rows.parts.items()}
        rows.parts = {}
        lookups, writer = self._start_writing(known, earlier, parts)
        if rows.seen:
            table = seen_rows(recipe, rows.seen, lookups)
            pq.write_table(table, EtlFiles(self.folder).seen)
        shares = self._write_tables(known, lookups, writer)
        jobs = writer.split_jobs(parts, lookups, kinds)
        add_shares(shares, writer.run(jobs, self.workers))
        return self._report(facts, known, shares)

    # ── many partitions, on disk ────────────────────────────────────────────────────────

    def _run_on_disk(
        self,
        opened: Mapping[str, SourceFiles],
        n: int,
        folder: str,
        known: Known,
        earlier: Path | None,
    ) -> EtlReport:
        recipe = self.recipe
        with _spill_folder(folder, self.aside) as aside:
            spilled = spill(
                recipe.of_raw_files(),
                opened,
                self.data,
                aside,
                partitions=n,
                workers=self.workers,
                memory=self.memory,
            )
            sizes = spilled.sizes()
            log.info(
                "read %s, in %d partitions",
                ", ".join(f"{name} {rows:,}" for name, rows in sizes.items()),
                n,
            )
            facts = self._raw_facts(spilled.facts, sizes)
            _count_skipped(recipe, spilled.facts, known)
            partitions = open_partitions(recipe, spilled, self.memory)
            known.raw = partitions.whole_tables()
            at_once = self.memory.jobs(self.workers.number, 2 * PARTITION)  # with code and texts
            run = DiskRun(partitions, n, known, self.workers.limited(at_once))
            first, *others = _row_steps(recipe)
            steps = [first, CheckLog(partitions), *others, *_learn_steps(recipe)]
            run.run([*steps, CountUnknown(recipe)])
            known.raw = None
            shares = self._write_partitions(spilled, n, known, earlier, run)
        return self._report(facts, known, shares)

    def _write_partitions(
        self, spilled: SpilledLog, n: int, known: Known, earlier: Path | None, run: DiskRun
    ) -> Shares:
        recipe = self.recipe
        lookups, writer = self._start_writing(known, earlier, None)
        release_unused()
        shares = self._write_tables(known, lookups, writer)
        release_unused()
        assert known.users is not None
        assert known.items is not None
        vocabularies = known.fitted.vocabularies
        files = LookupFiles(
            self.folder,
            spilled.folder,
            recipe.user_id,
            recipe.item_id,
            {column: spilled.texts_path(column) for column in spilled.columns},
            {c: (of.size, of.oov_buckets) for c, of in vocabularies.items()},
        )
        users = known.users.ids(recipe.user_id)[:-1]
        files.write(vocabularies, users, known.items.ids(recipe.item_id), n)
        numbers = known.fitted.numbers
        known.users, known.items = known.users.without_rows(), known.items.without_rows()
        known.fitted = Fitted()
        on_gpu, block = self.device.kind == "gpu", writer.block
        del lookups, writer, users, vocabularies  # they hold all ids
        release_unused()
        step = WriteParts(recipe, numbers, files, on_gpu, block, known.unknown)
        run.visit([step])
        write_partition_sizes(files, n)
        if any(isinstance(rule, Keep) and rule.still_seen for rule in recipe.filter):
            join_seen(files, n)
        return add_shares(shares, known.shares)

    # ── both ────────────────────────────────────────────────────────────────────────────

    def _start_writing(
        self, known: Known, earlier: Path | None, parts: Parts | None
    ) -> tuple[WholeLookups, Writer]:
        """Write vocabularies and statistics, and return what looks up codes, and the writer."""
        recipe = self.recipe
        assert known.users is not None
        assert known.items is not None
        if earlier:
            known.fitted = known.fitted.grow_from(Fitted.read(earlier))
        _warn_of_rare_values(recipe, known.fitted)
        known.fitted.write(self.folder)
        for name in ("users", "items", *split.PARTS, *((LATEST,) if recipe.has_offers else ())):
            (self.folder / name).mkdir()
        users = known.users.ids(recipe.user_id)
        none = pa.array([], pa.string())
        unknown = find_unknown_users(parts, recipe.user_id, users) if parts else none
        lookups = WholeLookups(
            recipe, known.fitted.vocabularies, users, known.items.ids(recipe.item_id), unknown
        )
        writer = Writer(
            recipe,
            known.fitted.numbers,
            self.folder,
            self.aside,
            on_gpu=self.device.kind == "gpu",
            block=choose_block(recipe, self.memory, self.workers.number),
            are_elsewhere=self.workers.are_elsewhere,
        )
        return lookups, writer

    def _write_tables(self, known: Known, lookups: WholeLookups, writer: Writer) -> Shares:
        assert known.users is not None
        assert known.items is not None
        split.warn_of_few(known.targets)
        for table in (known.users, known.items):
            tables.warn_of_conflicts(self.recipe, table)
        return write_tables(writer, lookups, known.users, known.items, self.workers)

    def _raw_facts(self, raw: Raw, sizes: dict[str, int]) -> _RawFacts:
        """Return the number of rows of each source, and start to hash its files."""
        paths = [path for found in raw.files.values() for path in found]
        digests = {raw.name(path): self.hasher.submit(atomic.sha256, path) for path in paths}
        return _RawFacts(sizes, digests)

    def _report(self, facts: _RawFacts, known: Known, shares: Shares) -> EtlReport:
        assert known.users is not None
        assert known.items is not None
        of_parts = {part: shares.get(part, {}) for part in split.PARTS}
        return EtlReport(
            read=facts.read,
            files={name: digest.result() for name, digest in facts.files.items()},
            dropped=known.counts.dropped,
            unmatched=known.counts.unmatched,
            rows={part: known.targets[part] for part in split.PARTS},
            users=known.users.facts(unknown_rows=1),
            items=known.items.facts(unknown_rows=0),
            conflicts={**known.users.conflicts, **known.items.conflicts},
            unseen={
                part: {name: share.unseen / max(1, share.cells) for name, share in columns.items()}
                for part, columns in of_parts.items()
            },
            null={
                part: {name: share.null / max(1, share.cells) for name, share in columns.items()}
                for part, columns in of_parts.items()
            },
        )


@dataclass(frozen=True)
class _RawFacts:
    """The number of rows and the hashes of the raw files, for the report.

    Attributes:
        read: source of the recipe → number of rows that were read.
        files: raw file → its SHA-256, which a thread computes.
    """

    read: dict[str, int]
    files: dict[str, Future[str]]


def _row_steps(recipe: Recipe) -> list[Step]:
    """Return the steps from raw interactions to train, valid and test."""
    return [
        Prepare(recipe),
        SplitRows(recipe),
        CutFiner(recipe),
        CountParts(recipe, is_split=True),
        *filter_steps(recipe, "before"),
    ]


def _learn_steps(recipe: Recipe) -> list[Step]:
    """Return the steps that learn from train, and the filters that come after that."""
    return [
        FitColumns(recipe),
        Learn(recipe),
        *filter_steps(recipe, "after"),
        CheckWeights(recipe),
        BuildTables(recipe),
        CountTargets(recipe),
    ]


def _count_skipped(recipe: Recipe, raw: Raw, known: Known) -> None:
    """Count the impressions that the reader of Ali-CCP's files left out."""
    for name, skipped in raw.skipped.items():
        if recipe.sources[name].format == "aliccp":
            known.counts.add(sources.SKIPPED, len(skipped))


@contextmanager
def _spill_folder(folder: str, aside: Path) -> Iterator[Path]:
    """Return a context with an empty folder for partitions, which is removed at its end."""
    if not folder:
        yield aside
        return
    if not Path(folder).is_dir():
        raise RecipeError(
            f"--spill is {folder!r}, which is not a folder. Create it, or correct it."
        )
    with tempfile.TemporaryDirectory(dir=folder, prefix="two-tower-etl-") as made:
        yield Path(made)


def _warn_of_rare_values(recipe: Recipe, fitted: Fitted) -> None:
    """Warn of text columns in which every value is too rare to get a vocabulary code."""
    for name, vocabulary in fitted.vocabularies.items():
        if vocabulary.oov_count and not len(vocabulary.values):
            log.warning(
                "column %r: no value occurs %d times in train, as its vocabulary's min_count "
                "demands, so that all share the code of unseen values, and nothing can be learnt "
                "from it. Lower min_count, or leave the feature out.",
                *(name, recipe.vocabulary_rule(name).min_count),
            )


def _added_bytes(recipe: Recipe) -> int:
    """Return the largest number of bytes that joins and derived columns add to an interaction."""
    raw = recipe.of_raw_files().features
    joined = [name for name in recipe.features if len(recipe.join) and name in raw]
    return 4 * len({*joined, *(step.to for step in recipe.derive)})
