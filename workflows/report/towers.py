"""Charts of the trained towers: history position weights, item embedding norms, item biases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from workflows.report import charts
from workflows.report.charts import Picture
from workflows.report.finished import Finished
from workflows.stages.evaluate import Cloud

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def views(finished: Finished) -> Iterator[Picture]:
    """Yield charts of the model's history weights, item embedding norms and item biases."""
    inside = finished.inside
    if inside.decays:
        yield _decays(inside.decays)
    if inside.norms:
        yield _cloud(inside.norms, "embedding length")
    if inside.biases:
        prior = " with prior" if finished.prior and finished.prior.weight else ""
        yield _cloud(inside.biases, f"item bias{prior}")


def _decays(decays: Mapping[str, Sequence[float]]) -> Picture:
    """Return a chart of learnt weights by history position, for the first three history inputs."""
    shown = dict(list(decays.items())[: len(charts.COLOURS)])
    halves = "; ".join(f"{name}: {_half(shares)}" for name, shares in shown.items())
    text = f"Share of each earlier item in a full history, the latest first. {halves}."
    return charts.picture(
        "Learnt weights of the history", text, lambda axes: draw_decays(axes, shown), note=text
    )


def draw_decays(axes: Axes, decays: Mapping[str, Sequence[float]]) -> None:
    """Draw the learnt weight of each history position, one line per history input."""
    for series, (name, shares) in enumerate(decays.items()):
        axes.plot(
            np.arange(1, len(shares) + 1),
            shares,
            color=charts.COLOURS[series],
            linewidth=2,
            marker=charts.MARKERS[series] if len(shares) <= 12 else None,
            markersize=5,
            label=name,
        )
    axes.set_ylim(bottom=0)
    charts.label(axes, "position in the history, 1 the latest", "share of the weight")
    charts.whole_ticks(axes)
    if len(decays) > 1:
        axes.legend()


def _half(shares: Sequence[float]) -> str:
    first = int(np.searchsorted(np.cumsum(shares), 0.5)) + 1
    return (
        f"the latest {first} of {len(shares)} have half of the weight"
        if first > 1
        else f"the latest of {len(shares)} alone has half of the weight or more"
    )


def _cloud(cloud: Cloud, label: str) -> Picture:
    text = f"{len(cloud.counts):,} items met in training."
    if cloud.correlation is not None:
        text += f" Rank correlation with popularity (Spearman) {cloud.correlation:+.2f}."
    title = f"{label[0].upper()}{label[1:]} against popularity"
    return charts.picture(title, text, lambda axes: draw_cloud(axes, cloud, label), note=text)


def draw_cloud(axes: Axes, cloud: Cloud, label: str) -> None:
    """Draw a scatter plot of a quantity of each item, such as its bias, against its popularity."""
    charts.points(axes, cloud.counts, cloud.values)
    charts.label(axes, "interactions in training", label, log_x=True)
