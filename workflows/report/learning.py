"""Learning curves: loss and validation by epoch, and which epoch was kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.training.epoch import VAL_MEAN
from workflows.report import charts
from workflows.report.charts import Picture
from workflows.report.finished import Finished

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def curves(finished: Finished) -> list[Picture]:
    """Return a picture of the loss, and of the main figures of the validation part."""
    wanted = dict.fromkeys(("loss", "val_recall@10", VAL_MEAN, finished.recipe.train.monitor))
    return [_curve(finished, name) for name in wanted if name in finished.best.metrics]


def _curve(finished: Finished, name: str) -> Picture:
    first, last, best = finished.epochs[0], finished.epochs[-1], finished.best
    said = (
        f"{name} goes from {first.metrics[name]:.4f} in epoch 1 to {last.metrics[name]:.4f} in "
        f"epoch {last.epoch + 1}; in epoch {best.epoch + 1}, which was kept, it is "
        f"{best.metrics[name]:.4f}."
    )
    return charts.picture(name, said, lambda axes: draw_curve(axes, finished, name))


def draw_curve(axes: Axes, finished: Finished, name: str) -> None:
    """Draw a figure by epoch, and mark the epoch that was kept."""
    epochs = [epoch.epoch + 1 for epoch in finished.epochs]
    values = [epoch.metrics[name] for epoch in finished.epochs]
    axes.plot(epochs, values, color=charts.COLOURS[0], linewidth=2, marker="o", markersize=5)
    best, value = finished.best.epoch + 1, finished.best.metrics[name]
    axes.axvline(best, color=charts.COLOURS[1], linewidth=1, linestyle="--")
    axes.plot([best], [value], color=charts.COLOURS[1], marker="s", markersize=6)
    axes.set_title(f"epoch {best}: {value:.4f}")
    charts.label(axes, "epoch", name)
    charts.whole_ticks(axes)
