"""The files of the evaluate stage: metrics with their protocols, and an analysis of the model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

import msgspec

from workflows.ground.stage_content import read_json

#: The text that is shown in place of a figure that does not exist.
NOTHING = "-"


def exists(value: float | None) -> TypeGuard[float]:
    """Return whether a figure exists: the mean of an empty set does not."""
    return value is not None and not math.isnan(value)


def shown(value: float | None, form: str) -> str:
    """Return a figure as text in a format of Python's `format`, or a dash if there is none."""
    return format(value, form) if exists(value) else NOTHING


class Figure(msgspec.Struct, frozen=True, omit_defaults=True):
    """A mean with its bootstrap interval; a single user has no interval."""

    mean: float
    low: float | None = None
    high: float | None = None
    standard_error: float | None = None


class Protocol(msgspec.Struct, frozen=True, kw_only=True):
    """An evaluation protocol: how metrics were computed. It is printed beside them.

    Attributes:
        part: the held-out part.
        split: how the part was held out.
        cut: which interactions the histories and the popularity counts contain.
        candidates: the items that were ranked: `catalogue` or `train`.
        n_candidates: number of candidates.
        exclude_seen: whether seen items were left out of the lists.
        refit: whether the models were fitted again on train and valid.
        hit: what counts as a hit: `by id`, or `by score` (a target that scores at least as high as
            the k-th item).
        ties: how items with equal scores count.
        averaged: whether metrics are means over users or over rows.
        level: the confidence level of the intervals.
    """

    part: str
    split: str
    cut: str
    candidates: str
    n_candidates: int
    exclude_seen: bool
    refit: bool = False
    hit: str = "by id"
    ties: str = "mean over all orders of equal scores"
    averaged: str = "per user"
    level: float

    @property
    def sentence(self) -> str:
        """The whole protocol in one line of text."""
        return (
            f"{self.part} of split {self.split}; {self.cut}; {self.candidates} of "
            f"{self.n_candidates:,} items, seen items "
            f"{'excluded' if self.exclude_seen else 'kept'}; "
            f"{'refitted on train and valid' if self.refit else 'fitted on train, no refit'}; hits "
            f"{self.hit}, ties: {self.ties}; means {self.averaged}, "
            f"{self.level:.0%} bootstrap intervals"
        )


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """The metrics of all models under one protocol, for the same users and targets.

    Attributes:
        protocol: the evaluation protocol.
        what: a description of these users and targets.
        users: number of users.
        targets: number of targets.
        metrics: model → metric → figure. A metric that was not computed is absent.
    """

    protocol: Protocol
    what: str
    users: int
    targets: int
    metrics: dict[str, dict[str, Figure]]


class BaselineChoice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The parameters of a baseline, and how they were chosen.

    Attributes:
        parameters: name of a parameter → chosen value.
        tried: number of combinations that were fitted on train.
        edge: parameters whose chosen value is the lowest or the highest that was tried, because the
            search met a bound or ended; empty if all are inside the range that was tried.
        valid: mean of recall@10, @20, @50 and ndcg@10 of the choice on the validation part; absent
            if the split has no such part, and then the first point of the grid was used.
        valid_users: number of users of the validation part.
        seconds: duration of the search, in seconds.
    """

    parameters: dict[str, float]
    tried: int
    edge: tuple[str, ...] = ()
    valid: float | None = None
    valid_users: int | None = None
    seconds: float

    @property
    def place(self) -> str:
        """The place of the choice in the range that was tried: `inside`, or at which edge."""
        return f"at the edge of {' and '.join(self.edge)}" if self.edge else "inside"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All metrics of one evaluation.

    Attributes:
        ours: the name of the recipe's own model.
        counts: users and targets, warm and cold; `targets_seen` are those that no list may show,
            because their users had seen them; `users_unknown` are users without a history who are
            not in the user table. With context features, each user and context counts as one.
        fallback: the model that answers for unknown users in place of the two-tower model.
        headline: metrics of all users, as means over users.
        differences: metrics of the two-tower model minus those of each baseline, user by user,
            under the headline protocol.
        beside: metrics under other protocols: `per_row`, `seen_kept` or `seen_excluded`,
            `tfrs_compat`, and those that the recipe asks for, such as `train_rows` and
            `catalogue_seen_kept`, as means over rows.
        segments: name of a segment → the metrics of its users or targets; absent if it is empty.
        catalogue: model → coverage and popularity bias of the headline's lists; null if all lists
            are empty.
        baselines: baseline → its parameters and how they were chosen.
        left_out: baseline → the reason why it did not run.
        seconds: model → wall time of ranking.
    """

    ours: str
    counts: dict[str, int]
    fallback: str
    headline: Block
    differences: Block
    beside: dict[str, Block]
    segments: dict[str, Block]
    catalogue: dict[str, dict[str, float | None]]
    baselines: dict[str, BaselineChoice]
    left_out: dict[str, str]
    seconds: dict[str, float]


class Cloud(msgspec.Struct, frozen=True):
    """A quantity of sampled items and their popularity: the points of a scatter plot.

    Attributes:
        counts: number of training interactions of each item, [n].
        values: the quantity of each item, [n].
        correlation: Spearman correlation over all items with training interactions; None if one
            side is constant.
    """

    counts: list[int]
    values: list[float]
    correlation: float | None


class Neighbours(msgspec.Struct, frozen=True):
    """The nearest neighbours of an item among the items.

    Attributes:
        item: row of the item.
        items: rows of its neighbours, nearest first.
        cosines: cosine similarity of each neighbour's embedding to the item's.
    """

    item: int
    items: list[int]
    cosines: list[float]


class Example(msgspec.Struct, frozen=True):
    """An example user of the test part: the end of their history, and their list.

    Attributes:
        user: row of the user.
        n_earlier: number of interactions before the test part.
        latest: item rows of the last of these interactions, newest first.
        recommended: item rows of the user's list, best first.
        withheld: item rows of the user's targets; -1 is an item that is not in the table.
    """

    user: int
    n_earlier: int
    latest: list[int]
    recommended: list[int]
    withheld: list[int]

    @property
    def hits(self) -> int:
        """The number of recommended items that are targets."""
        return len(set(self.recommended) & set(self.withheld))


class Inside(msgspec.Struct, frozen=True, kw_only=True):
    """An analysis of the evaluated model.

    Attributes:
        query_inputs: columns that the query tower reads.
        item_inputs: columns that the item tower reads.
        n_weights: number of trained weights.
        loss: the kind of loss.
        decays: history column → weight of each position in a full history, newest first.
        norms: norms of item embeddings and their popularity; None if all norms are 1.
        biases: item biases, including a prior, and their popularity; None if there are none.
        neighbours: the nearest items of the most popular ones.
        examples: example users of the test part.
    """

    query_inputs: list[str]
    item_inputs: list[str]
    n_weights: int
    loss: str
    decays: dict[str, list[float]]
    norms: Cloud | None
    biases: Cloud | None
    neighbours: list[Neighbours]
    examples: list[Example]


@dataclass(frozen=True)
class EvaluateFiles:
    """File names of the evaluate stage."""

    folder: Path

    @property
    def report(self) -> Path:
        """The file of all metrics, JSON."""
        return self.folder / "report.json"

    @property
    def inside(self) -> Path:
        """The file of the analysis of the model, JSON."""
        return self.folder / "inside.json"

    def write(self, report: Report, inside: Inside) -> None:
        """Write the report and the analysis."""
        self.report.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2))
        self.inside.write_bytes(msgspec.json.encode(inside))

    def read_report(self) -> Report:
        """Return the report."""
        return read_json(self.report, Report, "evaluate")

    def read_inside(self) -> Inside:
        """Return the analysis of the model."""
        return read_json(self.inside, Inside, "evaluate")
