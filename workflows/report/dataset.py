"""The section on the data: what was read and dropped, what is null or unseen, how long the tail."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from models.core.retriever import Ints
from workflows.report import numbers
from workflows.report.axes import Axis
from workflows.report.charts import Bars, Line, Text, plot
from workflows.report.finished import Finished
from workflows.report.markup import Markup, figure, figures, listed, paragraph, table


def facts(finished: Finished) -> Iterator[Markup]:
    """Yield counts, columns and the two distributions."""
    yield listed(sentences(finished))
    yield from _columns(finished)
    yield figures(_popularity(finished.item_counts), _histories(finished.user_counts))


def sentences(finished: Finished) -> Iterator[str]:
    """Yield what etl counted, one fact a sentence."""
    data = finished.data
    yield f"Read: {numbers.counts(data.read)}."
    dropped = {cause: n for cause, n in data.dropped.items() if n}
    yield f"Dropped: {numbers.counts(dropped)}." if dropped else "Dropped: no interaction."
    for name, n in data.unmatched.items():
        if n:
            yield f"{numbers.counted(n, 'interaction')} whose id is not in the table {name}."
    yield f"Interactions: {numbers.counts(data.rows)}."
    for thing, table_facts in (("user", data.users), ("item", data.items)):
        cold = table_facts["rows"] - table_facts["in_train"]
        yield f"{numbers.counted(table_facts['rows'], thing)}, {cold:,} of them not in training."
    for column, n in data.conflicts.items():
        if n:
            yield f"{numbers.counted(n, 'id')} with several values of {column}; the last holds."


def _columns(finished: Finished) -> Iterator[Markup]:
    """Yield the shares of cells that are unseen or null, of the columns that have any."""
    data = finished.data
    parts = [part for part, n in data.rows.items() if n]
    cells = {
        column: [
            shares[part].get(column, 0.0) for shares in (data.unseen, data.null) for part in parts
        ]
        for column in data.null["train"]
    }
    shown = {column: shares for column, shares in cells.items() if any(shares)}
    clean = [column for column in cells if column not in shown]
    if shown:
        head = [f"{what} in {part}" for what in ("unseen", "null") for part in parts]
        rows = [[column, *map(numbers.share, shares)] for column, shares in shown.items()]
        yield table("Cells that are unseen or null", ("column", *head), rows, numeric=True)
    said = "Unseen: training never met the value, or too rarely for a code of its own. "
    said += f"Neither unseen nor null: {', '.join(clean)}." if clean else ""
    yield paragraph(said, kind="note")


def _popularity(counts: Ints) -> Markup:
    """Draw the long tail: interactions of the items in order of popularity."""
    falling = np.sort(counts[counts > 0])[::-1]
    # as many points as a line of this width can show
    ranks = np.unique(np.geomspace(1, len(falling), 200).round().astype(np.int64))
    title, alt = "Popularity of the items", head_share(counts)
    drawing = plot(
        Text("popularity", title, alt),
        [Line(ranks, falling[ranks - 1])],
        x=Axis.around("rank of the item by interactions", [1, len(falling)], log=True),
        y=Axis.around("interactions in training", [1, falling[0]], log=True),
    )
    return figure(title, drawing, alt)


def head_share(counts: Ints) -> str:
    """Return how much of the training interactions the most popular tenth of the items has."""
    falling = np.sort(counts[counts > 0])[::-1]
    tenth = max(1, round(len(falling) / 10))
    few = int((falling < 5).sum())
    return (
        f"The most popular tenth of the items met in training ({tenth:,} of {len(falling):,}) has "
        f"{numbers.share(falling[:tenth].sum() / falling.sum())} of the interactions; "
        f"{numbers.counted(few, 'item')} {'has' if few == 1 else 'have'} fewer than 5."
    )


def _histories(counts: Ints) -> Markup:
    """Draw how many interactions users have, in bins that double."""
    lengths = counts[counts > 0]
    edges = 2 ** np.arange(int(lengths.max()).bit_length() + 1)
    users = np.histogram(lengths, edges)[0]
    first = int(np.flatnonzero(users)[0])
    edges, users = edges[first:], users[first:]
    low, middle, high = np.quantile(lengths, [0.05, 0.5, 0.95])
    title = "Interactions of the users"
    alt = f"Half of the users have {middle:,.0f} or fewer; 9 of 10 have {low:,.0f} to {high:,.0f}."
    drawing = plot(
        Text("histories", title, alt),
        [Bars(edges[:-1], edges[1:], users)],
        x=Axis.around("interactions in training", edges, log=True),
        y=Axis.around("users", users, zero=True, whole=True),
    )
    return figure(title, drawing, alt)
