"""Popularity and content as two towers that learn nothing.

They have the form of learnt towers, so that they are ranked, exported and served in the same way.
"""

from __future__ import annotations

import merlin.models.tf as mm
from merlin.schema import Schema, Tags

from models.towers.config import TwoTowerConfig
from models.towers.layers import AppendOne, ItemBias, RowCount
from models.towers.tower import Tower, TowerError, build_tower


def popularity(query: Schema, item: Schema) -> tuple[Tower, Tower]:
    """Return popularity as two towers: the query tower outputs 1, the item tower a bias per item.

    Args:
        query: inputs of the query tower; one of them gives the number of rows.
        item: inputs of the item tower, the id among them.

    Raises:
        TowerError: there are no such inputs.
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
    """Return content as two towers: one-hots of categories, and their mean over the history.

    Args:
        query: inputs of the query tower; its histories are used.
        item: inputs of the item tower; its categories beside the id are used.

    Raises:
        TowerError: a category has no history, or a history has no category.
    """
    named = item.select_by_tag(Tags.CATEGORICAL).excluding_by_tag(Tags.ITEM_ID)
    histories = query.select_by_tag(Tags.SEQUENCE)
    told = sorted(column.int_domain.name for column in histories)
    if not told or told != sorted(named.column_names):
        raise TowerError(
            f"content compares the categories of items, {sorted(named.column_names)}, with those "
            f"of the history, {told}; give history.columns the same ones, and at least one"
        )
    config = TwoTowerConfig(
        combine="concat", dims=dict.fromkeys(told, "one_hot"), item_bias=False, dropout=0.0
    )
    return (
        build_tower("query", histories, config, (), seed=0),
        build_tower("item", named, config, (), seed=0),
    )
