"""Chooses a baseline's hyper-parameters: tries some points, then more while the best is at an edge.

A point is a combination of hyper-parameters. The file of each baseline has the points to try first.
The best point is chosen on the validation part, like the best epoch of a two-tower model. Without a
validation part, the first point (combination of hyper-parameters) is used.

The best point of a fixed grid is often at its edge, and then the baseline is weaker than it could
be. Therefore the search starts from a few points. While some axis has no tried point on one side of
the best point, the next value on that side is tried. The search ends when the best point is better
than a neighbour on every side, or at a bound of the axis, or after `MOST` points. The method is the
coordinate search of Hooke and Jeeves 1961 with a fixed step, without random numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import scipy.sparse as sp

from models.core.retriever import Interactions, Retriever

#: A point of a search: the value of each hyper-parameter, in the order of the axes.
Point = tuple[float, ...]

#: Largest number of points that a search tries, the first ones included.
MOST = 24


@dataclass(frozen=True)
class Facts:
    """The data and the seed with which all baselines are fitted.

    Attributes:
        train: the training interactions.
        attributes: multi-hot attributes of the items, float32 [n_items, n_attributes].
        seed: the seed of all random numbers of a baseline.
    """

    train: Interactions
    attributes: sp.csr_matrix
    seed: int


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One hyper-parameter of a search space, the step between its values, and its bounds.

    Attributes:
        name: the name of the hyper-parameter.
        low: the smallest value of the hyper-parameter that is tried.
        high: the largest value of the hyper-parameter that is tried.
        ratio: the factor between a value and the next larger value.
        whole: whether the hyper-parameter takes whole numbers only; values are then rounded down.
    """

    name: str
    low: float
    high: float
    ratio: float = 2.0
    whole: bool = False

    def beyond(self, value: float, *, up: bool) -> float | None:
        """Return the next larger or smaller value of the hyper-parameter; None at a bound."""
        following = value * self.ratio if up else value / self.ratio
        following = min(max(following, self.low), self.high)
        if self.whole:
            following = float(int(following))
        return following if (following > value if up else following < value) else None


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The search space of a baseline: its first points, its axes, and the function that fits it.

    Attributes:
        start: the points that are always tried. Without a validation part, the first of them is
            used.
        fit: the function that fits the baseline with the hyper-parameters of a point.
        axes: the hyper-parameters, in the order of the values of a point; empty if there are none.
        notice: a sentence that is logged before the first fit, such as the estimated cost of a fit.
        by_history: whether the models represent a user by the history alone, so that popularity
            answers queries without a history.
    """

    start: tuple[Point, ...]
    fit: Callable[[Point], Retriever]
    axes: tuple[Axis, ...] = ()
    notice: str = ""
    by_history: bool = False

    def named(self, point: Point) -> str:
        """Return a point of hyper-parameters as text, such as `regularization=30 alpha=8`."""
        return " ".join(f"{a.name}={value:g}" for a, value in zip(self.axes, point, strict=True))


class SearchResult(NamedTuple):
    """The result of a hyper-parameter search.

    Attributes:
        best: the point with the highest validation score; among equals, the one that was tried
            first.
        tried: the number of points that were fitted and measured.
        edge: names of the axes on which nothing was tried on one side of the best point, because of
            a bound or of the limit `MOST`.
    """

    best: Point
    tried: int
    edge: tuple[str, ...]


def coordinate_search(grid: Grid, measure: Callable[[Point], float]) -> SearchResult:
    """Return the best point, by validation score, that coordinate search finds in a search space.

    Args:
        grid: the search space.
        measure: the function that fits the baseline at a point and returns the validation score.
    """
    values: dict[Point, float] = {}
    for point in grid.start:
        values[point] = measure(point)
    while True:
        best = max(values, key=values.__getitem__)
        following = next(_untried_neighbours(grid.axes, values, best), None)
        if following is None or len(values) >= MOST:
            break
        values[following] = measure(following)
    edge = tuple(
        axis.name
        for i, axis in enumerate(grid.axes)
        if not all(_tried_beyond(values, best, i, up=up) for up in (False, True))
    )
    return SearchResult(best, len(values), edge)


def _untried_neighbours(
    axes: tuple[Axis, ...], values: Mapping[Point, float], best: Point
) -> Iterator[Point]:
    """Yield the neighbours of the best point along each axis, on sides where no point was tried."""
    for i, axis in enumerate(axes):
        for up in (False, True):
            following = axis.beyond(best[i], up=up)
            if following is not None and not _tried_beyond(values, best, i, up=up):
                yield (*best[:i], following, *best[i + 1 :])


def _tried_beyond(values: Mapping[Point, float], best: Point, i: int, *, up: bool) -> bool:
    """Return whether a point was tried beyond the best point on axis i, above or below it."""
    return any(
        (point[i] > best[i] if up else point[i] < best[i])
        and point[:i] == best[:i]
        and point[i + 1 :] == best[i + 1 :]
        for point in values
    )
