"""Evaluates all offer models on all tasks, by the weighted AUC over offers."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import msgspec
import numpy as np

from models.core.columns import Columns, as_array
from models.core.retriever import BrokenModel, Ragged
from models.offers.auc import GroupedAuc
from models.offers.config import TasksConfig
from models.offers.offers import offers_by_value, positions_in
from models.offers.pairs import Pairs, Task
from workflows.ground.errors import ArtifactError, DataError
from workflows.stages.evaluate import EvaluateFiles
from workflows.stages.offer_data import OfferData
from workflows.stages.offers_report import ALL, OffersReport, Score
from workflows.stages.store import Store

log = logging.getLogger(__name__)


def evaluate(offer_data: OfferData, store: Store, folder: Path) -> OffersReport:
    """Measure every offer model on the test part, and write the metrics to report.json.

    Args:
        offer_data: the data of the etl stage; `tasks` in its recipe is the protocol.
        store: the folder of the run, with its finished stages.
        folder: the folder to write to.

    Raises:
        DataError: the split has no test part, or a task has no offer.
        ArtifactError: a model gives NaN scores.
    """
    recipe = offer_data.recipe
    pairs = offer_data.pairs("test", seed=recipe.evaluate.seed)
    if pairs is None:
        raise DataError("The split has no test part; give `split:` a `test` share or file.")
    tasks = {name: task(offer_data, name, pairs.columns) for name in offer_data.tasks}
    scores, seconds = [], {}
    for name in offer_data.config.models:
        start = time.perf_counter()
        try:
            aucs = pairs.aucs(offer_data.load(store, name), tasks)
        except BrokenModel as error:
            raise ArtifactError(
                f"{name} cannot be ranked: {error} Run `two-tower train` again, with a lower "
                "optimizer.lr if need be."
            ) from error
        for of, auc in aucs.items():
            scores += _bands(name, of, auc, recipe.tasks)
        seconds[name] = round(time.perf_counter() - start, 3)
        log.info("%s: %d tasks in %.2f s", name, len(tasks), seconds[name])
    report = _report(offer_data, pairs, scores, seconds)
    EvaluateFiles(folder).report.write_bytes(
        msgspec.json.format(msgspec.json.encode(report), indent=2)
    )
    return report


def task(offer_data: OfferData, attribute: str, columns: Columns) -> Task:
    """Return the task of an attribute: an offer "attribute = value" for each value in the events.

    Args:
        offer_data: the data of the etl stage; `tasks.source` in its recipe names the part that
            describes the offers.
        attribute: the attribute whose values are the offers.
        columns: the encoded columns of the events.

    Raises:
        DataError: no event has a value of the attribute that is in the vocabulary.
    """
    codes = as_array(columns[attribute])
    values = np.intersect1d(offer_data.values(attribute)[0], codes)
    if not len(values):
        raise DataError(
            f"tasks.attributes: no event of test has a value of {attribute!r} that is in its "
            "vocabulary, so the task has no offer. Lower "
            "vocabulary.min_count and run `two-tower etl` again, or leave the task out."
        )
    config = offer_data.recipe.tasks
    offers = offers_by_value(attribute, values, offer_data.events(config.source), top=config.top)
    return Task(positions_in(codes, values), offers, len(values))


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
    offer_data: OfferData, pairs: Pairs, scores: list[Score], seconds: dict[str, float]
) -> OffersReport:
    lists = [c for c in pairs.columns.values() if isinstance(c, Ragged)]
    met = np.sum([column.lengths for column in lists], axis=0)
    return OffersReport(
        pairs=len(pairs) * pairs.size,
        events=len(pairs),
        without_history=float((met == 0).mean()),
        negatives=offer_data.config.negatives,
        source=offer_data.recipe.tasks.source,
        top=offer_data.recipe.tasks.top,
        scores=scores,
        seconds=seconds,
    )
