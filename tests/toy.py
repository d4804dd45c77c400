"""A world with known answers: G groups of users who each like the items of one group of items.

Every member has met all items of his group but one, which is withheld: it is what he should be
recommended. Each item of a group is withheld from equally many members, so that

* a retriever that learns the groups finds every withheld item at rank 1 (seen items excluded);
* popularity finds it for the first group only: recall@1 = 1 / G. All items were met by equally many
  members (the tie), so the tie rule shows the lowest unseen row; that is the withheld item for
  members of the first group and a wrong one for all others;
* a constant scorer that does not exclude earns recall@k = k / (number of withheld items).

Beside them stand a cold user (the last row: no history), a cold item (the last row: never met, with
the attributes of the first group) and one interaction that occurs twice (of the first group, so
that its item, now met once more than all others, is a wrong one for members of other groups).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from models.core.retriever import Interactions, Queries, Ragged

HOUR = 3600


@dataclass(frozen=True)
class Toy:
    """The world and its answers.

    Attributes:
        train: all interactions but the withheld, an hour apart, the users in random order.
        withheld: the one item that each member did not meet; none for the cold user.
        members: user rows that have a history.
        cold_user: the user row without a history.
        cold_item: the item row without interactions.
        user_groups: int64 [n_users]; -1 for the cold user.
        item_groups: int64 [n_items]; the cold item belongs to group 0.
        n_groups: G.
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
        """Every member with his history."""
        return Queries(self.members, self.train.histories().take(self.members))

    @property
    def targets(self) -> Ragged:
        """The withheld item of each of `queries`."""
        return self.withheld.take(self.members)

    @property
    def strangers(self) -> Queries:
        """The cold user, and somebody who is in no table; both without a history."""
        return Queries(np.array([self.cold_user, -1]), Ragged.empty(2))

    @property
    def attributes(self) -> sp.csr_matrix:
        """The group of each item, float32 [n_items, n_groups]."""
        return sp.csr_matrix(np.eye(self.n_groups, dtype=np.float32)[self.item_groups])


def world(*, n_groups: int = 4, n_items: int = 6, n_twins: int = 2, seed: int = 0) -> Toy:
    """Build the world.

    Args:
        n_groups: G.
        n_items: items of a group, the cold item not counted.
        n_twins: members of a group from whom the same item is withheld.
        seed: of the order of the log.
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
