"""Write splits, user table and item table as parquet files of codes and numbers, with schemas."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from merlin.schema import ColumnSchema, Schema, Tags

from models.core.reserved_codes import UNSEEN
from models.towers.schema_file import write_schema
from workflows.etl.encode import ops
from workflows.etl.encode.graph import Fitted
from workflows.etl.encode.ops import CodeTable, Int32s
from workflows.etl.encode.parts import GROUP, CellCounts, Job, Plan, leaf_name
from workflows.etl.memory import Memory
from workflows.etl.shape import split
from workflows.etl.shape.history import EventKinds, FinalHistories, Histories, PartEvents
from workflows.etl.shape.seen import Seen
from workflows.etl.shape.tables import Table
from workflows.etl.threads import map_threads
from workflows.etl.workers import Workers
from workflows.ground.device import Device
from workflows.ground.pair_hash import pair_hash
from workflows.raw import dictionaries
from workflows.recipe import Recipe
from workflows.stages.etl import LATEST, EtlFiles

log = logging.getLogger(__name__)

Value = TypeVar("Value")

#: Number of rows of a part file. It is fixed, so that the bytes of the files do not depend on the
#: number of workers.
PART = 1 << 18
#: Smallest number of rows of a block, for any memory limit; number of copies of its cells.
_LEAST, _COPIES = 1 << 13, 6


def write(
    recipe: Recipe,
    fitted: Fitted,
    parts: dict[split.Part, pa.Table],
    users: Table,
    items: Table,
    device: Device,
    folder: Path,
    *,
    workers: Workers,
    memory: Memory,
    kinds: dict[split.Part, EventKinds] | None = None,
    seen: Seen | None = None,
) -> dict[str, dict[str, CellCounts]]:
    """Encode and write the splits train, valid and test, the user table and the item table.

    Args:
        recipe: recipe that describes the features.
        fitted: vocabularies of text columns and statistics of number columns.
        parts: train, valid, test → raw interactions in order of time.
        users: the user table.
        items: the item table.
        device: the device (CPU or GPU) of this process.
        folder: the folder of the etl stage.
        workers: workers that encode and write part files.
        memory: the memory limit of etl.
        kinds: train, valid, test → kind of event of each interaction, if `history.events` keeps
            kinds apart; only interactions of the target kind are written.
        seen: items that users saw in dropped interactions; None if the recipe's filters need none.

    Returns:
        Split or table → text column → the numbers of its cells, unseen values and missing values.
    """
    found: dict[str, dict[str, CellCounts]] = {}
    tables = {"users": users, "items": items}
    for name in (*tables, *split.PARTS):
        (folder / name).mkdir()
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix=".aside-") as aside,
        ThreadPoolExecutor(1) as beside,
    ):
        readable = [
            beside.submit(_write_readable, table.frame, folder / name)
            for name, table in tables.items()
        ]
        writer = _Writer(recipe, fitted, device, folder, Path(aside), memory, workers)
        jobs = writer.jobs(parts, users, items, kinds or {}, seen)
        for name, shares in writer.run(jobs):
            for column, of in shares.items():
                found.setdefault(name, {}).setdefault(column, CellCounts()).add(of)
        for written in readable:
            written.result()
    return found


def _write_readable(frame: pa.Table, folder: Path) -> None:
    """Write the user or item table with raw values, for people and for raw towers."""
    readable = pa.table(
        {column: dictionaries.decode(frame[column]) for column in frame.column_names}
    )
    repeated = [leaf_name(column) for column in readable.schema][1:]  # the ids are all different
    pq.write_table(
        readable,
        EtlFiles(folder.parent).raw(folder.name),
        use_dictionary=repeated,
        use_compliant_nested_type=True,
    )
    log.info("%s: %s rows", folder.name, f"{len(frame):,}")


class _Writer:
    """Makes the jobs that encode and write the part files, one split or table at a time."""

    def __init__(
        self,
        recipe: Recipe,
        fitted: Fitted,
        device: Device,
        folder: Path,
        aside: Path,
        memory: Memory,
        workers: Workers,
    ) -> None:
        self._recipe = recipe
        self._fitted = fitted
        self._on_gpu = device.kind == "gpu"
        self._folder = folder
        self._aside = aside
        self._workers = workers
        self._schemas: dict[str, Schema] = {}
        self._known: dict[str, list[tuple[pa.Array, CodeTable]]] = defaultdict(list)
        self._places: dict[str, list[tuple[pa.Array, Int32s]]] = defaultdict(list)
        self._plans: list[Plan] = []
        width = sum(f.meaning.cell_bytes(f) for f in recipe.features.values())
        row = width * workers.number
        if recipe.history:
            row += 4 * recipe.history.max_len * len(recipe.history.inputs)
        self._block = memory.rows(row * _COPIES, least=_LEAST, most=GROUP)

    def run(self, jobs: Iterator[Job]) -> Iterator[tuple[str, dict[str, CellCounts]]]:
        """Run the encoding jobs; yield the name of each job's split or table and cell counts."""
        waiting: deque[Job] = deque()

        def issued() -> Iterator[Job]:
            for job in jobs:
                waiting.append(job.spill_to_disk() if self._workers.are_elsewhere else job)
                yield waiting[-1]

        for shares in self._workers.map(Job.write, issued()):
            job = waiting.popleft()
            if isinstance(job.rows, Path):
                job.rows.unlink()
            yield job.path.parent.name, shares

    def jobs(
        self,
        parts: dict[split.Part, pa.Table],
        users: Table,
        items: Table,
        kinds: dict[split.Part, EventKinds],
        seen: Seen | None,
    ) -> Iterator[Job]:
        """Yield the jobs that encode and write the part files of all splits and tables."""
        user, item = self._recipe.user_id, self._recipe.item_id
        ids = {user: users.ids(user), item: items.ids(item)}
        # tables come first: their jobs are short, so that no worker waits for one at the end
        # the last row of the user table stands for unknown users: it gets the code of unseen ids
        yield from self._table_jobs("users", users.frame, unknown={user: UNSEEN})
        yield from self._table_jobs("items", items.frame)
        unknown = _unknown_users(parts, user, ids[user])
        if seen:
            seen.write(ids[user], unknown, ids[item], self._folder)
        events: list[PartEvents] = []
        for part in split.PARTS:
            rows = {
                key: self._rows(key, parts[part], of, unknown if key == user else None)
                for key, of in ids.items()
            }
            table, of, histories = parts[part], kinds.get(part), None
            if self._recipe.history:
                events.append(self._part_events(table, rows[user], rows[item], of))
                histories = Histories.of(events, self._recipe.history)
                if of:
                    table = table.filter(pa.array(of.targets))
                    histories = histories.only(of.targets)
            yield from self._table_jobs(part, table, rows, histories)
        if self._recipe.has_offers:
            self._write_latest(events, ids[user], unknown)

    def _table_jobs(
        self,
        name: str,
        table: pa.Table,
        rows: Mapping[str, Int32s] | None = None,
        histories: Histories | None = None,
        unknown: Mapping[str, int] | None = None,
    ) -> Iterator[Job]:
        """Write the schema of one split or table, and yield the jobs that write its part files."""
        folder = self._folder / name
        plan = self._plan(table, rows or {}, unknown or {})
        self._write_schema(plan.schema, histories, folder)
        if self._workers.are_elsewhere:
            plan = plan.spill_to_disk(self._aside)
        for number, part in enumerate(list(dictionaries.blocks(len(table), PART)) or [slice(0, 0)]):
            raw = ops.to_indices(table.select(plan.columns)[part])
            for column, lists in (histories.lists(part, self._block) if histories else {}).items():
                raw = raw.append_column(column, lists)
            path = EtlFiles(self._folder).part(name, number)
            yield Job(plan, raw, path, self._aside, self._block)

    def _write_schema(self, encoded: Schema, histories: Histories | None, folder: Path) -> None:
        """Write the Merlin schema of one split or table, or copy an equal file of another split."""
        schema = encoded + _history_schema(self._recipe, encoded, histories)
        same = next((name for name, known in self._schemas.items() if known == schema), None)
        if same:
            shutil.copy(EtlFiles(self._folder).schema(same), folder)
        else:
            write_schema(schema, EtlFiles(self._folder).schema(folder.name))
        self._schemas[folder.name] = schema

    def _plan(
        self, table: pa.Table, rows: Mapping[str, Int32s], unknown: Mapping[str, int]
    ) -> Plan:
        features = self._recipe.features
        columns = [
            c for c in table.column_names if c in features and not features[c].meaning.is_label
        ]
        arrays = {f"rows of {column}": places for column, places in rows.items()}
        lookups = map_threads(
            [column for column in columns if features[column].meaning.has_codes],
            lambda column: self._code_table(column, dictionaries.flatten(table[column]).dictionary),
        )
        for column, lookup in lookups.items():
            arrays[f"codes of {column}"] = lookup.codes
            if column in unknown:
                for_null = np.int32(unknown[column])
                arrays[f"codes of {column}"] = np.append(lookup.codes[:-1], for_null)
        sizes = {column: (lookup.size, lookup.oov_buckets) for column, lookup in lookups.items()}
        for known in self._plans:
            if known.fits(columns, arrays):
                return known
        numbers = self._fitted.numbers
        self._plans.append(Plan(self._recipe, columns, numbers, sizes, arrays, self._on_gpu))
        return self._plans[-1]

    def _rows(
        self, key: str, table: pa.Table, of: pa.StringArray, unknown: pa.StringArray | None
    ) -> Int32s:
        """Return the row in the user or item table of each distinct id of a column (cached)."""
        texts = dictionaries.combine(table[key]).dictionary
        return _reuse(self._places[key], texts, lambda: _rows(texts, of, unknown))

    def _code_table(self, column: str, texts: pa.StringArray) -> CodeTable:
        """Return the vocabulary codes of the distinct texts of a column (cached for all splits)."""
        vocabulary = self._fitted.vocabularies[column]
        return _reuse(self._known[column], texts, lambda: CodeTable.of(vocabulary, texts))

    def _write_latest(
        self, events: list[PartEvents], known: pa.StringArray, unknown: pa.StringArray
    ) -> None:
        """Write parquet files with each user's history after their last event in any split."""
        recipe, folder = self._recipe, self._folder / LATEST
        assert recipe.history is not None
        latest = FinalHistories.of(events, recipe.history)
        # a user's number is a row of the table, or -n for the n-th unknown user
        ids = pa.concat_arrays([known, unknown])
        rows = np.where(latest.users < 0, len(known) - 1 - latest.users, latest.users)
        folder.mkdir()
        schema = self._schemas["train"].select_by_name(list(recipe.history.inputs))
        write_schema(schema, EtlFiles(self._folder).schema(LATEST))
        for number, part in enumerate(list(dictionaries.blocks(len(rows), PART)) or [slice(0, 0)]):
            table = pa.table({recipe.user_id: ids.take(pa.array(rows[part])), **latest.lists(part)})
            path = EtlFiles(self._folder).part(LATEST, number)
            pq.write_table(table, path, row_group_size=GROUP)

    def _part_events(
        self, table: pa.Table, user_rows: Int32s, item_rows: Int32s, kinds: EventKinds | None
    ) -> PartEvents:
        recipe = self._recipe
        assert recipe.history is not None
        encoded = {}
        for column in recipe.history.columns:
            lookup = self._code_table(column, dictionaries.flatten(table[column]).dictionary)
            encoded[column] = lookup.codes[dictionaries.indices(table[column])]
        users = user_rows[dictionaries.indices(table[recipe.user_id])]
        if recipe.time:
            times = table[recipe.time].to_numpy()
        else:
            items = item_rows[dictionaries.indices(table[recipe.item_id])]
            times = pair_hash(users, items, seed=recipe.history.seed)
        return PartEvents(users, times, encoded, kinds.kinds if kinds else None)


def _reuse(
    found: list[tuple[pa.StringArray, Value]], texts: pa.StringArray, make: Callable[[], Value]
) -> Value:
    """Return a function's result for given distinct texts from a cache, or compute and cache it."""
    for known, value in found:
        if known.equals(texts):
            return value
    found.append((texts, make()))
    return found[-1][1]


def _unknown_users(
    parts: dict[split.Part, pa.Table], key: str, known: pa.StringArray
) -> pa.StringArray:
    """Return the ids of valid and test users that the user table lacks, in order of appearance."""
    found = [pa.array([], pa.string())]
    for part in ("valid", "test"):
        column = dictionaries.combine(parts[part][key])
        if len(column):
            ids = column.dictionary.take(pc.unique(column.indices))
            found.append(ids.filter(pc.invert(pc.is_in(ids, value_set=known))))
    return pc.unique(pa.chunked_array(found))


def _rows(ids: pa.StringArray, of: pa.StringArray, unknown: pa.StringArray | None) -> Int32s:
    """Return the table row (user or item) of each distinct id; a last entry, -1, is for null.

    Args:
        ids: distinct user or item ids of interactions.
        of: the ids of the user or item table, in the order of its rows.
        unknown: ids that the table lacks; the n-th of them gets row -n, so that histories of
            different unknown users are not mixed.
    """
    rows = pc.index_in(ids, value_set=of)
    if unknown is not None:
        number = pc.index_in(ids, value_set=unknown)
        rows = pc.coalesce(rows, pc.subtract(pa.scalar(-1, pa.int32()), number))
    return np.append(rows.fill_null(-1).to_numpy(), np.int32(-1))


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
