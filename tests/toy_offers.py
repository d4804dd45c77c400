"""A toy world for offer models: items with two attributes, and users who repeat their purchases."""

from __future__ import annotations

from functools import cache

import numpy as np
import tensorflow as tf
from merlin.schema import ColumnSchema, Schema, Tags
from toy_towers import categories, category, row

from models.core.columns import USER_ROW, Column
from models.core.retriever import Ragged
from models.offers.config import OfferModel, OffersConfig
from models.offers.model import Model, build

ITEMS, KINDS = 20, 5
CONFIG = OffersConfig(dim=6, layers=(8, 4), dropout=0.1)


def schema() -> Schema:
    """Return the schema: the item and its kind, and the user's earlier items and kinds."""
    columns = [
        category("item", Tags.ITEM_ID, size=ITEMS),
        category("kind", Tags.ITEM, size=KINDS),
    ]
    for item in list(columns):
        lists = categories(item.name, Tags.USER, Tags.SEQUENCE, size=item.int_domain.max + 1)
        history = ColumnSchema(
            f"history_{item.name}", lists.tags, lists.properties, lists.dtype, dims=(None, (0, 9))
        )
        columns.append(history)
    return Schema([*columns, row(USER_ROW)])


def events(n: int, seed: int = 0) -> dict[str, Column]:
    """Return one event each of n users; the item is often in the user's history."""
    rng = np.random.default_rng(seed)
    items = rng.integers(0, ITEMS, n)
    lengths = rng.integers(0, 4, n)
    owners = np.repeat(np.arange(n), lengths)
    met = np.where(rng.random(len(owners)) < 0.7, items[owners], rng.integers(0, ITEMS))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return {
        USER_ROW: np.arange(n, dtype=np.int32),
        "item": items.astype(np.int32),
        "kind": (items % KINDS).astype(np.int32),
        "history_item": Ragged(met.astype(np.int32), offsets),
        "history_kind": Ragged((met % KINDS).astype(np.int32), offsets),
    }


def model(blocks: OfferModel | None = None, config: OffersConfig = CONFIG) -> Model:
    """Build a model with the same weights each time."""
    tf.keras.utils.set_random_seed(1)
    return build(schema(), config, blocks or OfferModel(), ["item", "kind"], seed=1)


@cache
def built(group_by: bool, mask_net: bool, bilinear: bool) -> Model:
    """Return a cached model, which tests must not train."""
    return model(OfferModel(group_by=group_by, mask_net=mask_net, bilinear=bilinear))
