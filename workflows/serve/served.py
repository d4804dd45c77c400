"""An export that is being served: in memory, because what lies on disk may be replaced."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from models.core.retriever import NO_ITEM, BrokenModel
from workflows.feature_files.rows import as_trained
from workflows.ground.errors import ArtifactError, DataError, StaleInput
from workflows.recipe import Recipe
from workflows.serve.raw_values import table_of
from workflows.serve.wire import (
    Fault,
    Features,
    Health,
    LabelledItem,
    RankedItem,
    Refusal,
    UserList,
    UserQuery,
    fault,
)
from workflows.stages.embedding import RawTower
from workflows.stages.export import Export, Wish
from workflows.stages.store import ANSWERING, Manifest, Store

_EMBEDDABLE = "values of which the tower makes numbers; are some far too large?"
Stamps = tuple[tuple[int, int] | None, ...]


@dataclass(frozen=True)
class Served:
    """An export, held in memory.

    The raw towers alone wait on disk until somebody tells raw values: they bring TensorFlow along.

    Attributes:
        export: the export that answers.
        health: what it is.
        store: the run.
        read: what the run's stages were when they were read.
    """

    export: Export
    health: Health
    store: Store
    read: Stamps
    _reading: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)

    @classmethod
    def open(cls, store: Store, recipe: Recipe) -> Served:
        """Load the export of a run.

        Raises:
            MissingStage, StaleInput, ArtifactError: it cannot be used.
        """
        read = stamps(store)
        export = Export.open(store, recipe)
        manifest = store.read("export", recipe, deep=False)
        served = cls(export, _health(export, store, manifest), store, read)
        export.lookup.prepare()
        export.catalogue.lookup.prepare()
        # reads all that answers need
        served.lists([UserQuery(id="nobody")], Wish())
        export.similar(str(export.item_ids[0]), Wish())
        served._check()
        return served

    def told_of(self, users: Sequence[UserQuery]) -> pa.Table | None:
        """Return the raw values that users are told by, a row a user; None if there are none.

        Raises:
            Refusal: for raw values that the query tower does not take.
        """
        if not any(user.features for user in users):
            return None
        told = table_of([u.features for u in users], self.query_tower, "users", "features")
        return as_trained(told, self.export.recipe, self.export.known)

    def lists(
        self, users: Sequence[UserQuery], wish: Wish, told: pa.Table | None = None
    ) -> list[UserList]:
        """Return a list for each user, in their order.

        Args:
            users: known by id, or told by raw values.
            wish: what lists may hold.
            told: what `told_of` returns for these users, if they are told by raw values.

        Raises:
            Refusal: for raw values that make no numbers.
            DataError: a rule or an id that fits no item.
        """
        ids = np.array([user.id or "" for user in users], object)
        try:
            answers = self.export.ask(ids, wish, told)
        except BrokenModel:
            if told is None:
                raise
            raise Refusal(422, fault("body.users", "raw values", _EMBEDDABLE)) from None
        items, scores = answers.top
        there = items != NO_ITEM
        shown, values = self._shown(items[there]), scores[there].tolist()
        lists, start = [], 0
        for user, by, length in zip(users, answers.by.tolist(), there.sum(1).tolist(), strict=True):
            places = range(start, start + length)
            ranked = [
                RankedItem.model_construct(**shown[n], rank=n - start + 1, score=values[n])
                for n in places
            ]
            lists.append(UserList.model_construct(user=user.id, answered_by=by, items=ranked))
            start += length
        return lists

    def similar(self, item: str, wish: Wish) -> list[RankedItem]:
        """Return the items most like one.

        Raises:
            DataError: there is no such item, or a rule or an id fits none.
        """
        rows = self.export.similar(item, wish)
        key = self.export.recipe.item_id
        return [
            RankedItem.model_construct(
                item=row.pop(key), rank=row.pop("rank"), score=row.pop("score"), labels=row
            )
            for row in rows
        ]

    def history(self, user: str, k: int) -> list[LabelledItem] | None:
        """Return the last k things a user did before the cut; None for somebody of no table."""
        if self.export.rows_of_users(np.array([user], object))[0] < 0:
            return None
        key = self.export.recipe.item_id
        rows = self.export.history(user, k).to_pylist()
        return [LabelledItem.model_construct(item=row.pop(key), labels=row) for row in rows]

    def knows_item(self, item: str) -> bool:
        """Say whether there is an item of this id."""
        return bool(self.export.catalogue.find(pa.array([item]))[0] >= 0)

    def embed(self, side: str, rows: Sequence[Features]) -> list[list[float]]:
        """Return the embeddings of users or items from their raw values.

        Raises:
            Refusal: for raw values that the tower does not take.
        """
        if not rows:
            return []
        tower = self.query_tower if side == "users" else self.item_tower
        told = as_trained(table_of(rows, tower, side), self.export.recipe, self.export.known)
        vectors = tower.embed(self.export.latest(told) if side == "users" else told)
        broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1)).tolist()
        if broken:
            raise Refusal(422, *(fault(f"body.{side}[{n}]", rows[n], _EMBEDDABLE) for n in broken))
        return list(vectors.tolist())

    @property
    def dim(self) -> int:
        """Numbers of an embedding."""
        return int(self.export.item_vectors.shape[1])

    @property
    def query_tower(self) -> RawTower:
        """What embeds users by raw values."""
        return self._tower("query_tower")

    @property
    def item_tower(self) -> RawTower:
        """What embeds items by raw values."""
        return self._tower("item_tower")

    @property
    def has_towers(self) -> bool:
        """Whether raw values have been told."""
        return any(name in vars(self.export) for name in ("query_tower", "item_tower"))

    def blame(self, wish: Wish) -> list[Fault]:
        """Return which rules of a wish fit no column here."""
        found = []
        for n, rule in enumerate(wish.only):
            try:
                self.export.catalogue.meets(rule)
            except DataError as error:
                found.append(fault(f"only[{n}]", rule, str(error)))
        return found

    def _tower(self, name: str) -> RawTower:
        """Return a tower, that of this export and no other.

        Raises:
            StaleInput: it was not read in time; a newer export lies there now.
            ArtifactError: TensorFlow is not installed.
        """
        with self._reading:
            read = set(vars(self.export))
            try:
                tower: RawTower = getattr(self.export, name)
                if name not in read:
                    self.export.about(np.array([-1]), None, [])  # users' raw values, too
                    self._check()
            except ImportError as error:
                raise ArtifactError(
                    f"Raw values need TensorFlow ({error}). Install it: pip install "
                    "'merlin-two-tower[serving]'."
                ) from None
            except (StaleInput, OSError) as error:  # another export, or none for a moment
                for strange in set(vars(self.export)) - read:
                    del vars(self.export)[strange]
                raise self._stale() from error
        return tower

    def _check(self) -> None:
        """Refuse what may have been read from two exports.

        Raises:
            StaleInput: the run was written meanwhile.
        """
        if stamps(self.store) != self.read:
            raise self._stale()

    def _stale(self) -> StaleInput:
        return StaleInput(f"{self.store.root} was written while it was being read. Try again.")

    def _shown(self, rows: np.ndarray[Any, Any]) -> list[dict[str, Any]]:
        """Return ids and labels of items."""
        taken = pa.array(rows)
        ids = self.export.item_ids.take(taken).to_pylist()
        labels = self.export.catalogue.labels.take(taken).to_pylist() or [{}] * len(ids)
        return [{"item": i, "labels": of} for i, of in zip(ids, labels, strict=True)]


def _health(export: Export, store: Store, manifest: Manifest) -> Health:
    return Health(
        status="ready",
        run=store.root.name,
        recipe=export.recipe.name,
        recipe_hash=manifest.recipe_hash,
        export=manifest.digest[:12],
        exported=manifest.created,
        as_of=export.as_of,
        users=len(export.user_ids),
        items=len(export.item_ids),
    )


def stamps(store: Store) -> Stamps:
    """Return what changes when a stage that answers come from is written anew."""
    return store.stamps(ANSWERING)
