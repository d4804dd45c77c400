"""Popularity and content models as two towers without trainable weights.

Because the models are towers, they are evaluated, exported and served like learnt towers.
"""

from __future__ import annotations

import merlin.models.tf as mm
from merlin.schema import Schema, Tags

from models.towers.config import TwoTowerConfig
from models.towers.layers import AppendOne, ItemBias, RowCount
from models.towers.tower import Tower, TowerError, build_tower


def popularity(query: Schema, item: Schema) -> tuple[Tower, Tower]:
    """Build a popularity model: the query tower outputs 1, the item tower a bias per item.

    Args:
        query: the schema of the query tower's input columns, the first of which gives the batch
            size.
        item: the schema of the item tower's input columns, the item id among them.

    Raises:
        TowerError: the query tower has no input column, or the item tower has no item id.
    """
    ids = item.select_by_tag(Tags.ITEM_ID)
    plain = query.excluding_by_tag(Tags.SEQUENCE)
    if not ids or not plain:
        raise TowerError(
            "popularity needs the item id and a user feature as inputs; set `input: true` for them"
        )
    bias = ItemBias(ids.first.name, ids.first.int_domain.max + 1)
    counted = Schema([plain.first])
    return (
        mm.Encoder(_row_count(counted), AppendOne(), name="query_tower"),
        mm.Encoder(_row_count(ids), bias, name="item_tower"),
    )


def _row_count(schema: Schema) -> mm.ParallelBlock:
    return mm.ParallelBlock(
        {"row_count": RowCount(schema)}, aggregation="concat", is_input=True, schema=schema
    )


def content(query: Schema, item: Schema) -> tuple[Tower, Tower]:
    """Build a content model: the item tower outputs one-hot categories, the query tower their mean.

    Args:
        query: the schema of the query tower's input columns; only histories are used.
        item: the schema of the item tower's input columns; only categories other than the item id
            are used.

    Raises:
        TowerError: a category has no history, or a history has no category.
    """
    named = item.select_by_tag(Tags.CATEGORICAL).excluding_by_tag(Tags.ITEM_ID)
    histories = query.select_by_tag(Tags.SEQUENCE)
    given = sorted(column.int_domain.name for column in histories)
    if not given or given != sorted(named.column_names):
        raise TowerError(
            f"content compares the categories of items, {sorted(named.column_names)}, with those "
            f"of the history, {given}; give history.columns the same ones, and at least one"
        )
    config = TwoTowerConfig(
        combine="concat", dims=dict.fromkeys(given, "one_hot"), item_bias=False, dropout=0.0
    )
    return (
        build_tower("query", histories, config, (), seed=0),
        build_tower("item", named, config, (), seed=0),
    )
