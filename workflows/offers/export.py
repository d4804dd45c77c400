"""Write what others need to ask an offer model: vectors, towers, similar offers, pictures."""

from __future__ import annotations

import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.core.columns import Column, fixed_lists, to_arrow, write_vectors
from models.core.retriever import Floats, Ragged
from models.offers.model import InferenceModel
from models.offers.offers import Offers, offers_by_value
from models.offers.similarity import cosines, ward_order
from workflows.export import checks
from workflows.ground.column_names import EMBEDDING
from workflows.ground.device import Device
from workflows.offers import heat_map, saved, selfcheck
from workflows.recipe import Recipe
from workflows.stages.export import ExportFiles
from workflows.stages.offering import Offering
from workflows.stages.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OffersExportResult:
    """Where the export lies, and how much there is.

    Attributes:
        folder: the folder of the stage.
        users: the users that an audience is chosen from.
        offers: attribute → offers "attribute = value".
        seconds: in all.
    """

    folder: Path
    users: int
    offers: dict[str, int]
    seconds: float


def export(recipe: Recipe, store: Store, device: Device) -> OffersExportResult:
    """Write runs/<name>/export/ from the trained models, and sign it after a check from outside.

    Args:
        recipe: names of columns; the first of its models is exported.
        store: the run.
        device: chosen for this process.

    Raises:
        ArtifactError: a fresh process could not reproduce the vectors.
    """
    start = time.perf_counter()
    counts = {}
    with store.write("export", recipe, device) as draft:
        offering = Offering.open(store, recipe)
        asked = {name: offering.load(store, name) for name in _shown(offering)}
        first = next(iter(asked.values()))
        _write_users(offering, first, draft.folder)
        for name in offering.tasks:
            offers, values, events = _offers(offering, name)
            counts[name] = len(values)
            found = {model: each.offers(offers) for model, each in asked.items()}
            _write_offers(draft.folder, name, values, events, next(iter(found.values())))
            _write_similar(draft.folder, recipe.tasks.similar, name, values, events, found)
        saved.save(first, draft.folder)
        _write_check(draft.folder, offering, offering.tasks[0])
        shutil.copytree(
            offering.prepared.files.vocabularies, ExportFiles(draft.folder).vocabularies
        )
        checks.check_from_outside(selfcheck.__file__, draft.folder, "vectors")
        draft.rows = {"users": len(offering.user_ids), **counts}
        draft.options = {"model": next(iter(asked))}
    return OffersExportResult(
        store.folder("export"),
        len(offering.user_ids),
        counts,
        time.perf_counter() - start,
    )


def _shown(offering: Offering) -> list[str]:
    """Return the first model, and those to compare its picture of offers with."""
    first = next(iter(offering.config.models))
    return list(dict.fromkeys([first, *offering.compared]))


def _offers(offering: Offering, attribute: str) -> tuple[Offers, list[str], np.ndarray]:
    """Return the offers "attribute = value", the values, and how many events each has."""
    config = offering.recipe.tasks
    events = offering.events(config.source)
    codes, values = offering.values(attribute)
    offers = offers_by_value(attribute, codes, events, top=config.top)
    counts = np.bincount(events[attribute], minlength=int(codes.max(initial=0)) + 1)
    return offers, values, counts[codes]


def _write_users(offering: Offering, asked: InferenceModel, folder: Path) -> None:
    vectors = asked.users(offering.latest)
    checks.refuse_broken(vectors, "user vectors", whose="model")
    np.save(folder / selfcheck.USER_VECTORS, vectors)
    lists = {name: _codes(column) for name, column in offering.latest.items()}
    table = pa.table({offering.recipe.user_id: offering.user_ids, **lists})
    pq.write_table(table, folder / selfcheck.USERS)
    log.info("users: %s", f"{len(vectors):,}")


def _write_offers(
    folder: Path, attribute: str, values: list[str], events: np.ndarray, vectors: Floats
) -> None:
    """Write offer_embeddings/<attribute>.parquet; the vectors' shape stands in its metadata."""
    checks.refuse_broken(vectors, f"{attribute} offer vectors", whose="model")
    flat = vectors.reshape(len(vectors), -1)
    table = pa.table({"value": values, "events": events, EMBEDDING: fixed_lists(flat)})
    shape = "x".join(map(str, vectors.shape[1:]))
    (folder / "offer_embeddings").mkdir(exist_ok=True)
    path = folder / "offer_embeddings" / f"{attribute}.parquet"
    write_vectors(table.replace_schema_metadata({"shape": shape}), path)
    log.info("%s: %s offers", attribute, f"{len(vectors):,}")


def _write_similar(
    folder: Path,
    top: int,
    attribute: str,
    values: list[str],
    events: np.ndarray,
    vectors: dict[str, Floats],
) -> None:
    """Write the cosines of the most frequent offers, in Ward's order, and their heat maps."""
    chosen = np.lexsort((np.arange(len(values)), -events))[:top]
    if len(chosen) < 2:
        return
    maps = {}
    for model, found in vectors.items():
        matrix = cosines(found[chosen])
        order = ward_order(matrix)
        names = [values[i] for i in chosen[order]]
        maps[model] = (matrix[np.ix_(order, order)], names)
    matrix, names = next(iter(maps.values()))
    (folder / "similarity").mkdir(exist_ok=True)
    table = pa.table({"value": names, **{n: matrix[:, i] for i, n in enumerate(names)}})
    pq.write_table(table, folder / "similarity" / f"{attribute}.parquet")
    heat_map.draw(maps, folder / "similarity" / f"{attribute}.png", title=attribute)


def _write_check(folder: Path, offering: Offering, attribute: str) -> None:
    """Write the lists of one task's offers, so that a stranger can embed them again."""
    offers, values, _ = _offers(offering, attribute)
    columns: dict[str, pa.Array] = {"value": pa.array(values)}
    for name, lists in offers.items():
        columns[name] = _codes(lists.lists)
        offsets = lists.lists.offsets.astype(np.int32)
        columns[f"{name}_weight"] = pa.ListArray.from_arrays(offsets, pa.array(lists.weights))
    table = pa.table(columns).replace_schema_metadata({"attribute": attribute})
    pq.write_table(table, folder / selfcheck.OFFERS)


def _codes(column: Column) -> pa.Array:
    assert isinstance(column, Ragged)
    return to_arrow(Ragged(column.values.astype(np.int32), column.offsets))
