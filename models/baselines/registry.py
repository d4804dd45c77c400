"""The baselines by name. To add a baseline, write a file in this folder and a line in `GRIDS`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from models.baselines.errors import CannotFit

if TYPE_CHECKING:
    from models.baselines.search import Facts, Grid

#: Name → the module in this folder and its function that returns the grid. Modules are imported
#: only when a baseline is used: reading a recipe must not need SciPy, and `implicit` is an extra.
GRIDS: Mapping[str, str] = {
    "random": "random:grid",
    "popularity": "popularity:grid",
    "recent-popularity": "popularity:recent_grid",
    "content": "content:grid",
    "item-knn": "item_knn:grid",
    "ease": "ease:grid",
    "ease-decayed": "ease:decayed_grid",
    "als": "als:grid",
}
#: Names of all baselines. One that cannot run on a data set is left out, and the report says why.
BASELINES = tuple(GRIDS)

if TYPE_CHECKING:
    Baseline: TypeAlias = str
else:
    Baseline = Literal[BASELINES]


def grid_of(name: Baseline, facts: Facts) -> Grid:
    """Return the search space of the baseline with the given name.

    Raises:
        CannotFit: the baseline does not run on this data, or its library is not installed.
    """
    module, _, function = GRIDS[name].partition(":")
    try:
        found: Any = import_module(f"models.baselines.{module}")
    except ImportError as error:
        raise CannotFit(
            f"the library {error.name} is not installed; the extra `baselines` brings it"
        ) from None
    grid: Grid = getattr(found, function)(facts)
    if not grid.by_history:
        return grid
    from models.baselines.fallback import with_popularity

    return with_popularity(grid, facts.train)
