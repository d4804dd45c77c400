"""The section with views into the trained towers: decay of the history, norms, biases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from models.core.retriever import Floats
from workflows.report import charts, inside
from workflows.report.axes import Axis
from workflows.report.charts import Line, Text, plot
from workflows.report.finished import Finished
from workflows.report.markup import Markup, figure, figures


def views(finished: Finished) -> Iterator[Markup]:
    """Yield a chart of each view that the model has."""
    drawings = []
    if decays := inside.decays(finished):
        drawings.append(_decays(decays))
    if norms := inside.norms(finished):
        drawings.append(_cloud(norms, "norms", "embedding length"))
    if biases := inside.biases(finished):
        prior = " with prior" if finished.prior and finished.prior.weight else ""
        drawings.append(_cloud(biases, "biases", f"item bias{prior}"))
    if drawings:
        yield figures(*drawings)


def _decays(decays: Mapping[str, Floats]) -> Markup:
    """Draw what each place of a history weighs; more than three inputs are told by their mean."""
    shown = dict(list(decays.items())[: len(charts.COLOURS)])
    title = "Learnt weights of the history"
    says = "; ".join(f"{name}: {_half(shares)}" for name, shares in shown.items())
    alt = f"Share of each earlier item in a full history, the latest first. {says}."
    everything = np.concatenate(list(shown.values()))
    longest = max(map(len, shown.values()))
    marks = [
        Line(np.arange(1, len(shares) + 1), shares, series, marked=len(shares) <= 12)
        for series, shares in enumerate(shown.values())
    ]
    drawing = plot(
        Text("decays", title, alt),
        marks,
        x=Axis.around("place in the history, 1 the latest", [1, longest], whole=True),
        y=Axis.around("share of the weight", everything, zero=True),
        legend=list(shown) if len(shown) > 1 else (),
    )
    return figure(title, drawing, alt)


def _half(shares: Floats) -> str:
    first = int(np.searchsorted(np.cumsum(shares), 0.5)) + 1
    return (
        f"the latest {first} of {len(shares)} have half of the weight"
        if first > 1
        else (f"the latest of {len(shares)} alone has half of the weight or more")
    )


def _cloud(cloud: inside.Cloud, name: str, label: str) -> Markup:
    title = f"{label[0].upper()}{label[1:]} against popularity"
    alt = f"{len(cloud.counts):,} items met in training."
    if cloud.correlation is not None:
        alt += f" Rank correlation with popularity (Spearman) {cloud.correlation:+.2f}."
    drawing = plot(
        Text(name, title, alt),
        [charts.Cloud(cloud.counts, cloud.values)],
        x=Axis.around("interactions in training", cloud.counts, log=True),
        y=Axis.around(label, cloud.values),
    )
    return figure(title, drawing, alt)
