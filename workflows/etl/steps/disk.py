"""Keep the partitions of a log on disk between the steps, and check the log as a whole."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from workflows.etl.check import value_warnings
from workflows.etl.check.column_texts import ColumnTexts, find_columns, find_empty_columns
from workflows.etl.counts import DropCounts
from workflows.etl.memory import Memory
from workflows.etl.read.slices import remove_slices
from workflows.etl.read.sources import Raw
from workflows.etl.read.spilled_log import SpilledLog, read_texts, write_texts
from workflows.etl.shape import interactions, joins, tables
from workflows.etl.steps.step import Known, Rows, Step
from workflows.ground import large_text
from workflows.raw import dictionaries, list_cells
from workflows.recipe import Recipe

#: Key of the metadata that names the columns whose texts are those of the whole log.
_SHARED = b"shared"


@dataclass(frozen=True)
class DiskPartitions:
    """The partitions of a log on disk, raw or prepared.

    Attributes:
        recipe: the recipe.
        log: the raw partitions.
        facts: the sources after the derived columns were added, without rows.
    """

    recipe: Recipe
    log: SpilledLog
    facts: Raw

    def load(self, number: int, *, is_prepared: bool) -> Rows:
        """Return the rows of a partition, raw or as `Prepare` left them."""
        if not is_prepared:
            raw = self.log.load(number)
            self._write_users(number, raw)
            n = self.log.partitions
            return Rows(self.recipe, number, n, raw, derived=self.facts, keep=self._keep)
        raw = dataclasses.replace(
            self.facts,
            tables={**self.facts.tables, **self.log.side_tables(number)},
            numbers={name: np.zeros(0, np.int64) for name in self.log.slices},
        )
        rows = Rows(self.recipe, number, self.log.partitions, raw)
        for name, table in self._read(number):
            kind, part = name.split("-")[:2]
            if kind == "log":
                rows.logs[part] = table  # type: ignore[index]
            else:
                rows.dropped.setdefault(part, []).append(table)  # type: ignore[arg-type]
        return rows

    def _folder(self, number: int) -> Path:
        return self.log.folder / f"partition-{number:05d}"

    def _keep(self, rows: Rows) -> None:
        """Write the prepared rows of a partition; a second run writes the same files."""
        found = {f"log-{part}": table for part, table in rows.logs.items()}
        for part, dropped in rows.dropped.items():
            found |= {f"dropped-{part}-{n}": table for n, table in enumerate(dropped)}
        folder = self._folder(rows.number)
        folder.mkdir(exist_ok=True)
        for name, table in found.items():
            self._write(table, folder / f"{name}.arrow")
        (folder / "names.json").write_text(json.dumps(list(found)))

    def _write(self, table: pa.Table, path: Path) -> None:
        arrays, shared = [], []
        for name in table.column_names:
            array = dictionaries.combine(table[name])
            if name in self.log.columns and dictionaries.holds_text(array.type):
                flat = dictionaries.flatten(array)
                if dictionaries.are_same(flat.dictionary, self.log.texts(name)):
                    shared.append(name)
                    is_list = pa.types.is_list(array.type)
                    array = (
                        list_cells.replace_values(array, flat.indices) if is_list else array.indices
                    )
            arrays.append(array)
        batch = pa.RecordBatch.from_arrays(arrays, names=table.column_names)
        schema = batch.schema.with_metadata({_SHARED: json.dumps(shared)})
        aside = path.with_suffix(".new")
        with pa.OSFile(str(aside), "wb") as file, pa.ipc.new_file(file, schema) as writer:
            writer.write_batch(batch.replace_schema_metadata(schema.metadata))
        aside.replace(path)

    def _read(self, number: int) -> list[tuple[str, pa.Table]]:
        folder = self._folder(number)
        found = []
        for name in json.loads((folder / "names.json").read_text()):
            with pa.memory_map(str(folder / f"{name}.arrow")) as file:
                table = pa.ipc.open_file(file).read_all()
            for column in json.loads(table.schema.metadata[_SHARED]):
                array, texts = dictionaries.combine(table[column]), self.log.texts(column)
                if pa.types.is_list(array.type):
                    values = pa.DictionaryArray.from_arrays(array.flatten(), texts, safe=False)
                    array = list_cells.replace_values(array, values)
                else:
                    array = pa.DictionaryArray.from_arrays(array, texts, safe=False)
                place = table.column_names.index(column)
                table = table.set_column(place, column, array)
            found.append((name, table.replace_schema_metadata(None)))
        return found

    def whole_tables(self) -> Raw:
        """Return the tables of the sources that hold no interactions; the others have no rows."""
        return dataclasses.replace(
            self.facts, tables={**self.facts.tables, **self.log.side_tables(None)}
        )

    # ── the log as a whole ───────────────────────────────────────────────────────────────

    def _users_path(self, source: str, number: int) -> Path:
        place = list(self.log.slices).index(source)
        return self.log.folder / f"raw-users-{place}-{number:05d}"

    def _write_users(self, number: int, raw: Raw) -> None:
        """Write the distinct user ids of a raw partition, and how often they occur."""
        for source in self.log.slices:
            users = dictionaries.combine(raw.tables[source][self.log.user])
            path = self._users_path(source, number)
            write_texts(users.dictionary, path.with_suffix(".texts"))
            np.save(path.with_suffix(".npy"), dictionaries.count_texts(users)[:-1])

    def check_texts(self) -> None:
        """Warn of ids and categories of the whole log that look wrong, or refuse them.

        Raises:
            DataError: ids are written in scientific notation, or as formulas of a spreadsheet.
        """
        raw = dataclasses.replace(
            self.log.facts, tables={**self.log.facts.tables, **self.log.side_tables(None)}
        )
        found, empty = find_columns(self.recipe, raw), find_empty_columns(raw)
        for source in self.log.slices:
            for column in raw.tables[source].column_names:
                if column in found and source in found[column]:
                    found[column][source] = self._texts(source, column)
                nulls = sum(of.nulls.get(column, 0) for of in self.log.slices[source])
                if nulls == sum(of.rows for of in self.log.slices[source]):
                    empty[source].append(column)
        value_warnings.check_texts(self.recipe, raw, found, empty)
        for source in self.log.slices:
            for join in self.recipe.join:
                if join.key == self.log.user:
                    ids = self._texts(source, join.key).dictionary
                    joins.check_ids(self.recipe, raw, source, join, ids)

    def _texts(self, source: str, column: str) -> ColumnTexts:
        """Return the distinct texts of a column of a source of interactions."""
        slices = self.log.slices[source]
        lengths = [of.longest[column] for of in slices if column in of.longest]
        rows = sum(of.rows - of.nulls[column] for of in slices)
        numbers = range(self.log.partitions)
        if column == self.log.user:
            paths = [self._users_path(source, number) for number in numbers]
            texts = [read_texts(path.with_suffix(".texts")) for path in paths]
            # more text than one array holds is checked as far as it fits
            while sum(map(large_text.count_bytes, texts)) > large_text.LARGEST and len(texts) > 1:
                texts.pop()
            known = pa.concat_arrays(texts)
            counted = [np.load(path.with_suffix(".npy")) for path in paths[: len(texts)]]
            return ColumnTexts(
                known,
                lambda: np.concatenate(counted),
                rows,
                lambda wrong: self._first(source, column, known.filter(wrong)),
            )
        known = self.log.texts(column)

        def count() -> npt.NDArray[np.int64]:
            total = np.zeros(len(known), np.int64)
            for number in numbers:
                total += dictionaries.count_texts(self.log.load(number).tables[source][column])[:-1]
            return total

        return ColumnTexts(
            known,
            count,
            rows,
            lambda wrong: self._first(source, column, known.filter(wrong)),
            max(lengths) if lengths else None,
        )

    def _first(self, source: str, column: str, texts: pa.StringArray) -> tuple[int, str]:
        """Return the first row of a source with one of the given texts, and the text."""
        best: tuple[int, str] | None = None
        for number in range(self.log.partitions):
            raw = self.log.load(number)
            cells = dictionaries.flatten(raw.tables[source][column])
            row = pc.index(pc.is_in(cells.cast(pa.string()), value_set=texts), True).as_py()
            if row >= 0:
                place = int(raw.numbers[source][min(row, len(raw.numbers[source]) - 1)])
                if best is None or place < best[0]:
                    best = place, cells[row].as_py()
        assert best is not None
        return best


@dataclass(frozen=True)
class CheckLog(Step):
    """Check the texts of the log as a whole, and delete the raw rows, which are prepared now."""

    partitions: DiskPartitions

    def finish(self, total: Any, known: Known) -> None:
        self.partitions.check_texts()
        for found in self.partitions.log.slices.values():
            remove_slices(found)


def open_partitions(recipe: Recipe, log: SpilledLog, memory: Memory) -> DiskPartitions:
    """Check the log and its joins as a whole, and return its partitions.

    Args:
        recipe: the recipe.
        log: the raw partitions.
        memory: memory limit of etl.

    Raises:
        DataError: a column is missing, a joined table has an id twice, or no id of a join is found;
            or a partition does not fit into memory.
    """
    sides = dict(log.side_tables(None))
    raw = dataclasses.replace(log.facts, tables={**log.facts.tables, **sides})
    raw = interactions.pivot_events(recipe, raw, DropCounts())
    raw = interactions.add_derived(recipe, raw)
    log.write_side_tables(recipe, {name: raw.tables[name] for name in sides})
    for source in log.slices:
        for join in recipe.join:
            raw.require(join.table, join.key)
            tables.side_table(raw, join)
            if join.key != log.user and join.key in log.columns:
                joins.check_ids(recipe, raw, source, join, log.texts(join.key))
    _refuse_large(log, memory)
    empty = {name: table.schema.empty_table() for name, table in raw.tables.items()}
    return DiskPartitions(recipe, log, dataclasses.replace(raw, tables=empty))


def _refuse_large(log: SpilledLog, memory: Memory) -> None:
    """Raise an error if the largest partition does not fit into memory."""
    for source, slices in log.slices.items():
        of_partitions = sum(
            (of.partition_rows for of in slices), np.zeros(log.partitions, np.int64)
        )
        width = sum(of.path.stat().st_size for of in slices) / max(1, sum(of.rows for of in slices))
        largest = int(of_partitions.max())
        memory.refuse(f"the largest partition of source {source!r}", largest, width)
