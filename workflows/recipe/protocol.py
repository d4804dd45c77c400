"""A recipe's blocks `evaluate` and `index`: how models are compared, and how items are searched."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from models.baselines.registry import BASELINES, Baseline
from models.core.config import ListRules
from models.core.fields import Length, NonNegative, Part, Positive, Times
from models.core.user_sample import UserSample


class EvaluateConfig(ListRules, frozen=True):
    """The evaluation protocol of a recipe: baselines, list lengths and confidence intervals.

    Attributes:
        baselines: names of baselines in `models.baselines.registry`. The hyper-parameters of
            baselines are chosen on the validation part.
        ks: lengths of the recommendation lists, in rising order.
        also: further protocols of evaluation, with other candidates or other excluded items; their
            metrics are means over rows, not over users.
        train_rows: whether to also measure the share of training rows whose item is in the user's
            list; seen items are then kept in lists.
        bootstrap: number of bootstrap resamples for a confidence interval.
        level: confidence level of the metrics' intervals.
        max_users: the largest number of users who are measured; if there are more, a random sample
            of them is measured. null measures all users.
        seed: the random seed of the sample of users, of the bootstrap resamples and of the random
            baseline.
    """

    baselines: tuple[Baseline, ...] = BASELINES
    ks: Annotated[tuple[Length, ...], Meta(max_length=100)] = (10, 20, 50, 100)
    also: Annotated[tuple[ListRules, ...], Meta(max_length=100)] = ()
    train_rows: bool = False
    bootstrap: Times = 1000
    level: Annotated[float, Meta(gt=0, lt=1)] = 0.95
    max_users: Positive | None = None
    seed: NonNegative = 1

    @property
    def sample(self) -> UserSample:
        """The size and the seed of the random sample of users who are measured."""
        return UserSample(self.max_users, self.seed)

    def __post_init__(self) -> None:
        if not self.ks or list(self.ks) != sorted(set(self.ks)):
            raise ValueError(f"ks must rise and not be empty, got {list(self.ks)}")
        if len(set(self.baselines)) < len(self.baselines):
            raise ValueError(f"baselines names one twice, got {list(self.baselines)}")
        if self.candidates == "cold":
            raise ValueError(
                "candidates: cold is for further lists. Keep the candidates of the headline, and "
                "set also: [{candidates: cold}]"
            )


class IndexConfig(Part, frozen=True):
    """The settings of the search for the items with the highest scores for a query.

    Attributes:
        kind: `exact` scores every item; the others are indexes of FAISS and need the `index` extra.
            `flat` has all items, `hnsw` a graph, and `ivf` cells of similar items. `ivf_sq` and
            `ivf_pq` are ivf with vectors of one byte, or about half a byte, for each dimension, for
            10 to 100 million items. `auto` is exact for tables of up to `exact_up_to` items, ivf up
            to `whole_up_to`, else ivf_sq.
        exact_up_to: the largest item table for which `auto` means exact.
        whole_up_to: the largest item table for which `auto` means ivf.
        recall: the share of the exact search's `at` best items that an index must find. The
            search effort is tuned to reach this recall, and an index with a lower recall is
            refused.
        at: the list length at which the recall of an index is measured.
        queries: number of users of the export with whom the effort is tuned, and number of other
            users with whom recall and latency are measured.
        seed: the random seed with which the cells of ivf are fitted.
    """

    kind: Literal["auto", "exact", "flat", "hnsw", "ivf", "ivf_sq", "ivf_pq"] = "auto"
    exact_up_to: NonNegative = 200_000
    whole_up_to: NonNegative = 5_000_000
    recall: Annotated[float, Meta(gt=0, le=1)] = 0.99
    at: Length = 100
    queries: Times = 500
    seed: NonNegative = 1
