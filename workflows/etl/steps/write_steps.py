"""The last step: encode the interactions of a partition, and write its part files."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from workflows.etl.encode.lookups import (
    LookupFiles,
    Lookups,
    PartitionLookups,
    find_unknown_users,
)
from workflows.etl.encode.writer import Shares, Writer, add_shares
from workflows.etl.shape import split
from workflows.etl.shape.seen import Seen
from workflows.etl.steps.learn_steps import event_kinds, feature_columns
from workflows.etl.steps.step import Known, Rows, Step
from workflows.ground.statistics import NumberFact
from workflows.raw import dictionaries
from workflows.recipe import Recipe
from workflows.stages.etl import LATEST, EtlFiles


@dataclass(frozen=True)
class WriteParts(Step):
    """Encode the interactions of a partition on disk, and write its part files.

    Attributes:
        recipe: the recipe.
        numbers: number column → its mean, its standard deviation and the value that fills gaps.
        files: what the partitions look up.
        on_gpu: whether the data frames that NVTabular encodes are cuDF.
        block: number of rows that are encoded at a time.
        unknown: number of unknown users of all earlier partitions, for each partition.
    """

    recipe: Recipe
    numbers: dict[str, NumberFact]
    files: LookupFiles
    on_gpu: bool
    block: int
    unknown: tuple[int, ...]

    def look(self, rows: Rows) -> Shares:
        recipe, user = self.recipe, self.recipe.user_id
        known, _ = self.files.of_partition("users", rows.number)
        lookups = PartitionLookups(
            self.files,
            rows.number,
            find_unknown_users(rows.parts, user, known),
            self.unknown[rows.number],
        )
        kinds = event_kinds(recipe, rows.parts)
        parts = {part: feature_columns(recipe, table) for part, table in rows.parts.items()}
        if rows.seen:
            table = seen_rows(recipe, rows.seen, lookups)
            pq.write_table(table, seen_path(self.files, rows.number))
        rows.parts, rows.seen = {}, None
        with tempfile.TemporaryDirectory(dir=self.files.aside) as aside:
            writer = Writer(
                recipe,
                self.numbers,
                self.files.folder,
                Path(aside),
                on_gpu=self.on_gpu,
                block=self.block,
                partition=rows.number,
            )
            return writer.run(writer.split_jobs(parts, lookups, kinds), None)

    def add(self, total: Shares | None, facts: Shares) -> Shares:
        return add_shares(total or {}, facts)

    def finish(self, total: Shares, known: Known) -> None:
        add_shares(known.shares, total)


@dataclass(frozen=True)
class CountUnknown(Step):
    """Count the users of valid and test that the user table lacks."""

    recipe: Recipe

    def look(self, rows: Rows) -> list[int]:
        user = self.recipe.user_id
        columns = [rows.parts["train"][user]]
        columns += [rows.raw.tables[j.table][user] for j in self.recipe.join if j.key == user]
        ids = pa.concat_arrays([dictionaries.distinct_texts(column) for column in columns])
        return [len(find_unknown_users(rows.parts, user, ids))]

    def finish(self, total: list[int], known: Known) -> None:
        before = [0]
        for n in total:
            before.append(before[-1] + n)
        known.unknown = tuple(before[:-1])


def seen_rows(recipe: Recipe, seen: Seen, lookups: Lookups) -> pa.Table:
    """Return the rows of the file of dropped interactions that count as seen."""
    return seen.rows(*lookups.known(recipe.user_id), *lookups.known(recipe.item_id))


def seen_path(files: LookupFiles, partition: int) -> Path:
    """Return the path of the dropped interactions of a partition that count as seen."""
    return files.aside / f"seen-{partition:05d}.parquet"


def join_seen(files: LookupFiles, partitions: int) -> None:
    """Write the dropped interactions of all partitions that count as seen into one file."""
    paths = [seen_path(files, number) for number in range(partitions)]
    with pq.ParquetWriter(EtlFiles(files.folder).seen, pq.read_schema(paths[0])) as writer:
        for path in paths:
            writer.write_table(pq.read_table(path))


def write_partition_sizes(files: LookupFiles, partitions: int) -> None:
    """Write how many part files each partition of each table has, for readers of partitions."""
    stage = EtlFiles(files.folder)
    for name in (*split.PARTS, LATEST):
        folder = stage.table(name)
        if folder.is_dir():
            sizes = [len(list(folder.glob(f"part-{n:05d}-*"))) for n in range(partitions)]
            stage.partition_sizes(name).write_text(json.dumps(sizes))
