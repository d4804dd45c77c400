"""Encode the rows of one part file (one parquet file of a split or table) and write the file."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import nvtabular as nvt
import pyarrow as pa
import pyarrow.parquet as pq
from merlin.schema import Schema
from pyarrow import feather

from models.core.reserved_codes import NULL, UNSEEN
from workflows.etl.encode import graph, ops
from workflows.etl.encode.ops import CodeTable, Int32s
from workflows.ground.statistics import NumberFact
from workflows.raw import dictionaries
from workflows.recipe import Recipe
from workflows.recipe.kinds.number import MISSING

#: Number of rows of a row group of the parquet part files.
GROUP = 1 << 17
#: A column with more codes than this is written without a dictionary: the dictionary would be
#: nearly as large as the column, and would take half of the time to write.
_DICTIONARY = 1 << 14


@dataclass
class CellCounts:
    """Numbers of cells of a text column: all cells, cells with an unseen value, missing cells."""

    cells: int = 0
    unseen: int = 0
    null: int = 0

    def add(self, other: CellCounts) -> None:
        """Add the counts of further cells of the same text column."""
        self.cells += other.cells
        self.unseen += other.unseen
        self.null += other.null


@dataclass(frozen=True)
class Plan:
    """The recipe, vocabulary codes and statistics that are needed to encode a split or table.

    Attributes:
        recipe: recipe that describes the features.
        columns: the columns of the data frame that is encoded.
        numbers: number column → its mean, its standard deviation and the value that fills gaps.
        sizes: column → size of its vocabulary, and number of its codes for unseen values.
        arrays: `codes of <column>` or `rows of <column>` → the vocabulary code or table row for
            each dictionary index; or the path of a file with these arrays.
        on_gpu: whether the data frames that NVTabular encodes are cuDF.
    """

    recipe: Recipe
    columns: list[str]
    numbers: dict[str, NumberFact]
    sizes: dict[str, tuple[int, int]]
    arrays: Mapping[str, Int32s] | Path
    on_gpu: bool

    @cached_property
    def workflow(self) -> nvt.Workflow:
        """The NVTabular workflow that encodes the rows."""
        arrays = dict(np.load(self.arrays)) if isinstance(self.arrays, Path) else self.arrays
        lookups = {c: CodeTable(arrays[f"codes of {c}"], *size) for c, size in self.sizes.items()}
        rows = {c: arrays[f"rows of {c}"] for c in self.columns if f"rows of {c}" in arrays}
        return graph.build_workflow(self.recipe, lookups, self.numbers, self.columns, rows=rows)

    @cached_property
    def schema(self) -> Schema:
        """The Arrow schema of the parquet part files, with the columns in the recipe's order."""
        found = self.workflow.output_schema
        own = [n for c in self.columns if c != self.recipe.time for n in (c, c + MISSING)]
        first = [name for name in own if name in found.column_names]
        rest = [name for name in found.column_names if name not in first]
        return Schema([found[name] for name in (*first, *rest)])

    def fits(self, columns: list[str], arrays: Mapping[str, Int32s]) -> bool:
        """Return whether the plan is for a table with these columns and these arrays of codes."""
        mine = self.arrays
        return (
            columns == self.columns
            and not isinstance(mine, Path)
            and mine.keys() == arrays.keys()
            and all(mine[name] is array for name, array in arrays.items())
        )

    def with_dictionary(self, schema: pa.Schema) -> list[str]:
        """Return the names of the columns that parquet stores in less space with a dictionary."""
        of = self.recipe.history_inputs
        found = []
        for column in schema:
            size, _ = self.sizes.get(of.get(column.name, column.name), (0, 0))
            is_own = column.name in self.columns or column.name in of
            if is_own and column.name != self.recipe.time and size <= _DICTIONARY:
                found.append(leaf_name(column))
        return found

    def spill_to_disk(self, folder: Path) -> Plan:
        """Return a copy of the plan for a worker process, with the arrays of codes in a file."""
        assert not isinstance(self.arrays, Path)
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".npz", delete=False) as file:
            np.savez(file, **self.arrays)
        return replace(self, arrays=Path(file.name))


@dataclass(frozen=True)
class Job:
    """A job that encodes some rows of a split or table, and writes them to a parquet part file.

    Attributes:
        plan: settings, vocabularies and statistics by which the rows are encoded.
        rows: the rows to encode, as `ops.to_indices` returns them, with encoded history columns; or
            the path of a file with these rows.
        path: the path of the parquet part file.
        aside: folder in which the part file is written before it is moved to `path`.
        block: number of rows that are encoded at a time.
    """

    plan: Plan
    rows: pa.Table | Path
    path: Path
    aside: Path
    block: int

    def spill_to_disk(self) -> Job:
        """Return a copy of the job for a worker process, with the rows to encode in a file."""
        with tempfile.NamedTemporaryFile(dir=self.aside, suffix=".arrow", delete=False) as file:
            feather.write_feather(self.rows, file, compression="uncompressed")
        return replace(self, rows=Path(file.name))

    def write(self) -> dict[str, CellCounts]:
        """Encode the rows and write the part file; a second run of the job writes the same file.

        Returns:
            Text column → the numbers of its cells, of its unseen values and of its missing values.
        """
        rows = feather.read_table(self.rows) if isinstance(self.rows, Path) else self.rows
        workflow, raw = self.plan.workflow, rows.select(self.plan.columns)
        # NVTabular needs at least one row, so an empty part gets a row, which is dropped below
        blocks = [raw[block] for block in dictionaries.blocks(len(raw), self.block)] or [
            _zeros(raw)
        ]
        made = [
            ops.to_table(workflow.transform(ops.to_frame(block, on_gpu=self.plan.on_gpu)))
            for block in blocks
        ]
        table = pa.concat_tables(made).slice(0, len(raw)).select(self.plan.schema.column_names)
        for name in rows.column_names[len(self.plan.columns) :]:
            table = table.append_column(name, rows[name])
        with tempfile.TemporaryDirectory(dir=self.aside) as aside:
            file = Path(aside) / self.path.name
            # Arrow ends a page where a chunk ends, and chunks depend on the block
            pq.write_table(
                table.combine_chunks(),
                file,
                row_group_size=GROUP,
                use_dictionary=self.plan.with_dictionary(table.schema),
                use_compliant_nested_type=True,
            )
            file.replace(self.path)
        return {
            c: _count_cells(table[c], UNSEEN + buckets)
            for c, (_, buckets) in self.plan.sizes.items()
        }


def leaf_name(column: pa.Field) -> str:
    """Return the name that parquet gives to a column's values: longer for lists."""
    return f"{column.name}.list.element" if pa.types.is_list(column.type) else column.name


def _zeros(raw: pa.Table) -> pa.Table:
    """Return one row of zeros with a table's columns, because NVTabular needs at least one row."""
    zeros: dict[str, object] = {f.name: [] if pa.types.is_list(f.type) else 0 for f in raw.schema}
    return pa.Table.from_pylist([zeros], raw.schema)


def _count_cells(column: pa.ChunkedArray, first: int) -> CellCounts:
    found = CellCounts()
    for chunk in column.chunks:
        of = (chunk.flatten() if pa.types.is_list(chunk.type) else chunk).to_numpy()
        null = int((of == NULL).sum())
        found.add(CellCounts(len(of), int((of < first).sum()) - null, null))
    return found
