"""Evaluates offer models on held-out events: AUC over pairs of users and offers in mini-batches.

Each user of a mini-batch is scored with the offers of all events of the mini-batch. In a task, such
as brand, the offer of an event is "brand = the event's brand". Two kinds of pairs are left out,
because they are no negatives: a user with the offer of another event of the same user, and a user
with an offer that equals the user's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from models.core.columns import Column, Columns, as_array, n_rows, take_rows
from models.core.retriever import Bools, BrokenModel, Floats, Ints
from models.offers.auc import GroupedAuc, grouped_auc
from models.offers.model import InferenceModel
from models.offers.offers import Offers, items_as_offers

#: Number of mini-batches of held-out events that are scored at a time.
_BLOCK = 1000


class NoNegativesError(ValueError):
    """No mini-batch has events of two users with different items, so there are no negatives."""


@dataclass(frozen=True)
class Task:
    """An evaluation task: the offers "attribute = value" of one attribute, and each event's offer.

    Attributes:
        keys: index of the offer of each held-out event, int [n_events]; -1 for events without an
            offer.
        offers: attribute → for each of n_offers offers, a weighted list of attribute codes.
        n_offers: number of offers.
    """

    keys: Ints
    offers: Offers
    n_offers: int


@dataclass(frozen=True)
class Pairs:
    """Held-out events (a user and an item each), divided into mini-batches.

    Attributes:
        columns: name → history lists of users and codes of items, n_events rows each.
        users: the index of the user of each held-out event, int [n_events].
        size: number of events in a mini-batch, of which n_events is a multiple.
    """

    columns: Columns
    users: Ints
    size: int

    def __len__(self) -> int:
        return n_rows(self.columns)

    def scored_pairs(self, keys: Ints) -> Bools:
        """Return which user-offer pairs count for the AUC, bool [n_mini_batches, size, size].

        Args:
            keys: the offer of each event, int [n_events]; -1 for events without an offer.
        """
        offers = keys.reshape(-1, self.size)
        users = self.users.reshape(-1, self.size)
        own = np.eye(self.size, dtype=bool)
        other_offer = offers[:, :, None] != offers[:, None, :]
        other_user = users[:, :, None] != users[:, None, :]
        return (offers >= 0)[:, None, :] & (own | (other_offer & other_user))

    def refuse_without_negatives(self, item: str) -> None:
        """Raise NoNegativesError if no pair of a user and an item can be a negative.

        Args:
            item: the name of the attribute that holds the item ids; each of its values is one item.
        """
        if self.scored_pairs(self._codes(item)).sum() == len(self):
            raise NoNegativesError(
                f"its {len(self)} events, in mini-batches of {self.size}, pair no user with an "
                "item of another user that they did not take, so that there is no AUC"
            )

    def scores(self, model: InferenceModel, tasks: Mapping[str, Task]) -> dict[str, Floats]:
        """Score all user-offer pairs of each task, float32 [n_mini_batches, size, size].

        Users are embedded once for all tasks, and offers once for all events.

        Raises:
            BrokenModel: the model gives scores that are NaN.
        """
        vectors = {name: model.offers(task.offers) for name, task in tasks.items()}
        parts: dict[str, list[Floats]] = {name: [] for name in tasks}
        for rows, columns in self._blocks(model.columns):
            users = model.users(columns)
            users = users.reshape(-1, self.size, *users.shape[1:])
            for name, task in tasks.items():
                offers = vectors[name][task.keys[rows]]  # of -1 any: such pairs do not count
                offers = offers.reshape(-1, self.size, *offers.shape[1:])
                parts[name].append(model.score(users, offers))
        found = {name: np.concatenate(blocks) for name, blocks in parts.items()}
        if n_nan := sum(int(np.isnan(scores).sum()) for scores in found.values()):
            raise BrokenModel(f"{n_nan} scores are NaN.")
        return found

    def _blocks(self, names: Sequence[str]) -> Iterator[tuple[slice, dict[str, Column]]]:
        step = _BLOCK * self.size
        for start in range(0, len(self), step):
            rows = np.arange(start, min(start + step, len(self)))
            chosen = {name: take_rows(self.columns[name], rows) for name in names}
            yield slice(start, start + step), chosen

    def aucs(self, model: InferenceModel, tasks: Mapping[str, Task]) -> dict[str, GroupedAuc]:
        """Score all user-offer pairs of each task, and return the AUC of each offer of the task."""
        scores = self.scores(model, tasks)
        return {name: self.auc(task, scores[name]) for name, task in tasks.items()}

    def auc(self, task: Task, scores: Floats) -> GroupedAuc:
        """Return the AUC of each offer, over the user-offer pairs with that offer.

        Args:
            task: the offers of one attribute.
            scores: the scores of all pairs, which the method `scores` returns.
        """
        offers = np.broadcast_to(task.keys.reshape(-1, 1, self.size), scores.shape)
        own = np.broadcast_to(np.eye(self.size, dtype=bool), scores.shape)
        kept = self.scored_pairs(task.keys)
        return grouped_auc(offers[kept], scores[kept], own[kept], n_groups=task.n_offers)

    def auc_of_items(self, model: InferenceModel, item: str) -> float:
        """Return one AUC over all pairs of users and single items.

        Args:
            model: the offer model that scores the pairs.
            item: the name of the attribute that holds the item ids; each of its values is one item.

        Raises:
            BrokenModel: the model gives scores that are NaN.
        """
        codes: dict[str, Ints] = {name: self._codes(name) for name in model.attributes}
        task = Task(np.arange(len(self)), items_as_offers(codes), len(self))
        scores = self.scores(model, {"items": task})["items"]
        own = np.broadcast_to(np.eye(self.size, dtype=bool), scores.shape)
        kept = self.scored_pairs(self._codes(item))
        groups = np.zeros(int(kept.sum()), np.int64)
        return float(grouped_auc(groups, scores[kept], own[kept], n_groups=1).auc[0])

    def _codes(self, name: str) -> Ints:
        return as_array(self.columns[name])
