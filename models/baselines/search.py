"""Choose a baseline's parameters: try some points, then go on wherever the best lies at an edge.

Each baseline has a grid in its own file. The best point is chosen on the validation part, as the
best epoch of the two towers is. Where there is no validation part, the first point is taken.

A fixed grid flatters whoever is compared with it: its best point is often its last one. So a search
starts from a few points and then climbs: as long as the best point has a side, along one of the
axes, on which nothing was tried, the next value on that side is tried. It ends when the best point
is better than a neighbour on every side, or at a bound of the axis, or after `MOST` points. This is
the coordinate search of Hooke and Jeeves 1961 with a fixed step, and it draws no random number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import scipy.sparse as sp

from models.core.retriever import Interactions, Retriever

#: One value for each axis.
Point = tuple[float, ...]

#: A search ends after so many points, start included.
MOST = 24


@dataclass(frozen=True)
class Facts:
    """What baselines learn from.

    Attributes:
        train: the training interactions.
        attributes: multi-hot attributes of the items, float32 [n_items, n_attributes].
        seed: the seed of random numbers.
    """

    train: Interactions
    attributes: sp.csr_matrix
    seed: int


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One parameter, its next values and its bounds.

    Attributes:
        name: the name of the parameter.
        low: no smaller value is tried.
        high: no larger value is tried.
        ratio: the next value is so many times as large, or as small.
        whole: values are whole numbers, rounded down.
    """

    name: str
    low: float
    high: float
    ratio: float = 2.0
    whole: bool = False

    def beyond(self, value: float, *, up: bool) -> float | None:
        """Return the next value on one side; None where a bound has been met."""
        following = value * self.ratio if up else value / self.ratio
        following = min(max(following, self.low), self.high)
        if self.whole:
            following = float(int(following))
        return following if (following > value if up else following < value) else None


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The points at which a baseline can be fitted.

    Attributes:
        start: points that are tried in any case; where there is nothing to choose by, the first is
            taken.
        fit: gives the fitted model of a point.
        axes: one for each value of a point; none for a model without parameters.
        notice: one sentence that is said before the first fit, such as what it will cost.
        by_history: the models know users by their history alone, so popularity answers the queries
            that have none.
    """

    start: tuple[Point, ...]
    fit: Callable[[Point], Retriever]
    axes: tuple[Axis, ...] = ()
    notice: str = ""
    by_history: bool = False

    def named(self, point: Point) -> str:
        """Return a point as `regularization=30 alpha=8`."""
        return " ".join(f"{a.name}={value:g}" for a, value in zip(self.axes, point, strict=True))


class Climbed(NamedTuple):
    """Where a search ended.

    Attributes:
        best: the point of the highest value; among equals, the one that was tried first.
        tried: how many points there were.
        edge: the axes on which the best point has a side with nothing tried, because a bound was
            met or the search had no points left; empty when it lies inside on all of them.
    """

    best: Point
    tried: int
    edge: tuple[str, ...]


def climb(grid: Grid, measure: Callable[[Point], float]) -> Climbed:
    """Search a grid for the point with the highest value.

    Args:
        grid: where to start, and how to go on.
        measure: gives the value of a point; it is asked once for each.
    """
    values: dict[Point, float] = {}
    for point in grid.start:
        values[point] = measure(point)
    while True:
        best = max(values, key=values.__getitem__)
        following = next(_untried(grid.axes, values, best), None)
        if following is None or len(values) >= MOST:
            break
        values[following] = measure(following)
    edge = tuple(
        axis.name
        for i, axis in enumerate(grid.axes)
        if not all(_tried_beyond(values, best, i, up=up) for up in (False, True))
    )
    return Climbed(best, len(values), edge)


def _untried(axes: tuple[Axis, ...], values: Mapping[Point, float], best: Point) -> Iterator[Point]:
    """Yield the next point on each side of the best one where nothing was tried."""
    for i, axis in enumerate(axes):
        for up in (False, True):
            following = axis.beyond(best[i], up=up)
            if following is not None and not _tried_beyond(values, best, i, up=up):
                yield (*best[:i], following, *best[i + 1 :])


def _tried_beyond(values: Mapping[Point, float], best: Point, i: int, *, up: bool) -> bool:
    """Say whether a tried point differs from the best one on axis i only, and to that side."""
    return any(
        (point[i] > best[i] if up else point[i] < best[i])
        and point[:i] == best[:i]
        and point[i + 1 :] == best[i + 1 :]
        for point in values
    )
