"""Learning curves: loss and validation metrics by training epoch; the kept epoch is marked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from models.training.epoch import VAL_MEAN, Epoch
from workflows.report import charts
from workflows.report.charts import Picture
from workflows.report.finished import Finished

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def curves(finished: Finished) -> list[Picture]:
    """Return charts of the training loss and the main validation metrics by training epoch."""
    wanted = dict.fromkeys(("loss", "val_recall@10", VAL_MEAN, finished.recipe.train.monitor))
    best = finished.best
    return [curve(finished.epochs, best, name) for name in wanted if name in best.metrics]


def curve(epochs: Sequence[Epoch], best: Epoch, name: str, model: str = "") -> Picture:
    """Return a chart of a loss or metric by training epoch.

    Args:
        epochs: the metrics of each epoch of a fit.
        best: the epoch whose weights were kept.
        name: the name of the loss or metric.
        model: the name of the model, if the recipe has several.
    """
    first, last = epochs[0], epochs[-1]
    text = (
        f"{name} goes from {first.metrics[name]:.4f} in epoch 1 to {last.metrics[name]:.4f} in "
        f"epoch {last.epoch + 1}; in epoch {best.epoch + 1}, which was kept, it is "
        f"{best.metrics[name]:.4f}."
    )
    title = f"{model}: {name}" if model else name
    return charts.picture(title, text, lambda axes: draw_curve(axes, epochs, best, name))


def draw_curve(axes: Axes, epochs: Sequence[Epoch], best: Epoch, name: str) -> None:
    """Draw a loss or metric by training epoch, and mark the epoch whose weights were kept."""
    numbers = [epoch.epoch + 1 for epoch in epochs]
    values = [epoch.metrics[name] for epoch in epochs]
    axes.plot(numbers, values, color=charts.COLOURS[0], linewidth=2, marker="o", markersize=5)
    number, value = best.epoch + 1, best.metrics[name]
    axes.axvline(number, color=charts.COLOURS[1], linewidth=1, linestyle="--")
    axes.plot([number], [value], color=charts.COLOURS[1], marker="s", markersize=6)
    axes.set_title(f"epoch {number}: {value:.4f}")
    charts.label(axes, "epoch", name)
    charts.whole_ticks(axes)
