"""`kind: label`: text that people read beside an id, such as a title; no model takes it."""

from __future__ import annotations

from workflows.recipe.kinds.base import Fields
from workflows.recipe.kinds.category import Text


class Label(Text):
    """The feature kind for text that people read beside an id, such as a title."""

    name = "label"
    is_label = True

    def columns(self, name: str, feature: Fields) -> list[str]:
        """Return no columns, because the encoded tables have no labels."""
        return []
