"""Measure the two-tower beside its baselines: same users, candidates, exclusions, same metrics."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from models import metrics
from models.baselines.popularity import Popularity
from models.baselines.random import Random
from models.intervals import bootstrap
from models.retriever import Retriever
from models.trial import Trial
from models.two_tower import TwoTower
from workflows.artifacts import Prepared, load_model
from workflows.device import Device
from workflows.errors import DataError
from workflows.recipe import Recipe
from workflows.store import Store

log = logging.getLogger(__name__)

TWO_TOWER = "two-tower"


class Figure(msgspec.Struct, frozen=True):
    """A mean over users with its bootstrap interval."""

    mean: float
    low: float
    high: float
    standard_error: float


class Protocol(msgspec.Struct, frozen=True, kw_only=True):
    """What the figures mean; printed beside them.

    Attributes:
        part: the held-out part.
        split: how it was held out.
        candidates: what was ranked, and how many items.
        exclude_seen: whether the users' earlier items were left out.
        averaged: over what.
        level: of the intervals.
        refit: whether parameters were learnt again on train + valid.
    """

    part: str
    split: str
    candidates: str
    n_candidates: int
    exclude_seen: bool
    averaged: str
    level: float
    refit: bool


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Every figure of one evaluation. A metric that was not computed is absent.

    Attributes:
        protocol: what the figures mean.
        counts: users and targets, warm and cold.
        metrics: model → metric → figure, over all users.
        segments: segment → model → metric → figure, over the users of a segment.
        catalogue: model → coverage and popularity bias.
        seconds: model → wall time of ranking.
    """

    protocol: Protocol
    counts: dict[str, int]
    metrics: dict[str, dict[str, Figure]]
    segments: dict[str, dict[str, dict[str, Figure]]]
    catalogue: dict[str, dict[str, float]]
    seconds: dict[str, float]


@dataclass(frozen=True)
class EvaluateResult:
    """Where the report lies, and what it says."""

    folder: Path
    report: Report
    seconds: float


def evaluate(recipe: Recipe, store: Store, device: Device) -> EvaluateResult:
    """Rank the test part with every model and write report.json.

    Args:
        recipe: the protocol is its `evaluate` part.
        store: the run.
        device: chosen for this process.

    Raises:
        DataError: the split has no test part.
    """
    start = time.perf_counter()
    prepared = Prepared.open(store, recipe)
    with store.write("evaluate", recipe, device) as draft:
        trial = prepared.trial("test", recipe.evaluate)
        if trial is None:
            raise DataError("The split has no test part; give `split:` a `test` share or file.")
        report = _measure(recipe, trial, _models(recipe, store, prepared), prepared)
        text = msgspec.json.format(msgspec.json.encode(report), indent=2)
        (draft.folder / "report.json").write_bytes(text)
        draft.rows = report.counts
        draft.metrics = {n: f.mean for n, f in report.metrics[TWO_TOWER].items()}
    return EvaluateResult(store.folder("evaluate"), report, time.perf_counter() - start)


def _models(recipe: Recipe, store: Store, prepared: Prepared) -> dict[str, Retriever]:
    """Return the retrievers to compare, the two-tower first."""
    history = prepared.interactions("train")
    model = load_model(store, recipe, prepared)
    return {
        TWO_TOWER: TwoTower.of(model, prepared.users, prepared.items),
        "popularity": Popularity().fit(history),
        "random": Random(seed=recipe.evaluate.seed).fit(history),
    }


def _measure(
    recipe: Recipe, trial: Trial, models: dict[str, Retriever], prepared: Prepared
) -> Report:
    config = recipe.evaluate
    per_user: dict[str, dict[str, npt.NDArray[np.float64]]] = {}
    catalogue, seconds = {}, {}
    n_candidates = int(trial.candidates.sum())
    for name, model in models.items():
        begin = time.perf_counter()
        items = trial.ask(model, max(config.ks)).items
        seconds[name] = round(time.perf_counter() - begin, 3)
        per_user[name] = metrics.per_user(items, trial.targets, config.ks)
        catalogue[name] = {}
        for k in config.ks:
            share = metrics.coverage(items, k=k, n_items=n_candidates)
            catalogue[name][f"coverage@{k}"] = share
            bias = metrics.popularity_bias(items, prepared.item_counts, k=k)
            catalogue[name][f"popularity_bias@{k}"] = bias
        log.info("%s: %s users in %.2f s", name, f"{len(items):,}", seconds[name])
    segments = {"warm_users": trial.warm, "cold_users": ~trial.warm}
    return Report(
        protocol=_protocol(recipe, n_candidates),
        counts=_counts(trial, prepared.item_counts),
        metrics={name: _figures(values, recipe) for name, values in per_user.items()},
        segments={
            segment: {
                name: _figures({m: v[chosen] for m, v in values.items()}, recipe)
                for name, values in per_user.items()
            }
            for segment, chosen in segments.items()
            if 1 < chosen.sum() < len(chosen)  # one user has no interval; all users are `metrics`
        },
        catalogue=catalogue,
        seconds=seconds,
    )


def _figures(values: dict[str, npt.NDArray[np.float64]], recipe: Recipe) -> dict[str, Figure]:
    config = recipe.evaluate
    figures = {}
    for name, per_user in values.items():
        interval = bootstrap(
            per_user, seed=config.seed, n_resamples=config.bootstrap, level=config.level
        )
        figures[name] = Figure(interval.mean, interval.low, interval.high, interval.standard_error)
    return figures


def _protocol(recipe: Recipe, n_candidates: int) -> Protocol:
    split = msgspec.to_builtins(recipe.split)
    options = ", ".join(f"{k} {v}" for k, v in split.items() if k != "kind")
    return Protocol(
        part="test",
        split=f"{split['kind']} ({options})",
        candidates=recipe.evaluate.candidates,
        n_candidates=n_candidates,
        exclude_seen=recipe.evaluate.exclude_seen,
        averaged="per user",
        level=recipe.evaluate.level,
        refit=False,
    )


def _counts(trial: Trial, item_counts: npt.NDArray[np.int64]) -> dict[str, int]:
    known = trial.targets.values >= 0
    trained = np.zeros(len(known), bool)
    trained[known] = item_counts[trial.targets.values[known]] > 0
    outside = known.copy()
    outside[known] = ~trial.candidates[trial.targets.values[known]]
    return {
        "users": len(trial.queries),
        "users_warm": int(trial.warm.sum()),
        "users_cold": int((~trial.warm).sum()),
        "targets": len(known),
        "targets_cold": int((~trained).sum()),
        "targets_outside_candidates": int((~known | outside).sum()),
    }
