"""Measure all offer models on all tasks: the weighted AUC of the users of each offer."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from models.core.columns import Columns, as_array
from models.core.retriever import Ragged
from models.offers.auc import GroupedAuc
from models.offers.config import TasksConfig
from models.offers.offers import offers_by_value, places
from models.offers.pairs import Pairs, Task
from workflows.ground.device import Device
from workflows.ground.errors import DataError
from workflows.recipe import Recipe
from workflows.stages.evaluate import EvaluateFiles
from workflows.stages.offering import Offering
from workflows.stages.store import Store

log = logging.getLogger(__name__)

#: The band of all offers with a positive.
ALL = "all"


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """One cell of the table.

    Attributes:
        model, task: what was asked, and about which offers.
        band: their name; `low` < positives <= `high`.
        wauc: mean AUC of these offers, weighted by their positives; None where there are none.
        offers: how many they are.
        positives: their events.
        one_class: offers of the band without a positive or without a negative pair, left out.
    """

    model: str
    task: str
    band: str
    low: int
    high: int | None
    wauc: float | None
    offers: int
    positives: int
    one_class: int


class OffersReport(msgspec.Struct, frozen=True, kw_only=True):
    """What evaluate found.

    Attributes:
        pairs: how many pairs of a user and an offer were scored in each task.
        events: held-out events.
        without_history: share of these whose user has no list at all: all offers are alike to him.
        negatives: other offers that each user is paired with.
        source: the part that says what belongs to an offer.
        top: values that describe an attribute of an offer.
        scores: the table's cells.
        seconds: model → to score all tasks.
    """

    pairs: int
    events: int
    without_history: float
    negatives: int
    source: str
    top: int
    scores: list[Score]
    seconds: dict[str, float]


@dataclass(frozen=True)
class OffersEvaluateResult:
    """Where the report lies, and what it says."""

    folder: Path
    report: OffersReport
    seconds: float


def evaluate(recipe: Recipe, store: Store, device: Device) -> OffersEvaluateResult:
    """Score the test part with every model and write report.json.

    Args:
        recipe: the protocol is its `tasks` part.
        store: the run.
        device: chosen for this process.

    Raises:
        DataError: the split has no test part.
    """
    start = time.perf_counter()
    with store.write("evaluate", recipe, device) as draft:
        offering = Offering.open(store, recipe)
        pairs = offering.pairs("test", seed=recipe.evaluate.seed)
        if pairs is None:
            raise DataError("The split has no test part; give `split:` a `test` share.")
        tasks = {name: task(offering, name, pairs.columns) for name in offering.tasks}
        scores, seconds = [], {}
        for name in offering.config.models:
            began = time.perf_counter()
            asked = offering.load(store, name)
            for of, auc in pairs.aucs(asked, tasks).items():
                scores += _bands(name, of, auc, recipe.tasks)
            seconds[name] = round(time.perf_counter() - began, 3)
            log.info("%s: %d tasks in %.2f s", name, len(tasks), seconds[name])
        report = _report(offering, pairs, scores, seconds)
        text = msgspec.json.format(msgspec.json.encode(report), indent=2)
        EvaluateFiles(draft.folder).report.write_bytes(text)
        draft.rows = {"events": report.events, "pairs": report.pairs}
        first = next(iter(offering.config.models))
        draft.metrics = {
            f"wauc {s.task}": s.wauc
            for s in scores
            if s.model == first and s.band == ALL and s.wauc is not None
        }
    return OffersEvaluateResult(store.folder("evaluate"), report, time.perf_counter() - start)


def task(offering: Offering, attribute: str, columns: Columns) -> Task:
    """Return the offers "attribute = value" of some events.

    Args:
        offering: the etl stage; its `tasks.source` part says what belongs to an offer.
        attribute: which.
        columns: the columns of the events.
    """
    codes = as_array(columns[attribute])
    values = np.intersect1d(offering.values(attribute)[0], codes)
    config = offering.recipe.tasks
    offers = offers_by_value(attribute, values, offering.events(config.source), top=config.top)
    return Task(places(codes, values), offers, len(values))


def _bands(model: str, task: str, auc: GroupedAuc, config: TasksConfig) -> list[Score]:
    found = []
    for band, (low, high) in {ALL: (0, None), **config.bands}.items():
        mean = auc.mean(low=low, high=high)
        found.append(
            Score(
                model=model,
                task=task,
                band=band,
                low=low,
                high=high,
                wauc=mean.mean if mean.groups else None,
                offers=mean.groups,
                positives=mean.positives,
                one_class=mean.one_class,
            )
        )
    return found


def _report(
    offering: Offering, pairs: Pairs, scores: list[Score], seconds: dict[str, float]
) -> OffersReport:
    lists = [c for c in pairs.columns.values() if isinstance(c, Ragged)]
    met = np.sum([column.lengths for column in lists], axis=0)
    return OffersReport(
        pairs=len(pairs) * pairs.size,
        events=len(pairs),
        without_history=float((met == 0).mean()),
        negatives=offering.config.negatives,
        source=offering.recipe.tasks.source,
        top=offering.recipe.tasks.top,
        scores=scores,
        seconds=seconds,
    )
