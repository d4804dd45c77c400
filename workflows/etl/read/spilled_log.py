"""The interactions of a large log on disk, in partitions by user, beside the other tables.

Texts of a column other than the user id have one number in all partitions, so that counts of
different partitions can be added without a look at the texts. User ids are numbered in each
partition alone, as no other partition has them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from workflows.etl.read import canonical
from workflows.etl.read.routing import assign_partitions
from workflows.etl.read.slices import ROW, Slice, read_batch, write_batches
from workflows.etl.read.sources import Raw
from workflows.etl.workers import Workers
from workflows.ground.errors import DataError
from workflows.raw import dictionaries, spelling
from workflows.recipe import Recipe


@dataclass(frozen=True)
class SpilledLog:
    """The partitions of the interactions, which any process that sees the folder can load.

    Attributes:
        folder: folder of the files.
        user: name of the column of user ids.
        partitions: number of partitions.
        slices: source of interactions → its slices, in the order of its rows.
        respelt: source of interactions → whether the user ids of each slice get their canonical
            spelling.
        columns: names of the columns of text other than the user id.
        facts: what is known of the sources without their rows: `Raw` with empty tables.
    """

    folder: Path
    user: str
    partitions: int
    slices: dict[str, list[Slice]]
    respelt: dict[str, list[bool]]
    columns: list[str]
    facts: Raw

    def texts(self, column: str) -> pa.StringArray:
        """Return the distinct texts of a column, in the order of their numbers."""
        return read_shared_texts(self.texts_path(column))

    def texts_path(self, column: str) -> Path:
        """Return the path of the distinct texts of a column."""
        return self.folder / f"{self.columns.index(column)}.texts"

    def sizes(self) -> dict[str, int]:
        """Return source → number of rows of its table, in the order of the recipe's sources."""
        sides = self.side_tables(None)
        found = {name: sum(of.rows for of in slices) for name, slices in self.slices.items()}
        found |= {name: len(table) for name, table in sides.items()}
        return {name: found[name] for name in self.facts.tables}

    def load(self, partition: int) -> Raw:
        """Return the interactions of one partition, in the order of the files, and all tables."""
        batches = {s: [of.batch(partition) for of in slices] for s, slices in self.slices.items()}
        users = self._users(batches, partition)
        tables = self.side_tables(partition)
        numbers = {}
        for source, found in batches.items():
            names = [name for name in found[0].schema.names if name != ROW]
            tables[source] = pa.table(
                {
                    name: users[source] if name == self.user else self._column(source, found, name)
                    for name in names
                }
            )
            bases = np.cumsum([0, *(of.rows for of in self.slices[source])])
            numbers[source] = np.concatenate(
                [batch[ROW].to_numpy() + base for batch, base in zip(found, bases, strict=False)]
            )
            tables[source] = tables[source].append_column(ROW, pa.array(numbers[source]))
        return dataclasses.replace(self.facts, tables=tables, numbers=numbers)

    def empty_table(self, source: str) -> pa.Table:
        """Return a table with the columns of the interactions of a source, and no rows."""
        return self.load(0).tables[source].slice(0, 0)

    def side_tables(self, partition: int | None) -> dict[str, pa.Table]:
        """Return the tables of the sources that hold no interactions.

        Args:
            partition: number of a partition, for whose users alone a table with user ids is
                returned; None for whole tables.
        """
        found = {}
        for number, name in enumerate(self._side_names()):
            with pa.memory_map(f"{self.folder / 'tables'}-{number}") as file:
                reader = pa.ipc.open_file(file)
                if partition is None or reader.num_record_batches < self.partitions:
                    found[name] = reader.read_all()
                else:
                    found[name] = pa.Table.from_batches([reader.get_batch(partition)])
        return found

    def write_side_tables(self, recipe: Recipe, tables: Mapping[str, pa.Table]) -> None:
        """Write the tables of the sources that hold no interactions, for `side_tables`.

        Args:
            recipe: recipe with the joins; a table that is joined by users is ordered by partition.
            tables: source → its table.
        """
        by_user = {join.table for join in recipe.join if join.key == self.user}
        for number, name in enumerate(self._side_names()):
            table, ends = tables[name], np.array([len(tables[name])])
            if name in by_user:
                ids = dictionaries.combine(table[self.user])
                owners = assign_partitions(ids.dictionary, self.partitions)[ids.indices.to_numpy()]
                order = pa.array(np.argsort(owners, kind="stable"))
                table = pa.table(
                    {c: dictionaries.take(table[c], order) for c in table.column_names}
                )
                ends = np.cumsum(np.bincount(owners, minlength=self.partitions))
            write_batches(self.folder / f"tables-{number}", table, ends)

    def _side_names(self) -> list[str]:
        return [name for name in self.facts.tables if name not in self.slices]

    def _users(
        self, batches: Mapping[str, Sequence[pa.RecordBatch]], partition: int
    ) -> dict[str, pa.Array]:
        """Number the user ids of one partition in the order of their appearance."""
        arrays = []
        for source, found in batches.items():
            spelt = zip(found, self.slices[source], self.respelt[source], strict=True)
            for batch, of, is_respelt in spelt:
                first, end = (int(bound) for bound in of.bounds[partition : partition + 2])
                texts = of.texts(self.user)[first:end]
                if is_respelt:
                    texts = pc.coalesce(spelling.canonical(texts), texts)
                numbers = pc.subtract(batch[self.user], pa.scalar(first, pa.int32()))
                arrays.append(pa.DictionaryArray.from_arrays(numbers, texts, safe=False))
        unified = pa.chunked_array(arrays).unify_dictionaries()
        texts, numbers = unified.chunk(0).dictionary, [chunk.indices for chunk in unified.chunks]
        users = {}
        for source, found in batches.items():
            mine, numbers = numbers[: len(found)], numbers[len(found) :]
            users[source] = pa.DictionaryArray.from_arrays(
                pa.concat_arrays(mine), texts, safe=False
            )
        return users

    def _column(self, source: str, found: Sequence[pa.RecordBatch], name: str) -> pa.Array:
        if name not in self.columns:
            return pa.concat_arrays([batch[name] for batch in found])
        at, texts = self.columns.index(name), self.texts(name)
        arrays = []
        for batch, of in zip(found, self.slices[source], strict=True):
            table = pa.array(np.load(_map_path(of, at), mmap_mode="r"))
            array = batch[name]
            if pa.types.is_list(array.type):
                arrays.append((pc.list_value_length(array), table.take(array.flatten())))
            else:
                arrays.append((None, table.take(array)))
        numbers = pa.concat_arrays([of for _, of in arrays])
        column = pa.DictionaryArray.from_arrays(numbers, texts, safe=False)
        lengths = [length for length, _ in arrays if length is not None]
        return dictionaries.make_lists(pa.concat_arrays(lengths), column) if lengths else column


def _map_path(of: Slice, column: int) -> Path:
    """Return the path of the file with the number, in all slices, of each text of a slice."""
    return of.path.with_suffix(f".{column}.npy")


def read_texts(path: Path) -> pa.StringArray:
    """Return the texts that `write_texts` wrote; their bytes are read when they are used."""
    return read_batch(path, 0).column(0).values


@functools.lru_cache(maxsize=64)
def read_shared_texts(path: Path) -> pa.StringArray:
    """Return the texts of a column of the whole log: one array for all who ask in this process."""
    return read_texts(path)


def write_texts(texts: pa.Array, path: Path) -> None:
    """Write texts to an Arrow file."""
    batch = pa.RecordBatch.from_arrays(
        [pa.LargeListArray.from_arrays(pa.array([0, len(texts)], pa.int64()), texts)], ["texts"]
    )
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)


def number_texts(
    recipe: Recipe,
    folder: Path,
    files: Mapping[str, Sequence[tuple[Path, Sequence[Slice]]]],
    workers: Workers,
) -> tuple[list[str], dict[str, list[bool]]]:
    """Give each text of a column, other than user ids, one number in all slices, on disk.

    Args:
        recipe: recipe that describes the columns.
        folder: folder for the files of texts.
        files: source of interactions → its raw files, each with its slices.
        workers: workers that number the columns.

    Returns:
        The names of the columns; and source → whether each slice's user ids are respelt.

    Raises:
        DataError: a whole number is written as a float and is too long to be exact.
    """
    names = dict.fromkeys(
        column
        for found in files.values()
        for _, slices in found
        for of in slices[:1]
        for column in of.columns()
    )
    columns = [name for name in names if name != recipe.user_id]
    respelt: dict[str, list[bool]] = {}
    for source, found in files.items():
        respelt[source] = []
        for path, slices in found:
            texts = [of.texts(recipe.user_id) for of in slices]
            changed = _respell(recipe, recipe.user_id, path, texts)
            respelt[source] += [changed is not None] * len(slices)
    jobs = [
        _Numbering(recipe, column, at, folder / f"{at}.texts", files)
        for at, column in enumerate(columns)
    ]
    for _ in workers.map(_Numbering.run, jobs):
        """Wait for each of them."""
    return columns, respelt


def _respell(
    recipe: Recipe, column: str, path: Path, texts: list[pa.StringArray]
) -> list[pa.StringArray] | None:
    feature = recipe.features.get(column)
    if feature is None or not feature.meaning.has_codes:
        return None
    where = f"{path}, column {column!r}"
    return canonical.respell_texts(texts, is_id=feature.id, where=where)


@dataclass(frozen=True)
class _Numbering:
    """A job that numbers the texts of one column of all slices."""

    recipe: Recipe
    column: str
    at: int
    path: Path
    files: Mapping[str, Sequence[tuple[Path, Sequence[Slice]]]]

    def run(self) -> None:
        """Write the texts in the order of their numbers, and the numbers of each slice's texts."""
        known = pa.array([], pa.string())
        none = pa.array([], pa.int32())
        for found in self.files.values():
            for path, slices in found:
                mine = [of for of in slices if self.column in of.columns()]
                texts = [of.texts(self.column) for of in mine]
                texts = _respell(self.recipe, self.column, path, texts) or texts
                # a few slices at a time: each text is looked up only a few times
                for first in range(0, len(mine), _TOGETHER):
                    some = [
                        pa.DictionaryArray.from_arrays(
                            pa.array(np.arange(len(of), dtype=np.int32)), of
                        )
                        for of in texts[first : first + _TOGETHER]
                    ]
                    old = pa.DictionaryArray.from_arrays(none, known)
                    try:
                        chunks = pa.chunked_array([old, *some]).unify_dictionaries().chunks
                    except pa.ArrowCapacityError:
                        raise _too_long(self.column) from None
                    known = chunks[0].dictionary
                    for of, chunk in zip(mine[first:], chunks[1:], strict=False):
                        np.save(_map_path(of, self.at), chunk.indices.to_numpy())
        write_texts(known, self.path)


#: Number of slices whose texts are numbered together.
_TOGETHER = 64


def _too_long(column: str) -> DataError:
    return DataError(
        f"Column {column!r} has more than 2 GiB of distinct text. Leave it out of the features, or "
        "read fewer files."
    )
