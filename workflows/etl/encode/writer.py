"""Write splits, user table and item table as parquet files of codes and numbers, with schemas."""

from __future__ import annotations

import logging
import shutil
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from merlin.schema import ColumnSchema, Schema, Tags

from models.core.reserved_codes import UNSEEN
from models.towers.schema_file import write_schema
from workflows.etl.encode import ops
from workflows.etl.encode.lookups import Lookups
from workflows.etl.encode.ops import Int32s
from workflows.etl.encode.parts import GROUP, CellCounts, Job, Plan, leaf_name
from workflows.etl.memory import Memory
from workflows.etl.shape import split
from workflows.etl.shape.history import EventKinds, FinalHistories, Histories, PartEvents
from workflows.etl.shape.tables import Table
from workflows.etl.threads import map_threads
from workflows.etl.workers import Workers
from workflows.ground import large_text
from workflows.ground.pair_hash import pair_hash
from workflows.ground.statistics import NumberFact
from workflows.raw import dictionaries
from workflows.recipe import Recipe
from workflows.stages.etl import LATEST, EtlFiles

log = logging.getLogger(__name__)

#: Number of rows of a part file. It is fixed, so that the bytes of the files do not depend on the
#: number of workers.
PART = 1 << 18
#: Smallest number of rows of a block, for any memory limit; number of copies of its cells.
_LEAST, _COPIES = 1 << 13, 6

#: Split or table → text column → the numbers of its cells, unseen values and missing values.
Shares = dict[str, dict[str, CellCounts]]


def choose_block(recipe: Recipe, memory: Memory, workers: int) -> int:
    """Return the number of rows that a job encodes at a time.

    Args:
        recipe: recipe that describes the features.
        memory: the memory limit of etl.
        workers: number of jobs that run at the same time.
    """
    width = sum(f.meaning.cell_bytes(f) for f in recipe.features.values())
    row = width * workers
    if recipe.history:
        row += 4 * recipe.history.max_len * len(recipe.history.inputs)
    return memory.rows(row * _COPIES, least=_LEAST, most=GROUP)


def write_tables(
    writer: Writer, lookups: Lookups, users: Table, items: Table, workers: Workers
) -> Shares:
    """Encode and write the user table and the item table."""
    tables = {"users": users, "items": items}
    folder = writer.folder
    with ThreadPoolExecutor(1) as beside:
        readable = [
            beside.submit(_write_readable, table.frame, folder / name)
            for name, table in tables.items()
        ]
        shares = writer.run(writer.table_jobs(lookups, users, items), workers)
        for written in readable:
            written.result()
    return shares


def add_shares(total: Shares, shares: Shares) -> Shares:
    """Add the counts of cells of one partition or table to those of others."""
    for name, columns in shares.items():
        for column, of in columns.items():
            total.setdefault(name, {}).setdefault(column, CellCounts()).add(of)
    return total


def _write_readable(frame: pa.Table, folder: Path) -> None:
    """Write the user or item table with raw values, for people and for raw towers."""
    readable = pa.table(
        {column: _as_written(dictionaries.decode(frame[column])) for column in frame.column_names}
    )
    repeated = [leaf_name(column) for column in readable.schema][1:]  # the ids are all different
    pq.write_table(
        readable,
        EtlFiles(folder.parent).raw(folder.name),
        use_dictionary=repeated,
        use_compliant_nested_type=True,
    )
    log.info("%s: %s rows", folder.name, f"{len(frame):,}")


def _as_written(array: pa.Array) -> pa.Array | pa.ChunkedArray:
    return large_text.cut(array) if pa.types.is_large_string(array.type) else array


class Writer:
    """Makes the jobs that encode and write the part files, one split or table at a time.

    Args:
        recipe: recipe that describes the features.
        numbers: number column → its mean, its standard deviation and the value that fills gaps.
        folder: the folder of the etl stage.
        aside: the folder for files that are not complete.
        on_gpu: whether the data frames that NVTabular encodes are cuDF.
        block: number of rows that are encoded at a time.
        partition: number of the partition in the names of part files; None if there is one.
        are_elsewhere: whether jobs are sent to other processes.

    Attributes:
        folder: the folder of the etl stage.
        block: number of rows that are encoded at a time.
    """

    def __init__(
        self,
        recipe: Recipe,
        numbers: Mapping[str, NumberFact],
        folder: Path,
        aside: Path,
        *,
        on_gpu: bool,
        block: int,
        partition: int | None = None,
        are_elsewhere: bool = False,
    ) -> None:
        self._recipe = recipe
        self._numbers = dict(numbers)
        self._on_gpu = on_gpu
        self.folder = folder
        self._aside = aside
        self._partition = partition
        self._are_elsewhere = are_elsewhere
        self._schemas: dict[str, Schema] = {}
        self._plans: list[Plan] = []
        self.block = block

    def run(self, jobs: Iterator[Job], workers: Workers | None) -> Shares:
        """Run the encoding jobs; return the cell counts of each split or table.

        Args:
            jobs: the jobs.
            workers: workers that run them; None for this thread.
        """
        waiting: deque[Job] = deque()
        found: Shares = {}

        def issued() -> Iterator[Job]:
            for job in jobs:
                waiting.append(job.spill_to_disk() if self._are_elsewhere else job)
                yield waiting[-1]

        done = workers.map(Job.write, issued()) if workers else map(Job.write, issued())
        for shares in done:
            job = waiting.popleft()
            if isinstance(job.rows, Path):
                job.rows.unlink()
            add_shares(found, {job.path.parent.name: shares})
        return found

    def table_jobs(self, lookups: Lookups, users: Table, items: Table) -> Iterator[Job]:
        """Yield the jobs that encode and write the part files of the user and the item table."""
        user = self._recipe.user_id
        # the last row of the user table stands for unknown users: it gets the code of unseen ids
        yield from self._jobs("users", users.frame, lookups, unknown={user: UNSEEN})
        yield from self._jobs("items", items.frame, lookups)

    def split_jobs(
        self,
        parts: dict[split.Part, pa.Table],
        lookups: Lookups,
        kinds: dict[split.Part, EventKinds],
    ) -> Iterator[Job]:
        """Yield the jobs that encode and write the part files of train, valid and test.

        Args:
            parts: train, valid, test → raw interactions in order of time.
            lookups: codes of texts, and rows of users and items.
            kinds: train, valid, test → kind of event of each interaction, if `history.events` keeps
                kinds apart; only interactions of the target kind are written.
        """
        events: list[PartEvents] = []
        for part in split.PARTS:
            table, of, histories = parts[part], kinds.get(part), None
            rows = {
                key: lookups.rows(key, dictionaries.combine(table[key]).dictionary)
                for key in (self._recipe.user_id, self._recipe.item_id)
            }
            if self._recipe.history:
                events.append(self._part_events(table, lookups, rows, of))
                histories = Histories.of(events, self._recipe.history)
                if of:
                    table = table.filter(pa.array(of.targets))
                    histories = histories.only(of.targets)
            yield from self._jobs(part, table, lookups, rows, histories)
        if self._recipe.has_offers:
            self._write_latest(events, lookups)

    def _jobs(
        self,
        name: str,
        table: pa.Table,
        lookups: Lookups,
        rows: Mapping[str, Int32s] | None = None,
        histories: Histories | None = None,
        unknown: Mapping[str, int] | None = None,
    ) -> Iterator[Job]:
        """Write the schema of one split or table, and yield the jobs that write its part files."""
        folder = self.folder / name
        plan = self._plan(table, lookups, rows or {}, unknown or {})
        if not self._partition:  # all partitions have one schema
            self._write_schema(plan.schema, histories, folder)
        if self._are_elsewhere:
            plan = plan.spill_to_disk(self._aside)
        for number, part in enumerate(self._slices(len(table))):
            raw = ops.to_indices(table.select(plan.columns)[part])
            for column, lists in (histories.lists(part, self.block) if histories else {}).items():
                raw = raw.append_column(column, lists)
            path = self._path(name, number)
            yield Job(plan, raw, path, self._aside, self.block)

    def _path(self, name: str, number: int) -> Path:
        """Return the path of a part file of a split or table."""
        files = EtlFiles(self.folder)
        if self._partition is None:
            return files.part(name, number)
        return files.partition_part(name, self._partition, number)

    def _slices(self, rows: int) -> list[slice]:
        """Return the rows of each part file; a split or table without rows has one file, too."""
        found = list(dictionaries.blocks(rows, PART))
        return found or ([] if self._partition else [slice(0, 0)])

    def _write_schema(self, encoded: Schema, histories: Histories | None, folder: Path) -> None:
        """Write the Merlin schema of one split or table, or copy an equal file of another split."""
        schema = encoded + _history_schema(self._recipe, encoded, histories)
        same = next((name for name, known in self._schemas.items() if known == schema), None)
        if same:
            shutil.copy(EtlFiles(self.folder).schema(same), folder)
        else:
            write_schema(schema, EtlFiles(self.folder).schema(folder.name))
        self._schemas[folder.name] = schema

    def _plan(
        self,
        table: pa.Table,
        lookups: Lookups,
        rows: Mapping[str, Int32s],
        unknown: Mapping[str, int],
    ) -> Plan:
        features = self._recipe.features
        columns = [
            c for c in table.column_names if c in features and not features[c].meaning.is_label
        ]
        arrays = {f"rows of {column}": places for column, places in rows.items()}
        found = map_threads(
            [column for column in columns if features[column].meaning.has_codes],
            lambda column: lookups.codes(column, dictionaries.flatten(table[column]).dictionary),
        )
        for column, lookup in found.items():
            arrays[f"codes of {column}"] = lookup.codes
            if column in unknown:
                for_null = np.int32(unknown[column])
                arrays[f"codes of {column}"] = np.append(lookup.codes[:-1], for_null)
        sizes = {column: (lookup.size, lookup.oov_buckets) for column, lookup in found.items()}
        for known in self._plans:
            if known.fits(columns, arrays):
                return known
        self._plans.append(Plan(self._recipe, columns, self._numbers, sizes, arrays, self._on_gpu))
        return self._plans[-1]

    def _write_latest(self, events: list[PartEvents], lookups: Lookups) -> None:
        """Write parquet files with each user's history after their last event in any split."""
        recipe = self._recipe
        assert recipe.history is not None
        latest = FinalHistories.of(events, recipe.history)
        if not self._partition:
            schema = self._schemas["train"].select_by_name(list(recipe.history.inputs))
            write_schema(schema, EtlFiles(self.folder).schema(LATEST))
        for number, part in enumerate(self._slices(len(latest.users))):
            ids = lookups.user_ids(latest.users[part])
            table = pa.table({recipe.user_id: ids, **latest.lists(part)})
            path = self._path(LATEST, number)
            pq.write_table(table, path, row_group_size=GROUP)

    def _part_events(
        self,
        table: pa.Table,
        lookups: Lookups,
        rows: Mapping[str, Int32s],
        kinds: EventKinds | None,
    ) -> PartEvents:
        recipe = self._recipe
        assert recipe.history is not None
        encoded = {}
        for column in recipe.history.columns:
            lookup = lookups.codes(column, dictionaries.flatten(table[column]).dictionary)
            encoded[column] = lookup.codes[dictionaries.indices(table[column])]
        users = rows[recipe.user_id][dictionaries.indices(table[recipe.user_id])]
        if recipe.time:
            times = table[recipe.time].to_numpy()
        else:
            items = rows[recipe.item_id][dictionaries.indices(table[recipe.item_id])]
            times = pair_hash(users, items, seed=recipe.history.seed)
        return PartEvents(users, times, encoded, kinds.kinds if kinds else None)


def _history_schema(recipe: Recipe, schema: Schema, histories: Histories | None) -> Schema:
    """Return the Merlin schema of the history columns: lists with the codes of an item column."""
    if recipe.history is None or histories is None:
        return Schema()
    return Schema(
        [
            ColumnSchema(
                name,
                tags=[Tags.CATEGORICAL, Tags.USER, Tags.SEQUENCE],
                properties=schema[column].properties,
                dtype=np.int32,
                dims=(None, (0, recipe.history.max_len)),
            )
            for name, column in recipe.history.inputs.items()
        ]
    )
