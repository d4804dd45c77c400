"""Warm start: take over the weights of an earlier model with smaller vocabularies.

A vocabulary that only grows keeps its codes, so the first rows of each embedding table keep their
meaning. The rows of new values start as copies of the row of the unseen code.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from models.core.reserved_codes import UNSEEN

Array = npt.NDArray[np.generic]


#: Names of weights that are data of the items, which the new model has already.
_DATA = ("vectors", "item_codes", "item_offsets")
#: Names of weights with one row per categorical code, the only ones that may have more rows.
_TABLES = ("embeddings", "bias", "prior", "table")


class WarmStartError(ValueError):
    """The weights of the earlier model do not fit the towers of the new model."""


def grow_weights(old: Sequence[Array], fresh: Sequence[Array], names: Sequence[str]) -> list[Array]:
    """Return the new model's initial weights, taken over from an earlier model.

    Args:
        old: weights of the earlier model, in the order of Keras.
        fresh: initial weights of the new model, in the same order; its tables may have more rows.
        names: the names of the new model's weights, for error messages.

    Raises:
        WarmStartError: a weight is missing or has another shape.
    """
    if len(old) != len(fresh):
        raise WarmStartError(
            f"the earlier model has {len(old)} weights, this one {len(fresh)}; the recipe's "
            "features or model changed"
        )
    return [_grow(a, b, name) for a, b, name in zip(old, fresh, names, strict=True)]


def _grow(old: Array, fresh: Array, name: str) -> Array:
    kind = name.rpartition("/")[2].partition(":")[0]
    if kind in _DATA:
        return fresh
    if old.shape == fresh.shape:
        return old
    same_width = old.ndim == fresh.ndim and old.shape[1:] == fresh.shape[1:]
    if kind not in _TABLES or not same_width or len(old) > len(fresh) or len(old) <= UNSEEN:
        raise WarmStartError(
            f"{name} was {list(old.shape)} and would be {list(fresh.shape)}; only tables may grow"
        )
    taken = fresh.copy()
    taken[: len(old)] = old
    taken[len(old) :] = old[UNSEEN]
    return taken
