"""Compares a recipe's model with baselines on the same users, candidates, seen items and metrics.

Model weights are learnt on train, and hyper-parameters are chosen on valid. Histories and
popularity counts, which are not learnt but looked up, contain all interactions before the test
part.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path

import msgspec

from models.baselines.errors import CannotFit
from models.baselines.fallback import Fallback, as_of, unknown_users
from models.baselines.popularity import Popularity
from models.baselines.search import Facts
from models.core import metrics
from models.core.evaluation_set import EvaluationSet
from models.core.metrics import TargetRanks
from models.core.retriever import BrokenModel, Floats, Interactions, Retriever
from models.towers.config import ContentConfig, ModelConfig, PopularityConfig
from models.towers.tower import embed
from models.training.two_tower import TwoTower
from workflows.ground.errors import ArtifactError, DataError
from workflows.ranking import inside
from workflows.ranking.baselines import attributes, fit_baselines
from workflows.ranking.by_score import hits_by_score
from workflows.ranking.figures import Tally
from workflows.ranking.lift import Lift
from workflows.ranking.lists import FurtherProtocol, further_protocols, sample_of
from workflows.ranking.segments import segments
from workflows.recipe import Recipe
from workflows.stages.etl import KNOWN, Prepared
from workflows.stages.evaluate import BaselineChoice, Block, EvaluateFiles, Inside, Protocol, Report
from workflows.stages.held_out import warn_of_hidden
from workflows.stages.store import Store
from workflows.stages.stored_interactions import StoredInteractions
from workflows.stages.train import load_model

log = logging.getLogger(__name__)

TWO_TOWER = "two-tower"


def name_of(model: ModelConfig) -> str:
    """Return the name that a recipe's own model has in reports, such as `two-tower`."""
    names = {PopularityConfig: "popularity", ContentConfig: "content"}
    return names.get(type(model), TWO_TOWER)


def evaluate(
    prepared: Prepared, store: Store, folder: Path, min_lifts: Sequence[Lift]
) -> tuple[Report, list[str]]:
    """Rank items for the users of the test part with every model; write metrics and an analysis.

    Args:
        prepared: the content of the run's etl stage.
        store: the stages of the run.
        folder: the folder to which the metrics and the analysis are written.
        min_lifts: required ratios of the model's recall to that of a baseline, at the first list
            length.

    Returns:
        The report, and one sentence for each lift that was not reached.

    Raises:
        DataError: the recipe's split has no test part.
        ArtifactError: a model computes NaN as the score of an item.
    """
    recipe = prepared.recipe
    sample = recipe.evaluate.sample
    evaluation_set = prepared.evaluation_set("test", recipe.evaluate, sample)
    if evaluation_set is None:
        raise DataError("The split has no test part; give `split:` a `test` share or file.")
    warn_of_hidden(evaluation_set, "test")
    others = further_protocols(recipe, prepared, evaluation_set)
    report, views = _Evaluation(recipe, prepared, evaluation_set, others).run(store)
    EvaluateFiles(folder).write(report, views)
    metric = f"recall@{recipe.evaluate.ks[0]}"
    missed = [lift.missed(report, metric=metric) for lift in min_lifts]
    return report, [sentence for sentence in missed if sentence]


@dataclass
class _Evaluation:
    """The state of an evaluation, which collects the ranks of the target items model by model.

    Attributes:
        recipe: the recipe, which defines the evaluation protocol.
        prepared: the content of the run's etl stage.
        evaluation_set: the queries and target items of the main evaluation protocol.
        further: name → a further evaluation protocol, with its queries and target items.
        ranks: model → ranks of the target items in the lists of the main evaluation protocol.
        beside: name of a further protocol → model → ranks of the target items in its lists.
    """

    recipe: Recipe
    prepared: Prepared
    evaluation_set: EvaluationSet
    further: dict[str, FurtherProtocol]
    ranks: dict[str, TargetRanks] = field(default_factory=dict)
    beside: dict[str, dict[str, TargetRanks]] = field(default_factory=dict)
    catalogue: dict[str, dict[str, float | None]] = field(default_factory=dict)
    baselines: dict[str, BaselineChoice] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def ours(self) -> str:
        """The name of the recipe's own model in the report."""
        return name_of(self.recipe.towers)

    @cached_property
    def _known(self) -> Interactions:
        """The interactions before the test part, from which the popularity of items is counted."""
        return StoredInteractions(self.prepared, KNOWN["test"])

    def run(self, store: Store) -> tuple[Report, Inside]:
        """Rank with the recipe's model and its baselines; return the report and the analysis."""
        self._leave_out_empty_protocols()
        model = load_model(store, self.recipe, self.prepared)
        tower = TwoTower.of(model, self.prepared.users, self.prepared.items)
        self._rank_with(self.ours, self._with_fallback(tower))
        by_score = hits_by_score(
            tower,
            replace(self.evaluation_set, exclude=None),
            self.prepared.rows_of_sample("test", self.recipe.evaluate.sample),
            self.recipe.evaluate.ks,
            embed_items=lambda columns: embed(model.candidate_encoder, columns),
        )
        for name, retriever in self._baselines():
            self._rank_with(name, retriever)
        views = inside.analyse(self.recipe, self.prepared, self.evaluation_set, model, tower)
        return self._report(by_score), views

    def _leave_out_empty_protocols(self) -> None:
        for name in [n for n, p in self.further.items() if not len(p.evaluation_set.queries)]:
            self.left_out[name] = "no test row has an item without training interactions"
            del self.further[name]

    def _with_fallback(self, tower: TwoTower) -> Retriever:
        """Return the retriever that serving uses: the tower, and a fallback for unknown users."""
        if self.recipe.fallback == "tower":
            return tower
        return Fallback(tower, Popularity().fit(self._known), unknown_users)

    def _baselines(self) -> Iterator[tuple[str, Retriever]]:
        """Yield the fitted baselines, and record the reasons why other baselines cannot run."""
        recipe, prepared = self.recipe, self.prepared
        facts = Facts(
            train=StoredInteractions(prepared, ["train"]),
            attributes=attributes(recipe, prepared.items),
            seed=recipe.evaluate.seed,
        )
        valid = prepared.evaluation_set("valid", recipe.evaluate, recipe.evaluate.sample)
        names = [name for name in recipe.evaluate.baselines if name != self.ours]
        for name, result in fit_baselines(names, facts, valid):
            if isinstance(result, CannotFit):
                self.left_out[name] = str(result)
                continue
            self.baselines[name] = result.note
            yield name, as_of(result.model, self._known)

    def _rank_with(self, name: str, retriever: Retriever) -> None:
        """Rank items with a model under all protocols, and keep the ranks of the target items."""
        config, start = self.recipe.evaluate, time.perf_counter()
        try:
            ranking = self.evaluation_set.rank(retriever, max(config.ks))
            self.seconds[name] = round(time.perf_counter() - start, 3)
            for block, other in self.further.items():
                found = other.evaluation_set.rank(retriever, max(config.ks)).ranks
                self.beside.setdefault(block, {})[name] = found
        except BrokenModel as error:
            raise ArtifactError(
                f"{name} cannot be ranked: {error} Run `two-tower train` again, with a lower "
                "optimizer.lr if need be."
            ) from error
        self.ranks[name] = ranking.ranks
        self.catalogue[name] = {}
        n_candidates, counts = int(self.evaluation_set.candidates.sum()), self.prepared.item_counts
        for k in config.ks:
            share = metrics.coverage(ranking.items, k=k, n_items=n_candidates)
            self.catalogue[name][f"coverage@{k}"] = share
            bias = metrics.popularity_bias(ranking.items, counts, k=k)
            self.catalogue[name][f"popularity_bias@{k}"] = bias
        log.info(
            "%s: %s users in %.2f s",
            name,
            f"{len(self.evaluation_set.queries):,}",
            self.seconds[name],
        )

    def _report(self, by_score: dict[str, Floats]) -> Report:
        protocol = self._protocol()
        tally = Tally(self.evaluation_set.targets, self.recipe.evaluate)
        rows = msgspec.structs.replace(protocol, averaged="per row")
        tfrs = msgspec.structs.replace(
            rows, exclude_seen=False, hit="by score", ties="count for the model"
        )
        return Report(
            ours=self.ours,
            counts=self._counts(),
            fallback=self.recipe.fallback,
            headline=tally.over_users(self.ranks, protocol),
            differences=tally.differences(self.ranks, protocol, ours=self.ours),
            beside={
                "per_row": self._over_rows(self.evaluation_set, self.ranks, rows),
                **{name: self._block(name, protocol) for name in self.further},
                "tfrs_compat": tally.shares({self.ours: by_score}, tfrs),
            },
            segments={
                segment.name: tally.segment(self.ranks, segment.targets, protocol, segment.what)
                for segment in segments(self.evaluation_set, self.prepared.item_counts)
            },
            catalogue=self.catalogue,
            baselines=self.baselines,
            left_out=self.left_out,
            seconds=self.seconds,
        )

    def _block(self, name: str, headline: Protocol) -> Block:
        found = self.further[name]
        ranks, protocol = self.beside[name], found.protocol(headline)
        if found.by_row:
            return self._over_rows(found.evaluation_set, ranks, protocol)
        tally = Tally(found.evaluation_set.targets, self.recipe.evaluate)
        return tally.over_users(ranks, protocol)

    def _over_rows(
        self, evaluation_set: EvaluationSet, ranks: dict[str, TargetRanks], protocol: Protocol
    ) -> Block:
        """Return the share of held-out rows with their item in a list: by model, and by chance."""
        config = self.recipe.evaluate
        block = Tally(evaluation_set.targets, config).over_rows(ranks, protocol)
        chance = {f"recall@{k}": evaluation_set.chance(k) for k in config.ks}
        return msgspec.structs.replace(block, chance=chance)

    def _protocol(self) -> Protocol:
        split = msgspec.to_builtins(self.recipe.split)
        options = ", ".join(f"{k} {v}" for k, v in split.items() if k != "kind")
        last, until = self._known.last_time(), ""
        if last is not None:
            until = f", the last of {datetime.fromtimestamp(last, timezone.utc):%F %T} UTC"
        config = self.recipe.evaluate
        return Protocol(
            part="test",
            split=f"{split['kind']} ({options})",
            cut=f"histories and popularity contain the rows of train and valid{until}",
            candidates=config.candidates,
            n_candidates=int(self.evaluation_set.candidates.sum()),
            exclude_seen=config.exclude_seen,
            sample=sample_of(self.evaluation_set, config.sample),
            averaged="per user and context" if self.evaluation_set.queries.contexts else "per user",
            level=config.level,
        )

    def _counts(self) -> dict[str, int]:
        evaluation_set, counts = self.evaluation_set, self.prepared.item_counts
        items = evaluation_set.targets.values
        known = items >= 0
        return {
            "users": len(evaluation_set.queries),
            "users_warm": int(evaluation_set.warm.sum()),
            "users_cold": int((~evaluation_set.warm).sum()),
            "users_unknown": int(unknown_users(evaluation_set.queries).sum()),
            "targets": len(items),
            "targets_cold": int((~known | (counts[items] == 0)).sum()),
            "targets_outside_candidates": int((~known | ~evaluation_set.candidates[items]).sum()),
            "targets_seen": evaluation_set.n_hidden(),
        }
