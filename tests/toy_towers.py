"""The toy world as inputs of a two-tower model: schema, encoded tables and training rows."""

from __future__ import annotations

from dataclasses import dataclass

import merlin.models.tf as mm
import numpy as np
import tensorflow as tf
import toy
from merlin.schema import ColumnSchema, Schema, Tags

from models.core.columns import Column, take, take_rows, to_batch
from models.core.partitions import PartitionInMemory
from models.core.reserved_codes import UNSEEN
from models.core.retriever import Ragged
from models.losses.config import LossConfig
from models.losses.negatives import TrainingFacts
from models.losses.sampled_loss import BatchLoss
from models.towers.config import TwoTowerConfig
from models.training.batches import Batches
from models.training.positives import Positives
from models.training.row_batches import RowLoader
from models.training.sequence_batches import SequenceLoader
from models.training.two_tower import build, train_on_sequences

#: Codes 0, 1, 2 stand for padding, null and unseen; values follow.
FIRST = UNSEEN + 1
MAX_LEN = 4


def category(name: str, *tags: Tags, size: int) -> ColumnSchema:
    """Return the schema of a column with codes below `size`, as etl writes it."""
    domain = {"domain": {"min": 0, "max": size - 1, "name": name}}
    return ColumnSchema(name, tags=[*tags, Tags.CATEGORICAL], properties=domain, dtype=np.int32)


def categories(name: str, *tags: Tags, size: int) -> ColumnSchema:
    """Return the schema of a column of lists of codes."""
    return category(name, *tags, size=size).with_shape((None, None))


def history(column: ColumnSchema) -> ColumnSchema:
    """Return the schema of the history column of an item column."""
    return ColumnSchema(
        f"history_{column.name}",
        tags=[Tags.CATEGORICAL, Tags.USER, Tags.SEQUENCE],
        properties=column.properties,
        dtype=np.int32,
        dims=(None, (0, MAX_LEN)),
    )


def number(name: str, *tags: Tags) -> ColumnSchema:
    return ColumnSchema(name, tags=[*tags, Tags.CONTINUOUS], dtype=np.float32)


def row(name: str) -> ColumnSchema:
    return ColumnSchema(name, dtype=np.int32)


@dataclass(frozen=True)
class ToyTowers:
    """The encoded toy world; tests choose the columns that a model uses.

    Attributes:
        world: the toy world.
        columns: name → schema of each column.
        users: encoded user table, n_users + 1 rows.
        items: encoded item table, n_items rows.
        train: encoded training rows, one per interaction.
    """

    world: toy.Toy
    columns: dict[str, ColumnSchema]
    users: dict[str, Column]
    items: dict[str, Column]
    train: dict[str, Column]

    def schema(self, *names: str) -> Schema:
        """Return the schema of these columns and of the two row columns."""
        return Schema([self.columns[n] for n in (*names, "user_row", "item_row")])

    def facts(self, *, batch_size: int = 64, seed: int = 1) -> TrainingFacts:
        """Return the facts for a loss, with unequal item counts, because equal ones cancel out."""
        log = self.world.train
        counts = np.bincount(log.items, minlength=log.n_items) * (1 + np.arange(log.n_items) % 7)
        return TrainingFacts(counts, self.items, batch_size, seed)

    def build(
        self, *names: str, loss: LossConfig | None = None, seed: int = 1, **config: object
    ) -> mm.RetrievalModelV2:
        """Build a model on these columns; `config` has fields of the towers, without dropout."""
        towers = TwoTowerConfig(**{"dropout": 0.0, "dim": 8, **config})
        return build(
            self.schema(*names), towers, loss or LossConfig(), self.facts(seed=seed), seed=seed
        )

    def batches(self, model: mm.RetrievalModelV2, *, batch_size: int = 64) -> Batches:
        return batches_of(self.train, model, batch_size=batch_size)

    def batch(self, model: mm.RetrievalModelV2, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return a batch of training rows, with the positive items of their users."""
        log = self.world.train
        positives = Positives(log.users, log.histories()).of_rows(rows)
        columns = {name: self.train[name] for name in model.schema.column_names}
        return take(columns, rows) | to_batch(positives)

    def sequences(self, model: mm.RetrievalModelV2, *, batch_size: int = 60) -> Batches:
        """Return batches of sequences for a model whose history is that of item ids."""
        train_on_sequences(model)
        log = self.world.train
        loader = SequenceLoader(
            [name for name in model.schema.column_names if name != "history_item_id"],
            "when",
            {"history_item_id": self.items["item_id"]},
            log.n_users,
            MAX_LEN,
            with_positives=True,
        )
        rows = PartitionInMemory({**self.train, "when": log.times})
        return Batches(rows, loader, batch_size=batch_size, seed=1)


def batches_of(train: dict[str, Column], model: mm.RetrievalModelV2, *, batch_size: int) -> Batches:
    """Return the batches of training rows in memory for a model."""
    loader = RowLoader(model.schema.column_names, with_positives=True)
    return Batches(PartitionInMemory(train), loader, batch_size=batch_size, seed=1)


def weights_of(tower: mm.Encoder, kind: type) -> tf.keras.layers.Layer:
    return next(layer for layer in tower.submodules if isinstance(layer, kind))


def tables(model: mm.RetrievalModelV2) -> dict[str, np.ndarray]:
    """Return the embedding tables: column → weights."""
    return {
        layer.table_name: layer.table.embeddings.numpy()
        for tower in (model.query_encoder, model.candidate_encoder)
        for layer in tower.submodules
        if isinstance(layer, mm.EmbeddingTable)
    }


def compiled(model: mm.RetrievalModelV2, *, lr: float = 0.05) -> mm.RetrievalModelV2:
    # as in models.training.fit: the step is traced once, without a conversion by autograph
    model.train_step = tf.autograph.experimental.do_not_convert(model.train_step)
    model.compile(tf.keras.optimizers.Adam(lr), loss=BatchLoss(), metrics=[])
    model.optimizer.build(model.trainable_variables)
    return model


def toy_towers(*, n_groups: int = 4) -> ToyTowers:
    """Encode the toy world."""
    world = toy.world(n_groups=n_groups)
    log = world.train
    sizes = {"user_id": FIRST + log.n_users, "item_id": FIRST + log.n_items}
    item_id = category("item_id", Tags.ITEM_ID, size=sizes["item_id"])
    group = category("group", Tags.ITEM, size=FIRST + n_groups)
    columns = [
        category("user_id", Tags.USER_ID, size=sizes["user_id"]),
        number("age", Tags.USER),
        categories("hobbies", Tags.USER, size=9),
        history(item_id),
        history(group),
        category("shop", Tags.CONTEXT, size=6),
        item_id,
        group,
        categories("genres", Tags.ITEM, size=7),
        number("price", Tags.ITEM),
        row("user_row"),
        row("item_row"),
    ]
    rng = np.random.default_rng(0)
    people = np.arange(log.n_users + 1)
    users: dict[str, Column] = {
        "user_id": np.where(people < log.n_users, people + FIRST, UNSEEN).astype(np.int32),
        "age": rng.normal(size=len(people)).astype(np.float32),
        "hobbies": _lists([rng.integers(FIRST, 9, size=n % 4) for n in people]),
        "shop": np.full(len(people), 1, np.int32),
    }
    goods = np.arange(log.n_items)
    items: dict[str, Column] = {
        "item_id": (goods + FIRST).astype(np.int32),
        "group": (world.item_groups + FIRST).astype(np.int32),
        "genres": _lists([rng.integers(FIRST, 7, size=n % 4) for n in goods]),
        "price": rng.normal(size=len(goods)).astype(np.float32),
    }
    earlier = _earlier(log.users, log.items)
    train: dict[str, Column] = {
        **{name: take_rows(column, log.users) for name, column in users.items()},
        **{name: take_rows(column, log.items) for name, column in items.items()},
        "history_item_id": Ragged(items["item_id"][earlier.values], earlier.offsets),
        "history_group": Ragged(items["group"][earlier.values], earlier.offsets),
        "shop": rng.integers(FIRST, 6, size=len(log.users)).astype(np.int32),
        "user_row": log.users.astype(np.int32),
        "item_row": log.items.astype(np.int32),
    }
    return ToyTowers(world, {c.name: c for c in columns}, users, items, train)


def _lists(lists: list[np.ndarray]) -> Ragged:
    offsets = np.cumsum([0, *map(len, lists)])
    return Ragged(np.concatenate(lists).astype(np.int32), offsets)


def _earlier(users: np.ndarray, items: np.ndarray) -> Ragged:
    """Return the history of each row: its user's latest MAX_LEN earlier items, oldest first."""
    met: dict[int, list[int]] = {}
    lists = []
    for user, item in zip(users, items, strict=True):
        mine = met.setdefault(user, [])
        lists.append(np.array(mine[-MAX_LEN:], np.int32))
        mine.append(item)
    return _lists(lists)
