"""Held-out events in mini-batches, and how well a model tells whose offer is whose.

Each user of a mini-batch is scored with the offers of all its events. For a task, an event's offer
is "task = its own value"; a pair of a user with another event's offer is left out where it is the
user's own offer too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from models.core.columns import Column, Columns, as_array, n_rows, take_rows
from models.core.retriever import Floats, Ints
from models.offers.auc import GroupedAuc, grouped_auc
from models.offers.model import Asked
from models.offers.offers import Offers, items_as_offers

#: Mini-batches that are scored at a time.
_BLOCK = 1000


@dataclass(frozen=True)
class Task:
    """The offer of each event.

    Attributes:
        keys: row of the offers, int [n_events]; -1 where the event has none.
        offers: n_offers of them.
        n_offers: how many.
    """

    keys: Ints
    offers: Offers
    n_offers: int


@dataclass(frozen=True)
class Pairs:
    """Events, mini-batch by mini-batch.

    Attributes:
        columns: users' lists and items' codes, name → [n_events].
        size: events of a mini-batch; n_events is a multiple of it.
    """

    columns: Columns
    size: int

    def __len__(self) -> int:
        return n_rows(self.columns)

    def scores(self, asked: Asked, tasks: Mapping[str, Task]) -> dict[str, Floats]:
        """Score all pairs of each task, float32 [n_mini_batches, size users, size offers].

        Users are embedded once for all tasks, offers once for all events.
        """
        vectors = {name: asked.offers(task.offers) for name, task in tasks.items()}
        parts: dict[str, list[Floats]] = {name: [] for name in tasks}
        for rows, columns in self._blocks(asked.columns):
            users = asked.users(columns)
            users = users.reshape(-1, self.size, *users.shape[1:])
            for name, task in tasks.items():
                offers = vectors[name][task.keys[rows]]  # of -1 any: such pairs do not count
                offers = offers.reshape(-1, self.size, *offers.shape[1:])
                parts[name].append(asked.score(users, offers))
        return {name: np.concatenate(found) for name, found in parts.items()}

    def _blocks(self, names: Sequence[str]) -> Iterator[tuple[slice, dict[str, Column]]]:
        step = _BLOCK * self.size
        for start in range(0, len(self), step):
            rows = np.arange(start, min(start + step, len(self)))
            chosen = {name: take_rows(self.columns[name], rows) for name in names}
            yield slice(start, start + step), chosen

    def aucs(self, asked: Asked, tasks: Mapping[str, Task]) -> dict[str, GroupedAuc]:
        """Score all pairs of each task, and return the AUC of each of its offers."""
        scores = self.scores(asked, tasks)
        return {name: self.auc(task, scores[name]) for name, task in tasks.items()}

    def auc(self, task: Task, scores: Floats) -> GroupedAuc:
        """Return the AUC of each offer, over the pairs whose offer it is.

        Args:
            task: the offers.
            scores: the scores of all pairs, as `scores` gives them.
        """
        keys = task.keys.reshape(-1, self.size)
        offers = np.broadcast_to(keys[:, None, :], scores.shape)
        own = np.broadcast_to(np.eye(self.size, dtype=bool), scores.shape)
        kept = (offers >= 0) & (own | (keys[:, :, None] != offers))
        return grouped_auc(offers[kept], scores[kept], own[kept], n_groups=task.n_offers)

    def auc_of_items(self, asked: Asked, item: str) -> float:
        """Return one AUC over all pairs of users and single items, an item being no negative of
        a user who took it.

        Args:
            asked: the model.
            item: the attribute that names items.
        """
        codes: dict[str, Ints] = {name: self._codes(name) for name in asked.attributes}
        task = Task(np.arange(len(self)), items_as_offers(codes), len(self))
        scores = self.scores(asked, {"items": task})["items"]
        items = self._codes(item).reshape(-1, self.size)
        own = np.broadcast_to(np.eye(self.size, dtype=bool), scores.shape)
        kept = own | (items[:, :, None] != items[:, None, :])
        groups = np.zeros(int(kept.sum()), np.int64)
        return float(grouped_auc(groups, scores[kept], own[kept], n_groups=1).auc[0])

    def _codes(self, name: str) -> Ints:
        return as_array(self.columns[name])
