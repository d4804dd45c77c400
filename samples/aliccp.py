"""Writes Ali-CCP samples: impressions with clicks, as Tianchi's text files and as parquet.

A line of a skeleton file is an impression: its own features, and the key of a line in the file of
common features, which many impressions share. A feature is written as `field \\x02 id \\x03 value`,
and features are joined by \\x01. The parquet files have the column names of NVIDIA's converter;
unlike the output of the converter, they have every row, and whole lists with their weights. Like
that output, they have no impression with a purchase but without a click.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.random import Generator

from models.core.retriever import Ints
from samples.aliccp_market import (
    Counts,
    Impressions,
    Market,
    Snapshots,
    UserLists,
    draw_impressions,
    open_market,
    take_snapshots,
)
from samples.lines import RawFile, as_decimals, as_text, write_csv
from samples.oracle import HeldOut
from samples.truth import write_truth

Split = Literal["train", "test"]

# the numbers of lines are not round: the last file is short, and a converter may forget it
SIZES = {
    "tiny": Counts(60, 90, 6, 18, 12, train=1_003, test=301),
    "small": Counts(2_000, 1_500, 30, 120, 80, train=60_003, test=20_001),
    "large": Counts(100_000, 200_000, 60, 600, 400, train=3_000_003, test=1_000_001),
}

USER, ITEM, POSITION = "101", "205", "301"
#: Fields of the item, of the user's list and of both, and their names in parquet, by kind.
_KINDS = (
    ("206", "109_14", "508", "category", "categories"),
    ("207", "110_14", "509", "shop", "shops"),
    ("216", "127_14", "702", "brand", "brands"),
    ("210", "150_14", "853", "intention", "intentions"),
)
#: Fields of the user's single features, and their names in parquet.
_SINGLES = (
    ("121", "user_profile"),
    ("122", "user_group"),
    ("124", "user_gender"),
    ("125", "user_age"),
    ("126", "user_consumption_1"),
    ("127", "user_consumption_2"),
    ("128", "user_is_occupied"),
    ("129", "user_geography"),
)
#: An id is offset + 7 x value: ids have gaps, and no two fields share one.
_FIELDS = (
    *(USER, "121", "122", "124", "125", "126", "127", "128", "129"),
    *("508", "509", "702", "853", "206", "207", "216", "210", "109_14", "110_14"),
    *("127_14", "150_14", ITEM),
)
_OFFSETS = {field: 1_000_003 * n + 1 for n, field in enumerate(_FIELDS)}
#: Lines that are written at a time.
_BATCH = 200_000


def write(folder: Path, size: str, rng: Generator) -> list[RawFile]:
    """Write the train and test parts as text and as parquet, and the tastes of the users."""
    market = open_market(SIZES[size], rng)
    files = []
    splits: tuple[tuple[Split, int], ...] = (
        ("train", market.counts.train),
        ("test", market.counts.test),
    )
    for split, n in splits:
        snapshots = take_snapshots(market, rng)
        lines = draw_impressions(market, snapshots, n, rng)
        files.append(_write_common(folder, split, market, snapshots))
        files.append(_write_skeleton(folder, split, market, snapshots, lines))
        files += _write_parquet(folder, split, market, snapshots, lines)
    audience, catalogue = market.click_tastes()
    users = as_text(ids(USER, np.arange(market.counts.users)))
    write_truth(folder, (users, audience), (_item_ids(market), catalogue))
    return files


def held_out(folder: Path) -> HeldOut:
    """Return the clicks of the train and the test part, without clicks whose user has no id."""
    parts = []
    for split in ("train", "test"):
        names = sorted((folder / split).glob("*.parquet"))
        columns = ["user_id", "item_id", "click"]
        table = pa.concat_tables([pq.read_table(name, columns=columns) for name in names])
        clicks = table.filter(pc.and_(pc.equal(table["click"], 1), table["user_id"].is_valid()))
        text = {name: pc.cast(clicks[f"{name}_id"], pa.string()) for name in ("user", "item")}
        parts.append(pa.table(text))
    return HeldOut(*parts)


def ids(field: str, values: Ints) -> Ints:
    """Return the ids in the raw files of a field's values, int32.

    The values of a field are numbered from 0. A display position is its own id.
    """
    coded = values if field == POSITION else _OFFSETS[field] + 7 * values
    return np.asarray(coded, np.int32)


def _item_ids(market: Market) -> pa.Array:
    return as_text(ids(ITEM, np.arange(market.counts.items)))


# ── text ────────────────────────────────────────────────────────────────────────────────


def _feature(field: str, values: Ints, weights: pa.Array | str = "1.0") -> pa.Array:
    """Return the text of one feature for each row, with its weight; null for the value -1."""
    text = as_text(ids(field, values))
    whole = pc.binary_join_element_wise(f"{field}\x02", text, "\x03", weights, "")
    return pc.if_else(pa.array(values >= 0), whole, pa.scalar(None, pa.string()))


def _join(features: list[pa.Array]) -> pa.Array:
    return pc.binary_join_element_wise(*features, "\x01", null_handling="skip")


def _with_count(features: pa.Array) -> list[pa.Array]:
    """Return two columns: the number of features in each row's text, and the text."""
    return [as_text(pc.add(pc.count_substring(features, "\x01"), 1)), features]


def _write_common(folder: Path, split: Split, market: Market, snapshots: Snapshots) -> RawFile:
    n = len(snapshots.users)
    features = [_feature(USER, np.where(snapshots.nameless, -1, snapshots.users))]
    for (field, _), values in zip(_SINGLES, market.singles.T, strict=True):
        features.append(_feature(field, values[snapshots.users]))
    for (_, field, *_), lists in zip(_KINDS, snapshots.lists, strict=True):
        each = _feature(field, lists.values, as_decimals(lists.weights))
        features.append(pc.binary_join(pa.ListArray.from_arrays(lists.offsets(n), each), "\x01"))
    columns = [snapshots.names, *_with_count(_join(features))]
    return write_csv(folder, f"{split}/common_features_{split}.csv", (), [columns])


def _write_skeleton(
    folder: Path, split: Split, market: Market, snapshots: Snapshots, lines: Impressions
) -> RawFile:
    items = [_feature(ITEM, np.arange(market.counts.items))]
    items += [_feature(k[0], values) for k, values in zip(_KINDS, market.kinds.T, strict=True)]
    of_item = _join(items)
    n = len(lines.items)
    batches = (
        _skeleton(market, snapshots, lines.rows(slice(start, start + _BATCH)), of_item, start)
        for start in range(0, n, _BATCH)
    )
    return write_csv(folder, f"{split}/sample_skeleton_{split}.csv", (), batches)


def _skeleton(
    market: Market, snapshots: Snapshots, lines: Impressions, of_item: pa.Array, start: int
) -> list[pa.Array]:
    features = [of_item.take(pa.array(lines.items)), _feature(POSITION, lines.positions)]
    for kind, (_, _, field, *_) in enumerate(_KINDS):
        values, weights = _cross_features(market, snapshots.lists[kind], lines, kind)
        features.append(_feature(field, values, weights))
    return [
        as_text(np.arange(start + 1, start + 1 + len(lines.items))),
        as_text(lines.click.astype(np.int8)),
        as_text(lines.conversion.astype(np.int8)),
        snapshots.names.take(pa.array(lines.snapshots)),
        *_with_count(_join(features)),
    ]


def _cross_features(
    market: Market, lists: UserLists, lines: Impressions, kind: int
) -> tuple[Ints, pa.Array]:
    """Return features that user and item share: the item's value, and its weight for the user.

    If the user's list lacks the item's value, the feature is -1; weights are text.
    """
    values = market.kinds[lines.items, kind]
    weights = lists.weight(lines.snapshots, values)
    return np.where(np.isnan(weights), -1, values), pc.fill_null(as_decimals(weights), "")


# ── parquet ─────────────────────────────────────────────────────────────────────────────


def _write_parquet(
    folder: Path, split: Split, market: Market, snapshots: Snapshots, lines: Impressions
) -> list[RawFile]:
    """Write a part as several parquet files, of which the last one is shorter than the others."""
    lines = lines.rows(lines.click | ~lines.conversion)
    n = len(lines.items)
    step = n // 6 - 1
    users, items = _user_columns(market, snapshots), _item_columns(market)
    files = []
    for part, start in enumerate(range(0, n, step)):
        some = lines.rows(slice(start, start + step))
        columns = {name: column.take(pa.array(some.snapshots)) for name, column in users}
        columns |= {name: column.take(pa.array(some.items)) for name, column in items}
        columns |= dict(_own_columns(market, snapshots, some))
        name = f"{split}/{split}_{part}.parquet"
        pq.write_table(pa.table(columns), folder / name)
        files.append(RawFile(name, len(some.items)))
    return files


def _codes(field: str, values: Ints) -> pa.Array:
    return pa.array(ids(field, values), mask=values < 0)


def _user_columns(market: Market, snapshots: Snapshots) -> list[tuple[str, pa.Array]]:
    n = len(snapshots.users)
    users = np.where(snapshots.nameless, -1, snapshots.users)
    columns = [("user_id", _codes(USER, users))]
    for (_, field, _, _, plural), lists in zip(_KINDS, snapshots.lists, strict=True):
        offsets, weights = lists.offsets(n), pa.array(lists.weights.astype(np.float32))
        values = pa.array(ids(field, lists.values))
        columns.append((f"user_{plural}", pa.ListArray.from_arrays(offsets, values)))
        columns.append((f"user_{plural}_weight", pa.ListArray.from_arrays(offsets, weights)))
    for (field, name), values in zip(_SINGLES, market.singles.T, strict=True):
        columns.append((name, _codes(field, values[snapshots.users])))
    return columns


def _item_columns(market: Market) -> list[tuple[str, pa.Array]]:
    columns = [("item_id", _codes(ITEM, np.arange(market.counts.items)))]
    for (field, _, _, name, _), values in zip(_KINDS, market.kinds.T, strict=True):
        columns.append((f"item_{name}", _codes(field, values)))
    return columns


def _own_columns(
    market: Market, snapshots: Snapshots, lines: Impressions
) -> Iterator[tuple[str, pa.Array]]:
    for kind, (_, _, field, _, plural) in enumerate(_KINDS):
        values, _ = _cross_features(market, snapshots.lists[kind], lines, kind)
        yield f"user_item_{plural}", _codes(field, values)
    yield "position", _codes(POSITION, lines.positions)
    yield "click", pa.array(lines.click.astype(np.int32))
    yield "conversion", pa.array(lines.conversion.astype(np.int32))
