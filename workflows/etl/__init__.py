"""Raw interaction logs in; encoded, schema-tagged splits, tables and vocabularies out."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from workflows.device import Device
from workflows.etl import encode, filters, graph, learnt, rows, sources, split, tables
from workflows.etl.counts import Counts
from workflows.etl.graph import Fitted
from workflows.etl.sources import Raw
from workflows.etl.tables import Table
from workflows.recipe import Recipe
from workflows.store import Store, sha256
from workflows.vocabulary import NULL, Vocabulary

log = logging.getLogger(__name__)


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What etl read, dropped and wrote.

    Attributes:
        read: source → rows.
        files: raw file → SHA-256.
        dropped: cause → interactions dropped.
        unmatched: joined table → interactions whose id is not in it.
        rows: train, valid, test.
        users, items: rows of the tables, and how many of them were seen in training.
        conflicts: feature → ids with more than one value in training.
        unseen: split → column → share of cells whose value has no code of its own.
        null: split → column → share of cells without a value.
    """

    read: dict[str, int]
    files: dict[str, str]
    dropped: dict[str, int]
    unmatched: dict[str, int]
    rows: dict[str, int]
    users: dict[str, int]
    items: dict[str, int]
    conflicts: dict[str, int]
    unseen: dict[str, dict[str, float]]
    null: dict[str, dict[str, float]]


@dataclass(frozen=True)
class EtlResult:
    """Where the stage lies, and what it counted."""

    folder: Path
    report: Report
    seconds: float


def etl(
    recipe: Recipe,
    store: Store,
    device: Device,
    *,
    data: Path,
    grow_from: Store | None = None,
) -> EtlResult:
    """Read raw files and write the etl stage.

    Args:
        recipe: what the data is.
        store: the run to write into.
        device: chosen for this process.
        data: folder of the raw files.
        grow_from: keep the codes of this run's etl stage, and append values that are new.

    Raises:
        DataError: the raw data is not what the recipe says.
    """
    start = time.perf_counter()
    with store.write("etl", recipe, device) as draft:
        earlier = _checked(grow_from) if grow_from else None
        read = sources.read(recipe.of_raw_files(), data)
        log.info("read %s", ", ".join(f"{n} {t.num_rows:,}" for n, t in read.tables.items()))
        counts = Counts()
        for skipped in read.skipped.values():
            counts.count(sources.SKIPPED, len(skipped))
        raw = rows.with_derived(recipe, rows.pivoted(recipe, read, counts))
        found = filters.parts(recipe, rows.divided(recipe, raw, counts), counts, stage="before")
        _refuse_emptied(recipe, found)
        older = learnt.read(earlier) if earlier else {}
        states, found = rows.learn(recipe, found, older)
        learnt.write(states, draft.folder)
        raw = rows.with_learnt(recipe, raw, states)
        parts = _frames(recipe, found)
        fitted = _fit(recipe, parts["train"], device)
        if any(rule.stage == "after" for rule in recipe.filter):
            found = filters.parts(recipe, found, counts, stage="after")
            _refuse_emptied(recipe, found)
            parts = _frames(recipe, found)
        users = tables.build(recipe, raw, parts["train"], "user")
        items = tables.build(recipe, raw, parts["train"], "item")
        if earlier:
            fitted = fitted.grown_from(Fitted.read(earlier))
        fitted.write(draft.folder)
        encoded = encode.write(recipe, fitted, parts, users, items, device, draft.folder)
        report = _report(recipe, read, counts, encoded, fitted, users, items)
        text = msgspec.json.format(msgspec.json.encode(report), indent=2)
        (draft.folder / "report.json").write_bytes(text)
        draft.rows = {**report.rows, "users": report.users["rows"], "items": report.items["rows"]}
    return EtlResult(store.folder("etl"), report, time.perf_counter() - start)


def _checked(earlier: Store) -> Path:
    """Return the folder of another run's etl stage, whole and of one recipe."""
    earlier.read("etl", earlier.recipe("etl"))
    return earlier.folder("etl")


def _frames(recipe: Recipe, found: dict[split.Part, pa.Table]) -> dict[str, pd.DataFrame]:
    """Return the features of the parts, as Merlin takes them."""
    return {part: table.select(list(recipe.features)).to_pandas() for part, table in found.items()}


def _refuse_emptied(recipe: Recipe, found: dict[split.Part, pa.Table]) -> None:
    """Refuse a part without rows, unless the split asked for none."""
    asked = [
        part
        for part in split.PARTS
        if part == "train" or getattr(recipe.split, part) not in (0, None)
    ]
    split.refuse_empty({part: len(found[part]) for part in asked})


def _fit(recipe: Recipe, train: pd.DataFrame, device: Device) -> Fitted:
    """Learn from the training rows only."""
    columns = [c for c in train.columns if recipe.features[c].role != "time"]
    used = [c for c in columns if recipe.features[c].kind != "label"]
    # Merlin cannot tell the type of lists that are all empty
    bare = [
        c for c in used if recipe.features[c].kind == "categories" and not train[c].str.len().sum()
    ]
    used = [c for c in used if c not in bare]
    dataset = encode.dataset(train[used], device, graph.raw_schema(recipe, used))
    fitted = graph.fit(recipe, dataset, used)
    for column in bare:
        fitted.vocabularies[column] = Vocabulary.build(
            pa.array([], pa.string()),
            np.array([], np.int64),
            oov_buckets=recipe.vocabulary_rule(column).oov_buckets,
        )
    return fitted


def _report(
    recipe: Recipe,
    raw: Raw,
    counts: Counts,
    encoded: dict[str, pa.Table],
    fitted: Fitted,
    users: Table,
    items: Table,
) -> Report:
    unseen: dict[str, dict[str, float]] = {}
    null: dict[str, dict[str, float]] = {}
    for part, table in encoded.items():
        for column, vocabulary in fitted.vocabularies.items():
            values = table[column].combine_chunks()
            codes = pc.list_flatten(values) if pa.types.is_list(values.type) else values
            codes = codes.to_numpy(zero_copy_only=False)
            n = max(1, len(codes))
            oov = (codes > NULL) & (codes < vocabulary.first_code)
            unseen.setdefault(part, {})[column] = float(oov.sum() / n)
            null.setdefault(part, {})[column] = float((codes == NULL).sum() / n)
    return Report(
        read={name: table.num_rows for name, table in raw.tables.items()},
        files={raw.name(path): sha256(path) for paths in raw.files.values() for path in paths},
        dropped=counts.dropped,
        unmatched=counts.unmatched,
        rows={part: table.num_rows for part, table in encoded.items()},
        users=_table_facts(users, unknown_rows=1),
        items=_table_facts(items, unknown_rows=0),
        conflicts={**users.conflicts, **items.conflicts},
        unseen=unseen,
        null=null,
    )


def _table_facts(table: Table, *, unknown_rows: int) -> dict[str, int]:
    in_train = int(pc.sum(table.frame[tables.IN_TRAIN]).as_py() or 0)
    return {"rows": len(table.frame) - unknown_rows, "in_train": in_train}
