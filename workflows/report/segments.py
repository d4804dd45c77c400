"""Evaluation metrics by segment: by length of user history and by popularity of the target item."""

from __future__ import annotations

from collections.abc import Iterator

from workflows.report import charts, numbers
from workflows.report.charts import Picture
from workflows.report.finished import Finished
from workflows.report.tables import Table
from workflows.stages.evaluate import Figure


def pictures(finished: Finished) -> Iterator[Picture]:
    """Yield charts of the main metric by history length and by target popularity."""
    for start, what, unit in (
        ("history_", "length of the user's history", "user"),
        ("targets_", "popularity of the withheld item", "target"),
    ):
        if rows := rows_of(finished, start, unit):
            yield _picture(finished, rows, what)


def compared(finished: Finished) -> list[str]:
    """Return the models in charts: the recipe's own, the best baseline, and popularity."""
    wanted = (finished.scores.ours, finished.best_baseline, "popularity")
    return list(dict.fromkeys(m for m in wanted if m and m in finished.models))


def rows_of(finished: Finished, start: str, unit: str) -> dict[str, list[Figure | None]]:
    """Return the main metric of each compared model, by name of the segment.

    Args:
        finished: the finished stages of the run.
        start: the beginning of the names of the segments, `history_` or `targets_`.
        unit: the unit in which the size of a segment is given, `user` or `target`.
    """
    rows: dict[str, list[Figure | None]] = {}
    for name, block in finished.segments(start).items():
        n = block.users if unit == "user" else block.targets
        row = f"{name.removeprefix(start)} ({numbers.counted(n, unit)})"
        found = (block.metrics.get(model, {}) for model in compared(finished))
        rows[row] = [metrics.get(finished.metric) for metrics in found]
    return rows


def _picture(finished: Finished, rows: dict[str, list[Figure | None]], what: str) -> Picture:
    models = compared(finished)
    text = "; ".join(
        f"{name}: "
        + ", ".join(
            f"{model} {figure.mean:.3f}"
            for model, figure in zip(models, figures, strict=True)
            if figure is not None
        )
        for name, figures in rows.items()
    )
    return charts.ranges(
        f"{finished.metric} by {what}", f"{text}.", rows, metric=finished.metric, legend=models
    )


def table(finished: Finished) -> Table:
    """Return a table of the main metric of all models by evaluation segment."""
    models = finished.models
    rows = []
    for block in finished.segments().values():
        found = (block.metrics.get(model, {}).get(finished.metric) for model in models)
        values = ["" if f is None else numbers.score(f.mean) for f in found]
        rows.append([block.what, f"{block.users:,}", f"{block.targets:,}", *values])
    head = ["segment", "users", "targets", *models]
    return Table(f"{finished.metric} by segment", head, rows, numeric=True)
