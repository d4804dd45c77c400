"""From places to figures: one protocol at a time, all models by the same users and draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from models import metrics
from models.config import EvaluateConfig
from models.intervals import bootstrap_columns
from models.metrics import Places
from models.retriever import Bools, Floats, Ints, Ragged
from workflows.evaluate.report import Block, Figure, Protocol

#: Model → metric → one value a user, float64 [n_users].
PerUser = Mapping[str, Mapping[str, Floats]]


@dataclass(frozen=True)
class Tally:
    """Makes blocks of figures.

    Attributes:
        targets: of the trial.
        config: list lengths and intervals.
    """

    targets: Ragged
    config: EvaluateConfig

    def over_users(self, places: Mapping[str, Places]) -> dict[str, dict[str, Floats]]:
        """Return every metric of every user by model."""
        return {
            model: metrics.per_user(found, self.targets, self.config.ks)
            for model, found in places.items()
        }

    def headline(self, per_user: PerUser, protocol: Protocol) -> Block:
        """Return the figures of all users."""
        return self._block(per_user, protocol, "all users", self.targets)

    def differences(self, per_user: PerUser, protocol: Protocol, *, ours: str) -> Block:
        """Return how much more one model earns than each other, pair by pair."""
        pairs = {
            model: {name: per_user[ours][name] - value for name, value in values.items()}
            for model, values in per_user.items()
            if model != ours
        }
        return self._block(pairs, protocol, f"{ours} minus the model, user by user", self.targets)

    def segment(
        self, places: Mapping[str, Places], chosen: Bools, protocol: Protocol, what: str
    ) -> Block:
        """Return recall and ndcg as if only the chosen targets were wanted."""
        _, users = np.unique(self.targets.owners()[chosen], return_inverse=True)
        few = Ragged.from_pairs(users, self.targets.values[chosen], n_lists=users.max() + 1)
        per_user = {
            model: {
                name: values
                for name, values in metrics.per_user(
                    found.take(chosen), few, self.config.ks
                ).items()
                if name.startswith(("recall@", "ndcg@"))
            }
            for model, found in places.items()
        }
        return self._block(per_user, protocol, what, few)

    def over_rows(self, places: Mapping[str, Places], protocol: Protocol) -> Block:
        """Return the share of held-out rows whose item is among the first k."""
        hits = {
            model: {
                f"recall@{k}": metrics.hits_by_user(found, self.targets, k=k)
                for k in self.config.ks
            }
            for model, found in places.items()
        }
        return self.shares(hits, protocol)

    def shares(self, hits: PerUser, protocol: Protocol) -> Block:
        """Return hits over rows; users, not rows, are drawn again for the intervals.

        Args:
            hits: model → metric → how many of each user's rows are hit.
            protocol: what the figures mean.
        """
        rows = self.targets.lengths
        per_user = {
            model: {name: _ratio(values, rows) for name, values in by_name.items()}
            for model, by_name in hits.items()
        }
        return self._block(per_user, protocol, "all rows", self.targets)

    def _block(self, per_user: PerUser, protocol: Protocol, what: str, targets: Ragged) -> Block:
        names = [(model, name) for model, values in per_user.items() for name in values]
        columns = [per_user[model][name] for model, name in names]
        figures = dict(zip(names, self._figures(columns), strict=True))
        return Block(
            protocol=protocol,
            what=what,
            users=len(targets),
            targets=len(targets.values),
            metrics={
                model: {name: figures[model, name] for name in values}
                for model, values in per_user.items()
            },
        )

    def _figures(self, columns: Sequence[Floats]) -> list[Figure]:
        if not columns:
            return []
        if len(columns[0]) < 2:
            return [Figure(float(column[0])) for column in columns]
        config = self.config
        found = bootstrap_columns(
            np.stack(columns, axis=1),
            seed=config.seed,
            n_resamples=config.bootstrap,
            level=config.level,
        )
        return [Figure(i.mean, i.low, i.high, i.standard_error) for i in found]


def _ratio(values: Floats, sizes: Ints) -> Floats:
    """Return numbers whose mean is sum(values) / sum(sizes), and whose spread is that ratio's.

    The ratio as it is to first order in its users (the delta method).
    """
    ratio = values.sum() / sizes.sum()
    return ratio + (values - ratio * sizes) / sizes.mean()
