"""The verb etl: turn raw interaction logs into encoded splits, tables and vocabularies.

The package etl.read reads the raw files, etl.shape joins, filters and splits the interactions,
etl.check warns of odd values, and etl.encode turns values into vocabulary codes and writes the etl
stage.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from models.core import atomic
from workflows.derive.cells import as_float32
from workflows.derive.fitted import read as read_states
from workflows.derive.fitted import write as write_states
from workflows.etl import earlier_run
from workflows.etl.check import value_warnings
from workflows.etl.counts import DropCounts
from workflows.etl.encode import graph, writer
from workflows.etl.encode.graph import Fitted
from workflows.etl.encode.parts import CellCounts
from workflows.etl.memory import Memory, parse_size
from workflows.etl.read import sources
from workflows.etl.read.sources import Raw
from workflows.etl.shape import filters, interactions, split, tables
from workflows.etl.shape.history import EventKinds
from workflows.etl.shape.seen import Seen
from workflows.etl.shape.tables import Table
from workflows.etl.threads import map_threads
from workflows.etl.workers import Workers, open_workers
from workflows.ground.column_names import IN_TRAIN
from workflows.ground.device import Device
from workflows.read.opening import BLOCK
from workflows.recipe import Recipe
from workflows.stages.etl import EtlFiles, EtlReport
from workflows.stages.store import Store

log = logging.getLogger(__name__)

#: Part of the split (train, valid or test) → its interactions.
Parts = dict[split.Part, pa.Table]


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
    """

    dask: str = ""
    workers: int = 0
    memory: str = ""
    chunk: str = ""

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
    ):
        earlier = earlier_run.checked_folder(recipe, grow_from, store) if grow_from else None
        counts = DropCounts()
        raw, raw_facts = _read(recipe, data, engine, workers, memory, counts, hasher)
        log_parts, seen = _split(recipe, raw, counts)
        raw = raw.without_rows(interactions.interaction_sources(recipe))
        raw, log_parts = _fit_columns(recipe, raw, log_parts, earlier, draft.folder)
        stage = _fit(recipe, raw, log_parts, counts, earlier, draft.folder)
        shares = writer.write(
            recipe,
            stage.fitted,
            stage.parts,
            stage.users,
            stage.items,
            device,
            draft.folder,
            workers=workers,
            memory=memory,
            kinds=stage.kinds,
            seen=seen,
        )
        stage.warn(recipe)
        report = _report(raw_facts, counts, shares, stage)
        text = msgspec.json.format(msgspec.json.encode(report), indent=2)
        EtlFiles(draft.folder).report.write_bytes(text)
        draft.rows = {**report.rows, "users": report.users["rows"], "items": report.items["rows"]}
    return EtlResult(store.folder("etl"), report, time.perf_counter() - start)


@dataclass(frozen=True)
class _RawFacts:
    """The number of rows and the hashes of the raw files, for the report.

    Attributes:
        read: source of the recipe → number of rows that were read.
        files: raw file → its SHA-256, which a thread computes.
    """

    read: dict[str, int]
    files: dict[str, Future[str]]


@dataclass(frozen=True)
class _Stage:
    """The vocabularies, splits and tables of the etl stage before they are encoded.

    Attributes:
        fitted: vocabularies of text columns and statistics of number columns.
        parts: part of the split (train, valid, test) → its interactions, with the columns that are
            features.
        users, items: the user table and the item table.
        kinds: part of the split → kind of event (such as view or buy) of each interaction, if only
            some kinds are targets of the model; else empty.
    """

    fitted: Fitted
    parts: Parts
    users: Table
    items: Table
    kinds: dict[split.Part, EventKinds]

    @property
    def sizes(self) -> dict[split.Part, int]:
        """For train, valid and test, the number of interactions that are targets of the model."""
        sizes = {part: len(table) for part, table in self.parts.items()}
        return sizes | {part: int(kinds.targets.sum()) for part, kinds in self.kinds.items()}

    def warn(self, recipe: Recipe) -> None:
        """Warn of splits with few rows, and of users or items with several values of a feature."""
        split.warn_of_few(self.sizes)
        for table in (self.users, self.items):
            tables.warn_of_conflicts(recipe, table)


def _read(
    recipe: Recipe,
    data: Path,
    engine: Engine,
    workers: Workers,
    memory: Memory,
    counts: DropCounts,
    hasher: Executor,
) -> tuple[Raw, _RawFacts]:
    """Read the raw files, and add the derived columns that need no fit on the training rows."""
    raw = sources.read(
        recipe.of_raw_files(), data, block=engine.block, workers=workers, memory=memory
    )
    log.info("read %s", ", ".join(f"{n} {t.num_rows:,}" for n, t in raw.tables.items()))
    value_warnings.check_texts(recipe, raw)
    for name, skipped in raw.skipped.items():
        if recipe.sources[name].format == "aliccp":
            counts.add(sources.SKIPPED, len(skipped))
    facts = _RawFacts(
        {name: table.num_rows for name, table in raw.tables.items()},
        {
            raw.name(path): hasher.submit(atomic.sha256, path)
            for paths in raw.files.values()
            for path in paths
        },
    )
    return interactions.add_derived(recipe, interactions.pivot_events(recipe, raw, counts)), facts


def _split(recipe: Recipe, raw: Raw, counts: DropCounts) -> tuple[Parts, Seen | None]:
    """Split the interactions, and apply the filter rules that need no fitted columns."""
    parts, seen = interactions.split_rows(recipe, raw, counts)
    parts = filters.filter_parts(recipe, parts, counts, stage="before")
    _refuse_empty_parts(recipe, parts, counts)
    return parts, seen


def _fit_columns(
    recipe: Recipe, raw: Raw, parts: Parts, earlier: Path | None, folder: Path
) -> tuple[Raw, Parts]:
    """Fit derived columns (clusters, frequent values) on train, and add them to all tables."""
    older = read_states(earlier) if earlier else {}
    states, parts = interactions.fit_columns(recipe, parts, older)
    write_states(states, folder)
    return interactions.add_fitted(recipe, raw, states), parts


def _fit(
    recipe: Recipe,
    raw: Raw,
    parts: Parts,
    counts: DropCounts,
    earlier: Path | None,
    folder: Path,
) -> _Stage:
    """Fit vocabularies and statistics on train, write them, and build user and item tables."""
    fitted = graph.fit(recipe, _features(recipe, parts["train"]))
    if any(rule.stage == "after" for rule in recipe.filter):
        parts = filters.filter_parts(recipe, parts, counts, stage="after")
        _refuse_empty_parts(recipe, parts, counts)
    value_warnings.check_weights(recipe, parts["train"])
    features = {part: _features(recipe, table) for part, table in parts.items()}
    built = map_threads(tables.ROLES, lambda role: tables.build(recipe, raw, parts["train"], role))
    if earlier:
        fitted = fitted.grow_from(Fitted.read(earlier))
    _warn_of_rare_values(recipe, fitted)
    fitted.write(folder)
    kinds = _event_kinds(recipe, parts, counts)
    return _Stage(fitted, features, built["user"], built["item"], kinds)


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


def _features(recipe: Recipe, table: pa.Table) -> pa.Table:
    """Return the feature columns of a table of interactions, with numbers as float32."""
    names = [name for name in recipe.features if name in table.column_names]
    return pa.table({name: as_float32(table[name]) for name in names})


def _event_kinds(recipe: Recipe, parts: Parts, counts: DropCounts) -> dict[split.Part, EventKinds]:
    """Return split → kind of event of its interactions, if only one kind is a target; else {}."""
    if recipe.history is None or recipe.history.events is None:
        return {}
    events = recipe.history.events
    kinds = {part: EventKinds.of(table[events.column], events) for part, table in parts.items()}
    targets = {part: int(found.targets.sum()) for part, found in kinds.items()}
    split.refuse_empty(
        {part: n for part, n in targets.items() if len(parts[part])},
        f"Rows whose {events.column!r} is not {events.target!r} are only in histories.",
    )
    others = sum(len(table) for table in parts.values()) - sum(targets.values())
    counts.add(f"no {events.target}: in histories only", others)
    return kinds


def _added_bytes(recipe: Recipe) -> int:
    """Return the largest number of bytes that joins and derived columns add to an interaction."""
    raw = recipe.of_raw_files().features
    joined = [name for name in recipe.features if len(recipe.join) and name in raw]
    return 4 * len({*joined, *(step.to for step in recipe.derive)})


def _refuse_empty_parts(recipe: Recipe, parts: Parts, counts: DropCounts) -> None:
    """Raise an error if train, valid or test has no rows, unless its share in the recipe is 0."""
    wanted = [
        part
        for part in split.PARTS
        if part == "train" or getattr(recipe.split, part) not in (0, None)
    ]
    split.refuse_empty({part: len(parts[part]) for part in wanted}, counts.describe_drops())


def _report(
    facts: _RawFacts,
    counts: DropCounts,
    shares: Mapping[str, Mapping[str, CellCounts]],
    stage: _Stage,
) -> EtlReport:
    of_parts = {part: shares[part] for part in split.PARTS}
    return EtlReport(
        read=facts.read,
        files={name: digest.result() for name, digest in facts.files.items()},
        dropped=counts.dropped,
        unmatched=counts.unmatched,
        rows={part: stage.sizes[part] for part in split.PARTS},
        users=_table_facts(stage.users, unknown_rows=1),
        items=_table_facts(stage.items, unknown_rows=0),
        conflicts={**stage.users.conflicts, **stage.items.conflicts},
        unseen={
            part: {name: share.unseen / max(1, share.cells) for name, share in columns.items()}
            for part, columns in of_parts.items()
        },
        null={
            part: {name: share.null / max(1, share.cells) for name, share in columns.items()}
            for part, columns in of_parts.items()
        },
    )


def _table_facts(table: Table, *, unknown_rows: int) -> dict[str, int]:
    in_train = int(pc.sum(table.frame[IN_TRAIN]).as_py() or 0)
    return {"rows": len(table.frame) - unknown_rows, IN_TRAIN: in_train}
