"""The verb evaluate: measures the models of a recipe on the test part."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from workflows.ground.device import Device
from workflows.model_kinds import kind_of, open_models, refuse_options
from workflows.ranking.lift import Lift
from workflows.recipe import Recipe
from workflows.stages.evaluate import Report
from workflows.stages.offers_report import OffersReport
from workflows.stages.store import Store

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True)
class EvaluateResult:
    """The result of the verb evaluate.

    Attributes:
        folder: the folder of the evaluate stage.
        report: all metrics of all models, as in report.json.
        missed: one sentence for each required lift over a baseline that was not reached.
        seconds: duration of the whole verb.
    """

    folder: Path
    report: Report | OffersReport
    missed: tuple[str, ...]
    seconds: float


def evaluate(
    recipe: Recipe, store: Store, device: Device, *, min_lifts: Sequence[Lift] = ()
) -> EvaluateResult:
    """Measure every model of a recipe on the test part, and write the metrics to report.json.

    Args:
        recipe: the recipe; its `evaluate` has the protocol, for offer models also its `tasks`.
        store: the folder of the run, with its finished stages.
        device: the device of this process.
        min_lifts: required ratios of the model's recall, at the first list length, to a baseline's.

    Raises:
        DataError: the split has no test part, or it cannot be measured.
        RecipeError: lifts are given for a kind of model without baselines.
        ArtifactError: a model gives NaN scores.
    """
    start = time.perf_counter()
    refuse_options(recipe, {"--min-lift": bool(min_lifts)})
    with store.write("evaluate", recipe, device) as draft:
        found = open_models(store, recipe).evaluate(store, draft.folder, min_lifts)
        draft.rows, draft.metrics = found.rows, found.metrics
    seconds = time.perf_counter() - start
    return EvaluateResult(store.folder("evaluate"), found.report, found.missed, seconds)


def tables(recipe: Recipe, report: Report | OffersReport) -> list[RenderableType]:
    """Return an evaluation report as tables for a terminal."""
    return kind_of(recipe).tables(recipe, report)
