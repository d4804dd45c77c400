"""Feature kinds: one class for each value of `kind`, which checks, reads and encodes features.

To add a feature kind, write its class in a file of this folder and list it in `KINDS`.
"""

from __future__ import annotations

from collections.abc import Mapping

from workflows.recipe.kinds.base import Kind
from workflows.recipe.kinds.categories import Categories
from workflows.recipe.kinds.category import Category
from workflows.recipe.kinds.label import Label
from workflows.recipe.kinds.number import Number
from workflows.recipe.kinds.roles import RowWeight, Time
from workflows.recipe.kinds.vector import Vector
from workflows.recipe.kinds.weights import Weights

#: Name of a feature kind in recipes → the object that implements the kind.
KINDS: Mapping[str, Kind] = {
    kind.name: kind for kind in (Category(), Categories(), Number(), Label(), Weights(), Vector())
}
#: Role → the kind of features with this role, whatever their `kind:` is.
BY_ROLE: Mapping[str, Kind] = {"time": Time(), "weight": RowWeight()}


def kinds_that_take(field: str) -> list[str]:
    """Return the names of the feature kinds that use a field of a feature, such as `separator`."""
    return [name for name, kind in KINDS.items() if field in kind.takes]


#: Fields of a recipe's feature that only some feature kinds use.
OWN_FIELDS = sorted({field for kind in KINDS.values() for field in kind.takes})
