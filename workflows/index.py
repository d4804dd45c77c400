"""The verb index: builds an index of an export's items, and measures its recall and latency.

New items, which are not in the export, are embedded from their raw values and added.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.core.ann import FaissNotInstalled, Index
from models.core.ann_tuning import recalls, tune_effort
from models.core.columns import fixed_lists, write_vectors
from models.core.exact import search
from models.core.ivf import TooFewItems
from models.core.retriever import Floats, Queries, Ragged
from workflows.derive.given import add_derived
from workflows.feature_files import rows as raw_rows
from workflows.ground.column_names import EMBEDDING
from workflows.ground.device import Device
from workflows.ground.errors import (
    ArtifactError,
    DataError,
    MissingStage,
    RecipeError,
    StaleInput,
)
from workflows.ground.stage_content import embeddings_of
from workflows.recipe import Recipe
from workflows.recipe.protocol import IndexConfig
from workflows.recipe.raw_inputs import raw_inputs
from workflows.stages.export import Export
from workflows.stages.index import Catalogue, IndexFiles, SearchSettings
from workflows.stages.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Measured:
    """The quality and the speed of an index, measured with users of the export.

    Attributes:
        recall: share of the exact search's best items that the index finds.
        p50_ms: median time of one query, in one thread, alone.
        p99_ms: the 99th percentile of the time of one query.
    """

    recall: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class IndexResult:
    """The result of the verb index.

    Attributes:
        folder: the folder of the index stage.
        kind: the kind of nearest-neighbour search: exact, flat, hnsw or ivf.
        items: number of items, added ones included.
        added: number of items that the export does not have.
        effort: number of cells (ivf) or candidates (hnsw) that a query searches; 0 for other kinds
            of index.
        at: the list length k at which recall was measured.
        measured: recall and latency of the index.
        seconds: duration of the whole verb.
    """

    folder: Path
    kind: str
    items: int
    added: int
    effort: int
    at: int
    measured: Measured
    seconds: float


def index(recipe: Recipe, store: Store, device: Device, *, add: Path | None = None) -> IndexResult:
    """Write the index stage, which recommend and serve use for search.

    Args:
        recipe: the recipe; its `index` has the settings.
        store: the folder of the run, or a copied export.
        device: the device of this process.
        add: file of new items, one row per item: id and raw values of the features. The file of new
            items has the form of a raw training file, or is csv, tsv, JSON lines or parquet. The
            new items are added to the present index, which is built if it does not exist. Without a
            file of new items, the index is built from the export alone.

    Raises:
        ArtifactError: the recall of the index is too low, or FAISS is not installed.
        DataError: a new item exists already, or its values do not agree with the recipe.
    """
    start = time.perf_counter()
    config = recipe.index
    if add:
        _refuse_to_lose(store, recipe)
    with store.write("index", recipe, device) as draft:
        export = Export.open(store, recipe, kept=1)
        catalogue = Catalogue.of_export(export)
        if add:
            catalogue = Catalogue.open(store, export, to_grow=True)
        more = _embedded(add, catalogue, export) if add else None
        tune_by, prove_by = _queries(export, config)
        catalogue = _built(catalogue, more, tune_by, config)
        measured = measure(catalogue, prove_by, at=config.at)
        log.info(
            "%s: recall@%s %.4f, p50 %.2f ms, p99 %.2f ms",
            *(catalogue.kind, config.at, measured.recall, measured.p50_ms, measured.p99_ms),
        )
        _refuse_poor(measured, catalogue, config)
        effort = _write(catalogue, IndexFiles(draft.folder))
        added = len(catalogue.items) - catalogue.n_exported
        draft.rows = {"items": len(catalogue.items), "added": added}
        draft.metrics = {
            f"recall@{config.at}": measured.recall,
            "p50_ms": measured.p50_ms,
            "p99_ms": measured.p99_ms,
        }
        draft.options = {"kind": catalogue.kind, "effort": str(effort)}
    return IndexResult(
        store.folder("index"),
        catalogue.kind,
        len(catalogue.items),
        added,
        effort,
        config.at,
        measured,
        time.perf_counter() - start,
    )


def _refuse_to_lose(store: Store, recipe: Recipe) -> None:
    """Refuse to add items to a stale index: the items that it added earlier would be lost."""
    try:
        store.read("index", recipe)
    except MissingStage:
        pass
    except StaleInput as error:
        added = IndexFiles(store.folder("index")).added
        if added.is_file():
            raise StaleInput(
                f"{error} But that, like --add, would lose the {pq.read_metadata(added).num_rows} "
                "items that were added to it: run `two-tower index` without --add, and then add "
                "the files of all of them again."
            ) from None


def measure(catalogue: Catalogue, users: Floats, *, at: int) -> Measured:
    """Measure an index's recall against exact search, and its latency, with users as queries.

    Args:
        catalogue: the catalogue that is searched.
        users: user embeddings, float32 [n_users, dim].
        at: list length k of the recall.
    """
    recall = 1.0
    if catalogue.index:
        truth = search(users, catalogue.vectors, at)
        recall = float(recalls(catalogue.index.search(users, at), truth).mean())
    retriever = catalogue.retriever(np.concatenate([users, users[:1]]))
    seconds = []
    for row in [0, *range(len(users))]:  # the first is for warming up
        query = Queries(np.array([row]), Ragged.empty(1))
        start = time.perf_counter()
        retriever.top_k(query, at)
        seconds.append(time.perf_counter() - start)
    p50, p99 = np.percentile(seconds[1:], [50, 99]) * 1000
    return Measured(recall, float(p50), float(p99))


def _queries(export: Export, config: IndexConfig) -> tuple[Floats, Floats]:
    """Return embeddings of users to tune the index effort, and of other users to measure recall.

    Args:
        export: the export with the users.
        config: the settings; `queries` is the largest number of users in each of the two sets.
    """
    last = len(export.user_ids) - 1
    rows = np.unique(np.linspace(0, last, 2 * config.queries).astype(np.int64))
    tune_by = export.user_vectors(rows[::2])
    return tune_by, export.user_vectors(rows[1::2] if len(rows) > 1 else rows)


def _embedded(add: Path, catalogue: Catalogue, export: Export) -> pa.Table:
    """Read a file of new items, and append the column `embedding` that the item tower gives."""
    recipe = export.recipe
    features = [c for c in recipe.columns("item") if c != recipe.item_id]
    columns = list(raw_inputs(recipe, features))

    def known(column: str) -> pa.StringArray:
        return catalogue.ids if column == recipe.item_id else export.known_texts(column)

    items = raw_rows.read(add, recipe, recipe.item_id, columns, known)
    rows = catalogue.find(items[recipe.item_id].combine_chunks())
    if (rows >= 0).any():
        known = items[recipe.item_id][int(np.argmax(rows >= 0))].as_py()
        raise DataError(
            f"{add}: {recipe.item_id} {known!r} is in the catalogue already ({(rows >= 0).sum()} "
            f"of {len(rows)} are). Remove what is not new; an item whose features changed is "
            "embedded anew by `two-tower etl train export`."
        )
    tower = export.item_tower
    missing = tower.missing_inputs(items.column_names)
    if missing:
        raise DataError(
            f"{add}: there is no column {missing[0]!r}, which the item tower takes. Where it is "
            "not known of an item, leave its cell empty."
        )
    vectors = tower.embed(items)
    if not np.isfinite(vectors).all():
        raise ArtifactError(f"{add}: an item's embedding holds NaN or infinity; train again.")
    log.info("%s: %s new items", add, f"{len(items):,}")
    items = add_derived(items, recipe, export.states, str(add))
    return items.append_column(EMBEDDING, fixed_lists(vectors))


def _built(
    catalogue: Catalogue, more: pa.Table | None, users: Floats, config: IndexConfig
) -> Catalogue:
    """Return the catalogue with new items added, and with an index if the settings ask for it."""
    index = catalogue.index
    if more is not None:
        index = index.with_items(embeddings_of(more, Path("items"), "index")) if index else None
        catalogue = catalogue.with_added(more)
    kind = config.kind
    if kind == "auto":
        kind = _kind_for(len(catalogue.items), config)
    if kind == "exact":
        return catalogue
    try:
        index = index or Index.build(catalogue.vectors, kind, seed=config.seed)
        index = tune_effort(index, users, at=config.at, recall=config.recall)
    except FaissNotInstalled as error:
        raise ArtifactError(f"{error} Or ask for --set index.kind=exact.") from None
    except TooFewItems as error:
        raise RecipeError(f"recipe {catalogue.recipe.name}, field index.kind: {error}") from None
    return replace(catalogue, index=index)


def _kind_for(n_items: int, config: IndexConfig) -> Literal["exact", "ivf", "ivf_sq"]:
    """Return the kind of search that `auto` means for a number of items."""
    if n_items <= config.exact_up_to:
        return "exact"
    return "ivf" if n_items <= config.whole_up_to else "ivf_sq"


def _refuse_poor(measured: Measured, catalogue: Catalogue, config: IndexConfig) -> None:
    if measured.recall < config.recall:
        raise ArtifactError(
            f"The {catalogue.kind} index finds {measured.recall:.4f} of the {config.at} best items "
            f"of the exact search, at {measured.p50_ms:.1f} ms a query; index.recall asks for "
            f"{config.recall}. Choose another index.kind (exact finds all), or a lower "
            "index.recall. Nothing was written."
        )


def _write(catalogue: Catalogue, files: IndexFiles) -> int:
    """Write search settings, index and added items as the index stage; return the search effort."""
    settings = SearchSettings("exact")
    if index := catalogue.index:
        if index.kind != "flat":  # the embeddings are all that a flat index holds
            index.write(files.faiss)
        effort = index.effort if index.kind != "flat" else 0
        settings = SearchSettings(index.kind, effort, index.at)
    files.settings.write_bytes(msgspec.json.format(msgspec.json.encode(settings)))
    added = catalogue.items.slice(catalogue.n_exported).select(catalogue.recipe.columns("item"))
    if len(added):
        vectors = catalogue.vectors[catalogue.n_exported :]
        write_vectors(added.append_column(EMBEDDING, fixed_lists(vectors)), files.added)
    return settings.effort
