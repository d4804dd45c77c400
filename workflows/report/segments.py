"""The section on whom the model serves well: by length of history, by popularity of the target."""

from __future__ import annotations

from collections.abc import Iterator

from workflows.report import numbers
from workflows.report.charts import Range, Text, ranges
from workflows.report.finished import Finished
from workflows.report.markup import Markup, figure, figures, table


def segments(finished: Finished) -> Iterator[Markup]:
    """Yield the headline metric by history length and by popularity of the target."""
    if not finished.scores.segments:
        return
    drawings = [
        _segment_chart(finished, "history_", "length of the user's history", "user"),
        _segment_chart(finished, "targets_", "popularity of the withheld item", "target"),
    ]
    yield figures(*(drawing for drawing in drawings if drawing), wide=True)
    head, rows = segments_table(finished)
    yield table(f"{finished.metric} by segment", head, rows, numeric=True)


def _segment_chart(finished: Finished, start: str, what: str, unit: str) -> Markup | None:
    """Draw the two-tower, the best baseline and popularity by segment, if there are any."""
    blocks = finished.segments(start)
    shown = [
        m for m in (finished.scores.ours, finished.rival, "popularity") if m in finished.models
    ]
    models = list(dict.fromkeys(m for m in shown if m))
    rows: dict[str, list[Range | None]] = {}
    for name, block in blocks.items():
        n = block.users if unit == "user" else block.targets
        band = name.removeprefix(start)
        found = (block.metrics.get(model, {}).get(finished.metric) for model in models)
        rows[f"{band} ({numbers.counted(n, unit)})"] = [Range.of(f) for f in found]
    if not rows:
        return None
    title = f"{finished.metric} by {what}"
    alt = "; ".join(
        f"{name}: "
        + ", ".join(
            f"{model} {value.mean:.3f}"
            for model, value in zip(models, found, strict=True)
            if value is not None
        )
        for name, found in rows.items()
    )
    text = Text(f"by-{unit}", title, f"{alt}.")
    return figure(title, ranges(text, rows, label=finished.metric, legend=models))


def segments_table(finished: Finished) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of the headline metric of all models by segment."""
    models = finished.models
    rows = []
    for block in finished.segments().values():
        found = (block.metrics.get(model, {}).get(finished.metric) for model in models)
        values = ["" if f is None else numbers.score(f.mean) for f in found]
        rows.append([block.what, f"{block.users:,}", f"{block.targets:,}", *values])
    return ["segment", "users", "targets", *models], rows
