"""The section of learning curves: loss and validation by epoch, and which epoch was kept."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from models.core.evaluation_set import STEADY
from models.training.epoch import VAL_MEAN
from workflows.report.axes import Axis
from workflows.report.charts import Flag, Line, Text, plot
from workflows.report.finished import Finished
from workflows.report.markup import Markup, element, figure, figures, paragraph


def curves(finished: Finished) -> Iterator[Markup]:
    """Yield loss and validation by epoch, the kept epoch marked."""
    monitor = finished.recipe.train.monitor
    wanted = dict.fromkeys(("loss", "val_recall@10", VAL_MEAN, monitor))
    shown = [name for name in wanted if name in finished.best.metrics]
    yield figures(*(_curve(finished, name) for name in shown))
    if len(shown) > 1:
        yield paragraph(
            "The marked epoch was kept: the one with the highest ",
            element("code", monitor),
            f" on the validation part, over the whole catalogue. {VAL_MEAN} is the mean of "
            f"{', '.join(STEADY)}.",
            kind="note",
        )
    else:
        yield paragraph("The split has no validation part: the last epoch was kept.", kind="note")


def _curve(finished: Finished, name: str) -> Markup:
    epochs = np.array([epoch.epoch + 1 for epoch in finished.epochs])
    values = np.array([epoch.metrics[name] for epoch in finished.epochs])
    best, value = finished.best.epoch + 1, finished.best.metrics[name]
    drawing = plot(
        Text(
            f"curve-{name}".replace("@", "-"),
            f"{name} by epoch",
            f"{name} goes from {values[0]:.4f} in epoch 1 to {values[-1]:.4f} in epoch "
            f"{epochs[-1]}; in epoch {best}, which was kept, it is {value:.4f}.",
        ),
        [Line(epochs, values, marked=True), Flag(best, value, f"epoch {best}: {value:.4f}")],
        x=Axis.around("epoch", epochs, whole=True),
        y=Axis.around(name, values),
    )
    return figure(name, drawing)
