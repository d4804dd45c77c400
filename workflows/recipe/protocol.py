"""How models are compared, and how items are searched: the blocks `evaluate` and `index`."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from models.baselines.registry import BASELINES, Baseline
from models.core.evaluation_set import ListRules
from models.core.fields import Length, NonNegative, Part, Times


class EvaluateConfig(ListRules, frozen=True):
    """The protocol that every printed figure follows.

    Attributes:
        baselines: what stands beside the two-tower, of `models.baselines`. Their hyper-parameters
            are chosen on the validation part, from a grid that stands with each and goes on where
            its best point lies at an edge.
        ks: list lengths.
        also: other lists to measure beside the headline's, row by row.
        train_rows: say, too, how many of the training rows the models give back, seen items kept.
        bootstrap: resamples of an interval.
        level: the level of an interval.
        seed: the seed of resampling and of the random baseline.
    """

    baselines: tuple[Baseline, ...] = BASELINES
    ks: Annotated[tuple[Length, ...], Meta(max_length=100)] = (10, 20, 50, 100)
    also: Annotated[tuple[ListRules, ...], Meta(max_length=100)] = ()
    train_rows: bool = False
    bootstrap: Times = 1000
    level: Annotated[float, Meta(gt=0, lt=1)] = 0.95
    seed: NonNegative = 1

    def __post_init__(self) -> None:
        if not self.ks or list(self.ks) != sorted(set(self.ks)):
            raise ValueError(f"ks must rise and not be empty, got {list(self.ks)}")
        if len(set(self.baselines)) < len(self.baselines):
            raise ValueError(f"baselines names one twice, got {list(self.baselines)}")


class IndexConfig(Part, frozen=True):
    """How items are searched.

    Attributes:
        kind: `exact` scores every item; `flat`, `hnsw` and `ivf` are FAISS's and need the `index`
            extra; `auto` is exact for tables of up to `exact_up_to` items, else ivf.
        exact_up_to: see `auto`.
        recall: the share of the exact search's `at` best items that hnsw and ivf must find. Their
            effort is chosen for it, and an index that misses it is refused.
        at: list length that recall is measured at.
        queries: users of the export that ask while effort is chosen, and as many others while
            recall and latency are measured.
        seed: the seed of the drawing of ivf's cells.
    """

    kind: Literal["auto", "exact", "flat", "hnsw", "ivf"] = "auto"
    exact_up_to: NonNegative = 200_000
    recall: Annotated[float, Meta(gt=0, le=1)] = 0.99
    at: Length = 100
    queries: Times = 500
    seed: NonNegative = 1
