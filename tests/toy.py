"""A toy world with known answers: G groups of users, each of which likes one group of items.

Every member of a group has interacted with all items of the group except one, which is withheld and
is the item to recommend. Each item of a group is withheld from equally many members. So

* a retriever that learns the groups finds every withheld item at rank 1 (seen items excluded);
* popularity finds it for the first group only: recall@1 = 1 / G. All items have equally many
  interactions (a tie), so the tie rule returns the lowest unseen row; that is the withheld item for
  members of the first group and a wrong item for all others;
* a constant scorer that does not exclude items has recall@k = k / (number of withheld items).

There are also a cold-start user (the last row), a cold-start item (the last row, with the
attributes of the first group), and one interaction that occurs twice. The latter is in the first
group; its item has one interaction more than all others, and is wrong for members of other groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from models.core.retriever import Interactions, Queries, Ragged

HOUR = 3600


@dataclass(frozen=True)
class Toy:
    """The toy world and its answers.

    Attributes:
        train: all interactions except the withheld ones, an hour apart, in random order.
        withheld: the withheld item of each member; an empty list for the cold-start user.
        members: user rows with a history.
        cold_user: user row without a history.
        cold_item: item row without interactions.
        user_groups: group of each user, int64 [n_users]; -1 for the cold-start user.
        item_groups: group of each item, int64 [n_items]; the cold-start item is in group 0.
        n_groups: number of groups G.
    """

    train: Interactions
    withheld: Ragged
    members: np.ndarray
    cold_user: int
    cold_item: int
    user_groups: np.ndarray
    item_groups: np.ndarray
    n_groups: int

    @property
    def queries(self) -> Queries:
        """All members with their histories."""
        return Queries(self.members, self.train.histories().take(self.members))

    @property
    def targets(self) -> Ragged:
        """The withheld item of each of `queries`."""
        return self.withheld.take(self.members)

    @property
    def cold_queries(self) -> Queries:
        """The cold-start user and an unknown user, both without a history."""
        return Queries(np.array([self.cold_user, -1]), Ragged.empty(2))

    @property
    def attributes(self) -> sp.csr_matrix:
        """The group of each item, float32 [n_items, n_groups]."""
        return sp.csr_matrix(np.eye(self.n_groups, dtype=np.float32)[self.item_groups])


def world(*, n_groups: int = 4, n_items: int = 6, n_twins: int = 2, seed: int = 0) -> Toy:
    """Build the toy world.

    Args:
        n_groups: number of groups G.
        n_items: number of items of a group, without the cold-start item.
        n_twins: number of members of a group from whom the same item is withheld.
        seed: seed of the random order of the log.
    """
    n_members = n_groups * n_items * n_twins
    members = np.arange(n_members)
    user_groups = members // (n_items * n_twins)
    withheld = user_groups * n_items + members % n_items

    users = np.repeat(members, n_items)
    items = (user_groups[:, None] * n_items + np.arange(n_items)).ravel()
    met = items != withheld[users]
    users, items = users[met], items[met]
    order = np.random.default_rng(seed).permutation(len(users))
    in_first_group = user_groups[users[order]] == 0
    order = np.append(order, order[in_first_group][0])  # the duplicate
    train = Interactions(
        users=users[order],
        items=items[order],
        times=np.arange(len(order)) * HOUR,
        n_users=n_members + 1,
        n_items=n_groups * n_items + 1,
    )
    return Toy(
        train=train,
        withheld=Ragged.from_pairs(members, withheld, n_lists=n_members + 1),
        members=members,
        cold_user=n_members,
        cold_item=n_groups * n_items,
        user_groups=np.append(user_groups, -1),
        item_groups=np.append(np.arange(n_groups * n_items) // n_items, 0),
        n_groups=n_groups,
    )
