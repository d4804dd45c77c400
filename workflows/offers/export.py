"""Exports an offer model: embeddings, towers, similar offers and heat maps."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.core.columns import (
    Column,
    GrowingFile,
    fixed_lists,
    take_rows,
    to_arrow,
    write_vectors,
)
from models.core.retriever import Floats, Ragged
from models.offers.model import InferenceModel
from models.offers.offers import Offers, offers_by_value
from models.offers.similarity import cosines, ward_order
from workflows.ground.column_names import EMBEDDING
from workflows.ground.errors import DataError
from workflows.offers import heat_map, saved
from workflows.stages.export import ExportFiles
from workflows.stages.offer_data import OfferData
from workflows.stages.store import Store
from workflows.towers import checks, selfcheck

log = logging.getLogger(__name__)

#: Number of users that are written at a time.
_USERS = 1 << 16


def export(offer_data: OfferData, store: Store, folder: Path) -> dict[str, int]:
    """Write the recipe's first offer model, and the embeddings of users and offers, to a folder.

    Args:
        offer_data: the data of the etl stage.
        store: the folder of the run, with its finished stages.
        folder: the folder to write to.

    Returns:
        The number of users, and the number of offers of each attribute.

    Raises:
        DataError: an attribute has no offer.
    """
    counts = {"users": len(offer_data.user_ids)}
    models = {name: offer_data.load(store, name) for name in _shown(offer_data)}
    first = next(iter(models.values()))
    _write_users(offer_data, first, folder)
    for name in offer_data.tasks:
        offers, values, sizes = described(offer_data, name)
        if name == offer_data.tasks[0]:
            _write_check(folder, name, offers)
        counts[name] = len(values)
        vectors = {model: each.offers(offers) for model, each in models.items()}
        _write_offers(folder, name, values, sizes, next(iter(vectors.values())))
        write_similar(folder, offer_data.recipe.tasks.similar, name, values, sizes, vectors)
    events = offer_data.events("train", "valid", "test")
    pq.write_table(pa.table(events), ExportFiles(folder).events)
    saved.save(first, folder)
    return counts


def _shown(offer_data: OfferData) -> list[str]:
    """Return the names of the offer models whose heat maps are drawn, the exported one first."""
    first = next(iter(offer_data.config.models))
    return list(dict.fromkeys([first, *offer_data.compared]))


def described(offer_data: OfferData, attribute: str) -> tuple[Offers, list[str], np.ndarray]:
    """Return all offers "attribute = value" of an attribute, the values, and event counts."""
    config = offer_data.recipe.tasks
    events = offer_data.events(config.source)
    codes, values = offer_data.values(attribute)
    if not len(codes):
        raise DataError(
            f"tasks.attributes: no value of {attribute!r} is in the vocabulary, so there is no "
            "offer. Lower vocabulary.min_count and run `two-tower etl` again, or leave the "
            "attribute out."
        )
    offers = offers_by_value(attribute, codes, events, top=config.top)
    counts = np.bincount(events[attribute], minlength=int(codes.max(initial=0)) + 1)
    return offers, values, counts[codes]


def _write_users(offer_data: OfferData, model: InferenceModel, folder: Path) -> None:
    vectors = model.users(offer_data.latest)
    checks.refuse_broken(vectors, "user vectors", whose="model")
    np.save(folder / selfcheck.USER_VECTORS, vectors)
    # in blocks: the offsets of one arrow array of all lists end at 2^31
    file, ids = GrowingFile(folder / selfcheck.USERS), offer_data.user_ids
    for start in range(0, max(1, len(ids)), _USERS):
        rows = np.arange(start, min(start + _USERS, len(ids)))
        lists = {n: _codes(take_rows(column, rows)) for n, column in offer_data.latest.items()}
        some = ids.slice(start, len(rows))
        file.append(pa.table({offer_data.recipe.user_id: some, **lists}))
    file.close()
    log.info("users: %s", f"{len(vectors):,}")


def _write_offers(
    folder: Path, attribute: str, values: list[str], events: np.ndarray, vectors: Floats
) -> None:
    """Write embeddings of an attribute's offers to offer_embeddings/<attribute>.parquet."""
    checks.refuse_broken(vectors, f"{attribute} offer vectors", whose="model")
    flat = vectors.reshape(len(vectors), -1)
    table = pa.table({"value": values, "events": events, EMBEDDING: fixed_lists(flat)})
    shape = "x".join(map(str, vectors.shape[1:]))
    (folder / "offer_embeddings").mkdir(exist_ok=True)
    path = folder / "offer_embeddings" / f"{attribute}.parquet"
    write_vectors(table.replace_schema_metadata({"shape": shape}), path)
    log.info("%s: %s offers", attribute, f"{len(vectors):,}")


def write_similar(
    folder: Path,
    top: int,
    attribute: str,
    values: list[str],
    events: np.ndarray,
    vectors: dict[str, Floats],
) -> None:
    """Write cosines between the most frequent offers, ordered by clustering, and a heat map.

    The column `cosines` of similarity/<attribute>.parquet has one number for each offer (row) of
    the table.
    """
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
    # a column of lists: columns that are called after offers could be called `value`, too
    table = pa.table({"value": names, "cosines": fixed_lists(matrix.astype(np.float32))})
    pq.write_table(table, folder / "similarity" / f"{attribute}.parquet")
    heat_map.draw(maps, folder / "similarity" / f"{attribute}.png", title=attribute)


def _write_check(folder: Path, attribute: str, offers: Offers) -> None:
    """Write the tower inputs of one attribute's offers; the self-check embeds them again."""
    columns: dict[str, pa.Array] = {}
    for name, lists in offers.items():
        columns[name] = _codes(lists.lists)
        offsets = lists.lists.offsets.astype(np.int32)
        columns[f"{name}__weights"] = pa.ListArray.from_arrays(offsets, pa.array(lists.weights))
    table = pa.table(columns).replace_schema_metadata({"attribute": attribute})
    pq.write_table(table, folder / selfcheck.OFFERS)


def _codes(column: Column) -> pa.Array:
    assert isinstance(column, Ragged)
    return to_arrow(Ragged(column.values.astype(np.int32), column.offsets))
