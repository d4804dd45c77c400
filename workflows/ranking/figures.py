"""Computes metrics from the ranks of target items, with one set of bootstrap samples for all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from models.core import metrics
from models.core.intervals import bootstrap
from models.core.metrics import TargetRanks
from models.core.retriever import Bools, Floats, Ints, Ragged
from workflows.recipe.protocol import EvaluateConfig
from workflows.stages.evaluate import Block, Figure, Protocol

#: Metric → one value per user, float64 [n_users].
Values = Mapping[str, Floats]


@dataclass(frozen=True)
class Tally:
    """Computes metrics with bootstrap intervals from the ranks of the target items.

    Metrics are computed one model after the other, so that memory holds the values of one model.

    Attributes:
        targets: the target items of the evaluation set's queries.
        config: list lengths and settings of the bootstrap intervals.
    """

    targets: Ragged
    config: EvaluateConfig

    def over_users(self, ranks: Mapping[str, TargetRanks], protocol: Protocol) -> Block:
        """Return all ranking metrics of each model as means over all users."""
        values = ((model, self._per_user(found)) for model, found in ranks.items())
        return self._block(values, protocol, "all users", self.targets)

    def differences(
        self, ranks: Mapping[str, TargetRanks], protocol: Protocol, *, ours: str
    ) -> Block:
        """Return mean differences over users: one model's metrics minus each other model's."""
        mine = self._per_user(ranks[ours])
        pairs = (
            (model, {name: mine[name] - value for name, value in self._per_user(found).items()})
            for model, found in ranks.items()
            if model != ours
        )
        return self._block(pairs, protocol, f"{ours} minus the model, user by user", self.targets)

    def segment(
        self, ranks: Mapping[str, TargetRanks], chosen: Bools, protocol: Protocol, what: str
    ) -> Block:
        """Return each model's recall and ndcg, computed from a part of the target items only."""
        _, users = np.unique(self.targets.owners()[chosen], return_inverse=True)
        few = Ragged.from_pairs(users, self.targets.values[chosen], n_lists=users.max() + 1)
        values = (
            (model, _main(metrics.per_user(found.take(chosen), few, self.config.ks)))
            for model, found in ranks.items()
        )
        return self._block(values, protocol, what, few)

    def over_rows(self, ranks: Mapping[str, TargetRanks], protocol: Protocol) -> Block:
        """Return, for each model, the share of held-out rows whose item is among the first k."""
        hits = {
            model: {
                f"recall@{k}": metrics.hits_by_user(found, self.targets, k=k)
                for k in self.config.ks
            }
            for model, found in ranks.items()
        }
        return self.shares(hits, protocol)

    def shares(self, hits: Mapping[str, Values], protocol: Protocol) -> Block:
        """Return the share of hits among held-out rows; the bootstrap resamples users, not rows.

        Args:
            hits: model → metric → number of hits among each user's rows.
            protocol: the evaluation protocol.
        """
        rows = self.targets.lengths
        values = (
            (model, {name: _ratio(value, rows) for name, value in by_name.items()})
            for model, by_name in hits.items()
        )
        return self._block(values, protocol, "all rows", self.targets)

    def _per_user(self, found: TargetRanks) -> dict[str, Floats]:
        return metrics.per_user(found, self.targets, self.config.ks)

    def _block(
        self,
        models: Iterable[tuple[str, Values]],
        protocol: Protocol,
        what: str,
        targets: Ragged,
    ) -> Block:
        return Block(
            protocol=protocol,
            what=what,
            users=len(targets),
            targets=len(targets.values),
            metrics={model: self._figures(values) for model, values in models},
        )

    def _figures(self, values: Values) -> dict[str, Figure]:
        columns = np.stack(list(values.values()), axis=1)
        if len(columns) < 2:
            return {n: Figure(float(c)) for n, c in zip(values, columns[0], strict=True)}
        found = bootstrap(
            columns,
            seed=self.config.seed,
            n_resamples=self.config.bootstrap,
            level=self.config.level,
        )
        return {
            name: Figure(i.mean, i.low, i.high, i.standard_error)
            for name, i in zip(values, found, strict=True)
        }


def _main(values: Values) -> Values:
    """Return recall and ndcg, the metrics that are reported for segments."""
    return {n: value for n, value in values.items() if n.startswith(("recall@", "ndcg@"))}


def _ratio(values: Floats, sizes: Ints) -> Floats:
    """Return one value per user, so that their mean is sum(values) / sum(sizes).

    The variance of the values is that of the ratio, by the delta method.
    """
    ratio = values.sum() / sizes.sum()
    return ratio + (values - ratio * sizes) / sizes.mean()
