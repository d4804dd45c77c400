"""The report's facts on the data: rows read and dropped, null and unseen values, the long tail."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from models.core.retriever import Ints
from workflows.ground.column_names import IN_TRAIN
from workflows.report import charts, numbers
from workflows.report.charts import Picture
from workflows.report.finished import Stages
from workflows.report.tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def sentences(finished: Stages) -> Iterator[str]:
    """Yield sentences with the numbers of rows, users and items that the etl stage counted."""
    data = finished.data
    yield f"Read: {numbers.counts(data.read)}."
    dropped = {cause: n for cause, n in data.dropped.items() if n}
    yield f"Dropped: {numbers.counts(dropped)}." if dropped else "Dropped: no interaction."
    for name, n in data.unmatched.items():
        if n:
            yield f"{numbers.counted(n, 'interaction')} whose id is not in the table {name}."
    yield f"Interactions: {numbers.counts(data.rows)}."
    for thing, table_facts in (("user", data.users), ("item", data.items)):
        cold = table_facts["rows"] - table_facts[IN_TRAIN]
        yield f"{numbers.counted(table_facts['rows'], thing)}, {cold:,} of them not in training."
    for column, n in data.conflicts.items():
        if n:
            yield f"{numbers.counted(n, 'id')} with several values of {column}; the last holds."


def cells(finished: Stages) -> Table:
    """Return a table with each column's share of null values and of values not seen in training."""
    data = finished.data
    parts = [part for part, n in data.rows.items() if n]
    head = [f"{what} in {part}" for what in ("unseen", "null") for part in parts]
    rows = []
    for column in data.null["train"]:
        of_column = [s[p].get(column, 0.0) for s in (data.unseen, data.null) for p in parts]
        if any(of_column):
            rows.append([column, *map(numbers.share, of_column)])
    return Table("Cells that are unseen or null", ["column", *head], rows, numeric=True)


def clean_columns(finished: Stages, found: Table) -> list[str]:
    """Return the feature columns without null or unseen cells, which the table `found` lacks."""
    return [c for c in finished.data.null["train"] if c not in {row[0] for row in found.rows}]


def popularity(counts: Ints) -> Picture:
    """Return a chart of the long tail: number of interactions per item, by popularity rank."""
    text = head_share(counts)
    return charts.picture(
        "Popularity of the items", text, lambda axes: draw_popularity(axes, counts), note=text
    )


def draw_popularity(axes: Axes, counts: Ints) -> None:
    """Draw items' numbers of interactions against their popularity ranks, on log scales."""
    falling = np.sort(counts[counts > 0])[::-1]
    # as many points as a line of this width can show
    ranks = np.unique(np.geomspace(1, len(falling), 200).round().astype(np.int64))
    axes.plot(ranks, falling[ranks - 1], color=charts.COLOURS[0], linewidth=2)
    charts.label(
        axes,
        "rank of the item by interactions",
        "interactions in training",
        log_x=True,
        log_y=True,
    )


def head_share(counts: Ints) -> str:
    """Return the share of training interactions of the most popular tenth of the items."""
    falling = np.sort(counts[counts > 0])[::-1]
    tenth = max(1, round(len(falling) / 10))
    few = int((falling < 5).sum())
    return (
        f"The most popular tenth of the items met in training ({tenth:,} of {len(falling):,}) has "
        f"{numbers.share(falling[:tenth].sum() / falling.sum())} of the interactions; "
        f"{numbers.counted(few, 'item')} {'has' if few == 1 else 'have'} fewer than 5."
    )


def histories(counts: Ints) -> Picture:
    """Return a chart of the number of interactions per user."""
    low, middle, high = np.quantile(counts[counts > 0], [0.05, 0.5, 0.95])
    text = f"Half of the users have {middle:,.0f} or fewer; 9 of 10 have {low:,.0f} to {high:,.0f}."
    return charts.picture(
        "Interactions of the users", text, lambda axes: draw_histories(axes, counts), note=text
    )


def draw_histories(axes: Axes, counts: Ints) -> None:
    """Draw a histogram of users by their number of interactions, in bins that double in width."""
    lengths = counts[counts > 0]
    edges = 2 ** np.arange(int(lengths.max()).bit_length() + 1)
    users = np.histogram(lengths, edges)[0]
    first = int(np.flatnonzero(users)[0])
    edges, users = edges[first:], users[first:]
    axes.bar(edges[:-1], users, np.diff(edges), align="edge", color=charts.COLOURS[0], alpha=0.9)
    charts.label(axes, "interactions in training", "users", log_x=True)
