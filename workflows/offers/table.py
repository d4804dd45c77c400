"""Shows AUCs by offer model and task in terminal tables, one per band of offer frequency."""

from __future__ import annotations

from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from workflows.ground.terminal_table import Column, TerminalTable
from workflows.stages.offers_report import OffersReport, Score


def tables(report: OffersReport) -> list[RenderableType]:
    """Return the protocol as a sentence, and a table of AUCs for each band that has offers."""
    found: list[RenderableType] = [Padding(Text(protocol(report)), (1, 0, 0, 0))]
    bands = dict.fromkeys(score.band for score in report.scores)
    for band in bands:
        scores = [score for score in report.scores if score.band == band]
        if any(score.offers for score in scores):
            found.append(_table(band, scores))
    return found


def protocol(report: OffersReport) -> str:
    """Return the evaluation protocol of offer models as a sentence."""
    return (
        f"weighted AUC by offer over {report.events:,} test events in mini-batches of "
        f"{report.negatives + 1}, sorted by day; {report.pairs:,} pairs a task, without those of "
        f"a user with another event of their own or of the same offer; offers are what was bought "
        f"in {report.source}, top {report.top} values; {report.without_history:.1%} of the events "
        "have no history"
    )


def bounds(score: Score) -> str:
    """Return in words how many positives the offers of a band have."""
    if score.high is None:
        return f"more than {score.low} positives"
    return f"{score.low} < positives <= {score.high}"


def _table(band: str, scores: list[Score]) -> TerminalTable:
    cells = {(score.model, score.task): score for score in scores}
    models = list(dict.fromkeys(score.model for score in scores))
    columns = []
    for task in dict.fromkeys(score.task for score in scores):
        of = cells[models[0], task]
        left_out = f",\n{of.one_class} of one class" if of.one_class else ""
        found = [cells[model, task].wauc for model in models]
        figures = ["-" if wauc is None else f"{wauc:.3f}" for wauc in found]
        columns.append(Column(f"{task}\n({of.offers}{left_out})", figures))
    return TerminalTable("model", models, columns, title=f"{band}: offers with {bounds(scores[0])}")
