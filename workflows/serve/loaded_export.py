"""Loads a run's export into memory, so that its files on disk can be replaced meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from models.core.column_names import HISTORY_AGES
from models.core.retriever import NO_ITEM, BrokenModel
from workflows.feature_files.rows import as_trained
from workflows.ground.column_names import RANK, SCORE
from workflows.ground.errors import ArtifactError, DataError, StaleInput
from workflows.recipe import Recipe
from workflows.serve.raw_values import faults_of_row, table_of
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
from workflows.stages.dependencies import ANSWERING
from workflows.stages.embedding import RawTower
from workflows.stages.manifest import Manifest
from workflows.stages.recommender import ListOptions, Recommender
from workflows.stages.store import Store
from workflows.stages.user_features import cut_histories

_EMBEDDABLE = "values with a finite embedding; check for numbers that are far too large"
Stamps = tuple[tuple[int, int] | None, ...]


@dataclass(frozen=True)
class LoadedExport:
    """A run's export in memory: makes recommendation lists, similar items and embeddings.

    Only the towers that take raw values (text and numbers) are read later, with the first request
    that gives such values, because they load TensorFlow.

    Attributes:
        recommender: the object that ranks the items of the export, by the search index if there is
            one.
        health: the description of the export for `/health`.
        store: the folder of the run, with its finished stages.
        read: the result of the function `stamps` at the time when the export was read.
    """

    recommender: Recommender
    health: Health
    store: Store
    read: Stamps
    _reading: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)

    @classmethod
    def open(cls, store: Store, recipe: Recipe) -> LoadedExport:
        """Load the export of a run into memory.

        Raises:
            MissingStage, StaleInput, ArtifactError: the export is missing, stale or damaged.
        """
        read = stamps(store)
        recommender = Recommender.open(store, recipe)
        manifest = store.manifest("export")
        loaded = cls(recommender, _health(recommender, store, manifest), store, read)
        recommender.export.load_users()
        recommender.export.user_lookup.prepare()
        recommender.catalogue.lookup.prepare()
        # these two calls read all files that later answers need
        loaded.lists([UserQuery(id="unknown")], ListOptions())
        recommender.similar(str(recommender.catalogue.ids[0]), ListOptions())
        loaded._check()
        return loaded

    def raw_values(self, users: Sequence[UserQuery]) -> pa.Table | None:
        """Return users' raw feature values as a table, a row per user; None if none are given.

        Raises:
            Refusal: the query tower does not accept a value.
        """
        if not any(user.features for user in users):
            return None
        rows = [user.features for user in users]
        at = ("users", "features")
        return self._as_trained(table_of(rows, self.query_tower, *at, weights=self._weights), *at)

    @property
    def _weights(self) -> dict[str, str]:
        """A map from inputs with weights or ages to the input with the list that they belong to."""
        recipe = self.recommender.recipe
        features = recipe.features.items()
        found = {of.weights: name for name, of in features if of.weights is not None}
        history = recipe.history_with_ages
        return found if history is None else {**found, HISTORY_AGES: history}

    def _as_trained(self, given: pa.Table, side: str, *inside: str) -> pa.Table:
        def convert(rows: pa.Table) -> pa.Table:
            recommender = self.recommender
            return as_trained(rows, recommender.recipe, recommender.known_values, side)

        try:
            return convert(given)
        except DataError:
            raise Refusal(422, *faults_of_row(given, convert, side, *inside)) from None

    def lists(
        self, users: Sequence[UserQuery], options: ListOptions, given: pa.Table | None = None
    ) -> list[UserList]:
        """Return a list of recommended items for each user, in the order of the users.

        Args:
            users: users with an id, raw values, or both.
            options: the length of the lists, and the items that they may hold.
            given: the result of `raw_values` for the users.

        Raises:
            Refusal: the embedding of the raw values is not finite.
            DataError: an item filter or an item id does not fit any item.
        """
        ids = np.array([user.id or "" for user in users], object)
        try:
            answers = self.recommender.rank(ids, options, given)
        except BrokenModel:
            if given is None:
                raise
            raise Refusal(422, fault("body.users", "raw values", _EMBEDDABLE)) from None
        items, scores = answers.top
        is_item = items != NO_ITEM
        labelled, values = self._labelled(items[is_item]), scores[is_item].tolist()
        lists, start = [], 0
        each = zip(users, answers.answered_by.tolist(), is_item.sum(1).tolist(), strict=True)
        for user, by, length in each:
            places = range(start, start + length)
            ranked = [
                RankedItem.model_construct(**labelled[n], rank=n - start + 1, score=values[n])
                for n in places
            ]
            lists.append(UserList.model_construct(user=user.id, answered_by=by, items=ranked))
            start += length
        return lists

    def similar(self, item: str, options: ListOptions) -> list[RankedItem]:
        """Return the items whose embeddings are most similar to that of an item.

        Raises:
            DataError: the item does not exist, or an item filter or an id matches no item.
        """
        key = self.recommender.recipe.item_id
        return [
            RankedItem.model_construct(
                item=row.pop(key), rank=row.pop(RANK), score=row.pop(SCORE), labels=row
            )
            for row in self.recommender.similar(item, options)
        ]

    def history(self, user: str, k: int) -> list[LabelledItem] | None:
        """Return the last k items that a user interacted with; None for an unknown user."""
        if self.recommender.user_rows(np.array([user], object))[0] < 0:
            return None
        key = self.recommender.recipe.item_id
        rows = self.recommender.history(user, k).to_pylist()
        return [LabelledItem.model_construct(item=row.pop(key), labels=row) for row in rows]

    def knows_item(self, item: str) -> bool:
        """Return whether the catalogue has an item with the given id."""
        return bool(self.recommender.catalogue.find(pa.array([item]))[0] >= 0)

    def embed(self, side: str, rows: Sequence[Features]) -> list[list[float]]:
        """Return the embeddings of users or items, computed by a tower from their raw values.

        Raises:
            Refusal: the tower does not accept a value, or the embedding is not finite.
        """
        if not rows:
            return []
        tower = self.query_tower if side == "users" else self.item_tower
        given = self._as_trained(table_of(rows, tower, side, weights=self._weights), side)
        if side == "users":
            given = cut_histories(given, self.recommender.recipe)
        vectors = tower.embed(given)
        broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1)).tolist()
        if broken:
            raise Refusal(422, *(fault(f"body.{side}[{n}]", rows[n], _EMBEDDABLE) for n in broken))
        return list(vectors.tolist())

    @property
    def dim(self) -> int:
        """Number of dimensions of an embedding."""
        return int(self.recommender.catalogue.vectors.shape[1])

    @property
    def query_tower(self) -> RawTower:
        """The query tower that embeds users by their raw feature values."""
        return self._tower("query_tower")

    @property
    def item_tower(self) -> RawTower:
        """The item tower that embeds items by their raw feature values."""
        return self._tower("item_tower")

    @property
    def has_towers(self) -> bool:
        """Whether a tower that takes raw values has been loaded for a request."""
        return any(name in vars(self.recommender.export) for name in ("query_tower", "item_tower"))

    def faults_of(self, options: ListOptions) -> list[Fault]:
        """Return one fault for each item filter of a request that does not fit the export."""
        found = []
        for n, rule in enumerate(options.only):
            try:
                self.recommender.catalogue.rules.matches(rule)
            except DataError as error:
                found.append(fault(f"only[{n}]", rule, str(error)))
        return found

    def _tower(self, name: str) -> RawTower:
        """Return the raw tower of this export, unless a newer export replaced it on disk.

        Raises:
            StaleInput: the tower had not been read when a newer export replaced its files.
            ArtifactError: TensorFlow is not installed.
        """
        export = self.recommender.export
        with self._reading:
            before = set(vars(export))
            try:
                tower: RawTower = getattr(export, name)
                if name not in before:
                    # requests with raw values also need these; they must be of the same export
                    export.load_raw_users()
                    _ = export.vocabularies, export.raw_texts
                    self._check()
            except ImportError as error:
                raise ArtifactError(
                    f"Raw values need TensorFlow ({error}). Install it: pip install "
                    "'merlin-two-tower[serving]'."
                ) from None
            except (StaleInput, OSError) as error:  # another export, or none for a moment
                for newer in set(vars(export)) - before:
                    del vars(export)[newer]
                raise self._stale() from error
        return tower

    def _check(self) -> None:
        """Refuse an export if its files may be of two different versions.

        Raises:
            StaleInput: the run was written while it was being read.
        """
        if stamps(self.store) != self.read:
            raise self._stale()

    def _stale(self) -> StaleInput:
        return StaleInput(f"{self.store.path} was written while it was being read. Try again.")

    def _labelled(self, rows: np.ndarray[Any, Any]) -> list[dict[str, Any]]:
        """Return ids and display columns (such as titles) of items, given their row numbers."""
        taken, catalogue = pa.array(rows), self.recommender.catalogue
        ids = catalogue.ids.take(taken).to_pylist()
        labels = catalogue.labels.take(taken).to_pylist() or [{}] * len(ids)
        return [{"item": i, "labels": of} for i, of in zip(ids, labels, strict=True)]


def _health(recommender: Recommender, store: Store, manifest: Manifest) -> Health:
    return Health(
        status="ready",
        run=store.name,
        recipe=recommender.recipe.name,
        recipe_hash=manifest.recipe_hash,
        export=manifest.digest[:12],
        exported=manifest.created,
        as_of=recommender.export.as_of,
        users=len(recommender.export.user_ids),
        items=len(recommender.catalogue.ids),
    )


def stamps(store: Store) -> Stamps:
    """Return, for each stage that the server reads, a value that changes when it is rewritten."""
    return store.stamps(ANSWERING)
