"""Raw interaction logs in; encoded, schema-tagged splits, tables and vocabularies out."""

from __future__ import annotations

import dataclasses
import logging
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from models.core import atomic
from workflows.etl.check import value_warnings
from workflows.etl.counts import Counts
from workflows.etl.encode import graph, writer
from workflows.etl.encode.graph import Fitted
from workflows.etl.encode.parts import Shares
from workflows.etl.memory import Memory, parsed
from workflows.etl.read import sources
from workflows.etl.read.sources import Raw
from workflows.etl.shape import filters, learnt, rows, split, tables
from workflows.etl.shape.history import Happened
from workflows.etl.shape.tables import Table
from workflows.etl.threads import map_threads
from workflows.etl.workers import Workers, hired
from workflows.ground.column_names import IN_TRAIN
from workflows.ground.device import Device
from workflows.ground.errors import ArtifactError
from workflows.recipe import Recipe
from workflows.stages.etl import EtlFiles, EtlReport
from workflows.stages.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EtlResult:
    """Where the stage lies, and what it counted."""

    folder: Path
    report: EtlReport
    seconds: float


@dataclass(frozen=True)
class Engine:
    """Who does the work, and in how much memory.

    Attributes:
        dask: "" for threads of this process, `local`, `cuda`, or a scheduler's address.
        workers: threads or processes; 0 for one a core, worker or GPU.
        memory: what may be taken, such as 8GiB; "" for half of what the machine has.
        chunk: raw text that is read at a time, such as 8MiB; "" for that.
    """

    dask: str = ""
    workers: int = 0
    memory: str = ""
    chunk: str = ""

    @property
    def block(self) -> int:
        """Bytes of raw text that are read at a time."""
        return parsed(self.chunk, "--chunk") if self.chunk else sources.BLOCK


def etl(
    recipe: Recipe,
    store: Store,
    device: Device,
    *,
    data: Path,
    grow_from: Store | None = None,
    engine: Engine | None = None,
) -> EtlResult:
    """Read raw files and write the etl stage.

    Args:
        recipe: what the data is.
        store: the run to write into.
        device: chosen for this process.
        data: folder of the raw files.
        grow_from: keep the codes of this run's etl stage, and append values that are new.
        engine: who does the work, in how much memory; what is written does not depend on it.

    Raises:
        DataError: the raw data is not what the recipe says, or does not fit into memory.
    """
    start = time.perf_counter()
    engine = engine or Engine()
    memory = dataclasses.replace(Memory.of(engine.memory), wider=_wider(recipe))
    with (
        ThreadPoolExecutor(1) as hasher,
        hired(engine.dask, number=engine.workers, device=device, memory=memory) as workers,
        store.write("etl", recipe, device) as draft,
    ):
        earlier = _checked(recipe, grow_from, store) if grow_from else None
        counts = Counts()
        raw, about = _read(recipe, data, engine, workers, memory, counts, hasher)
        divided, seen = rows.divided(recipe, raw, counts)
        found = filters.parts(recipe, divided, counts, stage="before")
        _refuse_emptied(recipe, found, counts)
        raw = raw.without_rows(rows.interactions(recipe))  # they are in the parts
        older = learnt.read(earlier) if earlier else {}
        states, found = rows.learn(recipe, found, older)
        learnt.write(states, draft.folder)
        raw = rows.with_learnt(recipe, raw, states)
        fitted = graph.fit(recipe, _features(recipe, found["train"]))
        if any(rule.stage == "after" for rule in recipe.filter):
            found = filters.parts(recipe, found, counts, stage="after")
            _refuse_emptied(recipe, found, counts)
        value_warnings.check_weights(recipe, found["train"])
        parts = {part: _features(recipe, table) for part, table in found.items()}
        built = map_threads(
            tables.ROLES, lambda role: tables.build(recipe, raw, parts["train"], role)
        )
        users, items = built["user"], built["item"]
        if earlier:
            fitted = fitted.grown_from(Fitted.read(earlier))
        fitted.write(draft.folder)
        happened = _happened(recipe, found, counts)
        shares = writer.write(
            recipe,
            fitted,
            parts,
            users,
            items,
            device,
            draft.folder,
            workers=workers,
            memory=memory,
            happened=happened,
            seen=seen,
        )
        sizes = {part: len(table) for part, table in parts.items()}
        sizes |= {part: int(of.targets.sum()) for part, of in happened.items()}
        split.warn_of_few(sizes)
        for table in (users, items):
            tables.warn_of_conflicts(recipe, table)
        report = _report(about, counts, shares, sizes, users, items)
        text = msgspec.json.format(msgspec.json.encode(report), indent=2)
        EtlFiles(draft.folder).report.write_bytes(text)
        draft.rows = {**report.rows, "users": report.users["rows"], "items": report.items["rows"]}
    return EtlResult(store.folder("etl"), report, time.perf_counter() - start)


@dataclass(frozen=True)
class _About:
    """What is told of the raw files: source → rows, file → its SHA-256, which a thread works on."""

    read: dict[str, int]
    files: dict[str, Future[str]]


def _read(
    recipe: Recipe,
    data: Path,
    engine: Engine,
    workers: Workers,
    memory: Memory,
    counts: Counts,
    hasher: Executor,
) -> tuple[Raw, _About]:
    """Read the raw files, and make the columns that are made of one row each."""
    raw = sources.read(
        recipe.of_raw_files(), data, block=engine.block, workers=workers, memory=memory
    )
    log.info("read %s", ", ".join(f"{n} {t.num_rows:,}" for n, t in raw.tables.items()))
    value_warnings.check_texts(recipe, raw)
    for name, skipped in raw.skipped.items():
        if recipe.sources[name].format == "aliccp":
            counts.count(sources.SKIPPED, len(skipped))
    about = _About(
        {name: table.num_rows for name, table in raw.tables.items()},
        {
            raw.name(path): hasher.submit(atomic.sha256, path)
            for paths in raw.files.values()
            for path in paths
        },
    )
    return rows.with_derived(recipe, rows.pivoted(recipe, raw, counts)), about


def _features(recipe: Recipe, table: pa.Table) -> pa.Table:
    names = [name for name in recipe.features if name in table.column_names]
    return pa.table({name: tables.narrow(recipe, name, table[name]) for name in names})


def _happened(
    recipe: Recipe, found: dict[split.Part, pa.Table], counts: Counts
) -> dict[split.Part, Happened]:
    """Return the kind of each row, where only one kind stays in the splits; else nothing."""
    if recipe.history is None or recipe.history.events is None:
        return {}
    events = recipe.history.events
    happened = {part: Happened.of(table[events.column], events) for part, table in found.items()}
    targets = {part: int(of.targets.sum()) for part, of in happened.items()}
    split.refuse_empty(
        {part: n for part, n in targets.items() if len(found[part])},
        f"Rows whose {events.column!r} is no {events.target!r} stand in histories only.",
    )
    others = sum(len(table) for table in found.values()) - sum(targets.values())
    counts.count(f"no {events.target}: in histories only", others)
    return happened


def _wider(recipe: Recipe) -> int:
    """Return by how many bytes what is made or joined makes a row of the log wider, at most."""
    raw = recipe.of_raw_files().features
    joined = [name for name in recipe.features if len(recipe.join) and name in raw]
    return 4 * len({*joined, *(step.to for step in recipe.derive)})


def _checked(recipe: Recipe, earlier: Store, store: Store) -> Path:
    """Return the folder of another run's etl stage, whole and of one recipe.

    Raises:
        ArtifactError: it learnt by other rules what is kept from it.
    """
    if earlier.root.resolve() == store.root.resolve():
        raise ArtifactError(
            f"--grow-from {earlier.root} is the run that is being written: what its train stage "
            "learnt would be lost. Write another run, such as `two-tower etl --run "
            f"{store.root.name}-2 --grow-from {earlier.root.name}`, and train it with "
            f"`--warm-start {earlier.root.name}`."
        )
    older = earlier.recipe("etl")
    earlier.read("etl", older)
    learnt_by = {step.to: step for step in older.derive if step.fitted}
    rules = [
        *((f"derive step of {s.to}", s, learnt_by.get(s.to)) for s in recipe.derive if s.fitted),
        *(
            (f"features.{name}.null", feature.null, older.features[name].null)
            for name, feature in recipe.features.items()
            if name in older.features and older.features[name].meaning.has_statistics
        ),
    ]
    for what, now, then in rules:
        if then is not None and now != then:
            raise ArtifactError(
                f"{earlier.folder('etl')} was made with another {what}: {then!r}, now {now!r}. "
                "What it learnt is kept as it is; leave that unchanged, or start without "
                "--grow-from."
            )
    return earlier.folder("etl")


def _refuse_emptied(recipe: Recipe, found: dict[split.Part, pa.Table], counts: Counts) -> None:
    """Refuse a part without rows, unless the split asked for none."""
    asked = [
        part
        for part in split.PARTS
        if part == "train" or getattr(recipe.split, part) not in (0, None)
    ]
    split.refuse_empty({part: len(found[part]) for part in asked}, counts.told())


def _report(
    about: _About,
    counts: Counts,
    shares: dict[str, dict[str, Shares]],
    sizes: dict[split.Part, int],
    users: Table,
    items: Table,
) -> EtlReport:
    of_parts = {part: shares[part] for part in split.PARTS}
    return EtlReport(
        read=about.read,
        files={name: digest.result() for name, digest in about.files.items()},
        dropped=counts.dropped,
        unmatched=counts.unmatched,
        rows={part: sizes[part] for part in split.PARTS},
        users=_table_facts(users, unknown_rows=1),
        items=_table_facts(items, unknown_rows=0),
        conflicts={**users.conflicts, **items.conflicts},
        unseen={
            p: {c: s.unseen / max(1, s.cells) for c, s in o.items()} for p, o in of_parts.items()
        },
        null={p: {c: s.null / max(1, s.cells) for c, s in o.items()} for p, o in of_parts.items()},
    )


def _table_facts(table: Table, *, unknown_rows: int) -> dict[str, int]:
    in_train = int(pc.sum(table.frame[IN_TRAIN]).as_py() or 0)
    return {"rows": len(table.frame) - unknown_rows, "in_train": in_train}
