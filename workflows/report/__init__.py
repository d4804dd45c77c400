"""The verb `report`: write an HTML page and a model card about a finished run."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from models.offers.config import OffersConfig
from workflows.ground.device import Device
from workflows.recipe import Recipe
from workflows.report import card, charts, offers, page
from workflows.report.finished import Finished
from workflows.stages.store import Store

PAGE, CARD = "report.html", "model_card.md"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReportResult:
    """The files that the verb `report` wrote.

    Attributes:
        page: the report, an HTML file that needs no other files.
        card: the model card, a Markdown file.
        seconds: wall time of the verb `report`.
    """

    page: Path
    card: Path
    seconds: float


def report(recipe: Recipe, store: Store, device: Device) -> ReportResult:
    """Write report.html and model_card.md from the stages etl, train and evaluate.

    Args:
        recipe: the recipe of the run.
        store: the folder of the run, with its finished stages.
        device: the device of this process.

    Raises:
        MissingStage, StaleInput, ArtifactError: a stage is missing, stale or damaged.
    """
    start = time.perf_counter()
    with store.write("report", recipe, device) as draft:
        if not charts.can_draw():
            log.info("%s has no pictures: they need matplotlib, which is not installed", PAGE)
        texts = _TEXTS.get(type(recipe.model), _of_ranking)(store, recipe)
        for name, text in texts.items():
            (draft.folder / name).write_text(text, encoding="utf-8")
            log.info("%s: %s kB", name, f"{len(text) // 1000:,}")
    folder = store.folder("report")
    return ReportResult(folder / PAGE, folder / CARD, time.perf_counter() - start)


def _of_ranking(store: Store, recipe: Recipe) -> dict[str, str]:
    finished = Finished.read(store, recipe)
    return {PAGE: page.render(finished), CARD: card.render(finished)}


def _of_offers(store: Store, recipe: Recipe) -> dict[str, str]:
    finished = offers.FinishedOffers.read(store, recipe)
    return {PAGE: offers.render_page(finished), CARD: offers.render_card(finished)}


#: Kind of model → the function that writes its report; other kinds rank the items of a catalogue.
_TEXTS: dict[type, Callable[[Store, Recipe], dict[str, str]]] = {OffersConfig: _of_offers}
