"""Renders report.html, a page without external files; sections without content are left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from models.core.evaluation_set import SELECTION_METRICS
from models.training.epoch import VAL_MEAN
from workflows.report import (
    charts,
    comparison,
    dataset,
    learning,
    lists,
    numbers,
    origin,
    segments,
    towers,
)
from workflows.report.finished import Finished, Stages
from workflows.report.rendering import template
from workflows.report.tables import Table


@dataclass(frozen=True)
class Tile:
    """A key number at the head of report.html, with its name and an optional note."""

    value: str
    what: str
    more: str = ""


def render(finished: Finished) -> str:
    """Return the whole report page, HTML, of a model that ranks the items of a catalogue."""
    return fill(
        finished,
        "ranking.html",
        tiles=list(_tiles(finished)),
        facts=origin.model_facts(finished),
        population=comparison.population(finished),
        models=comparison.picture(finished),
        comparison=comparison.narrow(comparison.table(finished)),
        baselines=comparison.baselines(finished),
        left_out=comparison.skipped(finished),
        beside=comparison.other_protocols(finished),
        segments=list(segments.pictures(finished)),
        segments_table=segments.table(finished),
        users=list(lists.users(finished)),
        neighbours=lists.neighbours(finished),
        curves=learning.curves(finished),
        val_mean=VAL_MEAN,
        selection=", ".join(SELECTION_METRICS),
        views=list(towers.views(finished)),
    )


def fill(
    finished: Stages,
    sections: str,
    *,
    tiles: list[Tile],
    facts: Mapping[str, str],
    **content: object,
) -> str:
    """Render report.html from the parts that all kinds of models share, and further sections.

    Args:
        finished: the finished stages of the run.
        sections: the name of the template with the sections for the kind of model.
        tiles: the key numbers at the head of the page.
        facts: section of the recipe → the settings of the trained model in it, as text.
        **content: the values that the template `sections` shows.
    """
    cells = dataset.cells(finished)
    return template("page.html").render(
        content,
        finished=finished,
        sections=sections,
        counted=numbers.counted,
        can_draw=charts.can_draw(),
        tiles=tiles,
        data=list(dataset.sentences(finished)),
        cells=cells,
        clean=dataset.clean_columns(finished, cells),
        shape_of_data=[
            dataset.popularity(finished.item_counts),
            dataset.histories(finished.user_counts),
        ],
        facts=Table("What was trained", ("part", "settings"), list(facts.items())),
        stages=origin.stages(finished),
        hashes=origin.hashes(finished),
    )


def _tiles(finished: Finished) -> Iterator[Tile]:
    """Yield key numbers: main metric, gain over the best baseline, data size, training time."""
    ours, metric = finished.headline(finished.scores.ours), finished.metric
    level = f"{finished.scores.headline.protocol.level:.0%} interval"
    low, high = ours.low, ours.high
    interval = "" if low is None or high is None else f"{low:.3f} to {high:.3f}, {level}"
    yield Tile(numbers.score(ours.mean), f"{metric} on the test part", interval)
    if best_baseline := finished.best_baseline:
        gain = finished.scores.differences.metrics[best_baseline][metric]
        low, high = gain.low, gain.high
        interval = "" if low is None or high is None else f"{low:+.3f} to {high:+.3f}, {level}"
        yield Tile(f"{gain.mean:+.4f}", f"more than {best_baseline}, the best baseline", interval)
    data, fit = finished.data, finished.manifests["train"]
    yield Tile(
        f"{sum(data.rows.values()):,}",
        "interactions",
        f"{numbers.counted(data.users['rows'], 'user')}, "
        f"{numbers.counted(data.items['rows'], 'item')}",
    )
    yield Tile(
        f"{sum(epoch.seconds for epoch in finished.epochs):,.0f} s",
        f"of fitting on the {fit.device.upper()}",
        f"{numbers.counted(len(finished.epochs), 'epoch')}, the best is {finished.best.epoch + 1}",
    )
