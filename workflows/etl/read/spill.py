"""Read the sources of a recipe whose interactions are too many for memory: spill them to disk."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from workflows.etl.memory import Memory, count_partitions
from workflows.etl.read import sources
from workflows.etl.read.file_job import FileJob
from workflows.etl.read.slices import SLICE, Slice, Spilled, SpillJob, remove_slices
from workflows.etl.read.source_files import SourceFiles
from workflows.etl.read.spilled_log import SpilledLog, number_texts
from workflows.etl.workers import Workers
from workflows.recipe import Recipe

log = logging.getLogger(__name__)

#: Bytes that a job holds while it reads a slice, for the number of jobs that run at a time.
_JOB = 2 * SLICE


def choose_partitions(recipe: Recipe, opened: Mapping[str, SourceFiles], wider: int) -> int:
    """Return the number of partitions of the interactions, from the sizes of their files alone.

    Args:
        recipe: recipe that names the sources.
        opened: source → its raw files.
        wider: number of bytes by which joins and derived columns lengthen a row of the log.
    """
    names = sources.interaction_sources(recipe)
    if any(recipe.sources[name].latest or recipe.sources[name].long for name in names):
        return 1  # such rows depend on each other
    return count_partitions(
        sum(opened[name].estimate_rows() * (opened[name].width + wider) for name in names)
    )


def spill(
    recipe: Recipe,
    opened: Mapping[str, SourceFiles],
    folder: Path,
    aside: Path,
    *,
    partitions: int,
    workers: Workers,
    memory: Memory,
) -> SpilledLog:
    """Read the interactions into partitions on disk, and the other sources into tables.

    Args:
        recipe: recipe that names the sources and describes the columns.
        opened: source → its raw files.
        folder: folder of the raw files.
        aside: folder for the partitions, which is removed by the caller.
        partitions: number of partitions.
        workers: workers that read the files.
        memory: memory limit of etl.

    Raises:
        DataError: a row or cell cannot be parsed, or a table does not fit into memory.
    """
    names = sources.interaction_sources(recipe)
    others = {name: found for name, found in opened.items() if name not in names}
    facts = sources.read_tables(recipe, others, folder, workers, memory)
    others_read, facts = (
        facts.tables,
        dataclasses.replace(
            facts,
            tables={name: table.schema.empty_table() for name, table in facts.tables.items()},
        ),
    )
    found = {
        name: _spill_source(
            recipe, facts, name, opened[name], aside / f"log-{number}", partitions, workers, memory
        )
        for number, name in enumerate(names)
    }
    files = {
        name: list(zip((file.path for file in opened[name].files), of, strict=True))
        for name, of in found.items()
    }
    columns, respelt = number_texts(recipe, aside, files, workers)
    spilled = SpilledLog(
        aside,
        recipe.user_id,
        partitions,
        {name: [one for of in slices for one in of] for name, slices in found.items()},
        respelt,
        columns,
        facts,
    )
    spilled.write_side_tables(recipe, others_read)
    for name in names:
        facts.tables[name] = spilled.empty_table(name)
    for known in (facts.tables, facts.files, facts.rows, facts.columns):
        _put_in_order(known, list(opened))
    return spilled


def _put_in_order(known: dict[str, Any], names: Sequence[str]) -> None:
    """Put the sources of a dictionary in the order of the recipe."""
    for name in names:
        known[name] = known.pop(name)


def _spill_source(
    recipe: Recipe,
    facts: sources.Raw,
    name: str,
    source_files: SourceFiles,
    path: Path,
    partitions: int,
    workers: Workers,
    memory: Memory,
) -> list[list[Slice]]:
    """Spill the rows of one source; return the slices of each of its files."""
    files = source_files.jobs(memory)
    pieces = [job.pieces() for job in files]

    def spill_job(job: FileJob, file: int, piece: int) -> SpillJob:
        return SpillJob(job, recipe.user_id, partitions, Path(f"{path}-{file:05d}-{piece:05d}"))

    jobs = [
        spill_job(job, file, piece)
        for file, of in enumerate(pieces)
        for piece, job in enumerate(of)
    ]
    number = memory.jobs(workers.number, _JOB)
    results = iter(list(workers.limited(number).map(SpillJob.run, jobs)))
    found: list[list[Spilled]] = []
    for file, of in enumerate(pieces):
        some = [next(results) for _ in of]
        if not _are_consistent(some):
            for spilled in some:
                remove_slices(spilled.slices if spilled else [])
            log.info("%s is read by one reader: lines may not be rows", files[file].file.path)
            some = list(workers.map(SpillJob.run, [spill_job(files[file], file, len(of))]))
        found.append([one for one in some if one is not None])
    _add_facts(recipe, facts, name, source_files, found)
    return [[one for spilled in of for one in spilled.slices] for of in found]


def _are_consistent(pieces: Sequence[Spilled | None]) -> bool:
    """Say whether the pieces of a file were read as the whole file would be read."""
    found = [piece for piece in pieces if piece is not None]
    types = [piece.time_types for piece in found]
    return len(found) == len(pieces) and all(
        of.get(name, "None") in ("None", kind) for of in types for name, kind in types[0].items()
    )


def _add_facts(
    recipe: Recipe,
    facts: sources.Raw,
    name: str,
    source_files: SourceFiles,
    found: Sequence[Sequence[Spilled]],
) -> None:
    rows, skipped, before = list[int](), [np.array([], np.int64)], 0
    for of in found:
        for spilled in of:
            skipped.append(spilled.skipped + before)
            before += spilled.rows
            for note in spilled.notes:
                log.warning("%s", note)
        rows.append(sum(spilled.rows for spilled in of))
    empty = sum(spilled.empty for of in found for spilled in of)
    source = recipe.sources[name]
    sources.add_facts(facts, name, source, source_files, rows, skipped, empty)
