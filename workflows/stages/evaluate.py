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


def has_value(value: float | None) -> TypeGuard[float]:
    """Return whether a metric has a value; the mean over an empty set of users has none."""
    return value is not None and not math.isnan(value)


def format_value(value: float | None, form: str) -> str:
    """Return a metric as text, in a format of Python's `format`; a dash if it has no value."""
    return format(value, form) if has_value(value) else NOTHING


class Figure(msgspec.Struct, frozen=True, omit_defaults=True):
    """The mean of a metric with its bootstrap interval; a single user has no interval."""

    mean: float
    low: float | None = None
    high: float | None = None
    standard_error: float | None = None


class Sample(msgspec.Struct, frozen=True):
    """A random sample of the users of a held-out part, on whom metrics were computed.

    Attributes:
        users: number of users in the sample.
        of: number of users in the part.
        seed: seed of the random draw.
    """

    users: int
    of: int
    seed: int

    @property
    def sentence(self) -> str:
        """The size of the sample as text."""
        return f"a random sample of {self.users:,} of {self.of:,} users (seed {self.seed})"


class Protocol(msgspec.Struct, frozen=True, kw_only=True):
    """An evaluation protocol: the data, candidates and rules with which metrics were computed.

    Attributes:
        part: the held-out part of the split: `valid` or `test`.
        split: the rule of the split by which the part was held out.
        cut: which interactions the histories and the popularity counts contain.
        candidates: the items that were ranked: `catalogue`, `train` or `cold`.
        n_candidates: number of candidate items that were ranked.
        exclude_seen: whether items that a user had seen were left out of the user's lists.
        refit: whether the models were fitted again on train and valid before the test.
        hit: what counts as a hit: `by id`, or `by score` (a target that scores at least as high as
            the k-th item).
        ties: how items with equal scores are ranked.
        averaged: whether metrics are means over users or over rows.
        level: the confidence level of the metrics' intervals, which include the error of `sample`.
        sample: the sample of users; absent if all users of the part were measured.
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
    sample: Sample | msgspec.UnsetType = msgspec.UNSET

    @property
    def sentence(self) -> str:
        """The evaluation protocol as one line of text, which is printed beside the metrics."""
        sample = f", {self.sample.sentence}" if self.sample else ""
        return (
            f"{self.part} of split {self.split}{sample}; {self.cut}; {self.candidates} of "
            f"{self.n_candidates:,} items, seen items "
            f"{'excluded' if self.exclude_seen else 'kept'}; "
            f"{'refitted on train and valid' if self.refit else 'fitted on train, no refit'}; hits "
            f"{self.hit}, ties: {self.ties}; means {self.averaged}, "
            f"{self.level:.0%} bootstrap intervals"
        )


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """The metrics of all models under one evaluation protocol, for the same users and targets.

    Attributes:
        protocol: the evaluation protocol of these metrics.
        what: a description of the users and targets that were evaluated.
        users: number of users over whom metrics are means.
        targets: number of target items of these users.
        metrics: model → metric → mean and interval. Metrics that were not computed are absent.
        chance: metric → its value for lists of candidates in random order; empty if the metrics are
            not means over rows.
    """

    protocol: Protocol
    what: str
    users: int
    targets: int
    metrics: dict[str, dict[str, Figure]]
    chance: dict[str, float] = {}


class BaselineChoice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The hyper-parameters of a baseline, and how they were chosen.

    Attributes:
        parameters: name of a hyper-parameter → chosen value.
        tried: number of hyper-parameter combinations that were fitted on train.
        edge: names of the hyper-parameters whose chosen value is the lowest or highest that was
            tried.
        valid: mean of recall@10, @20, @50 and ndcg@10 of the chosen values on the validation part.
            If the split has no validation part, the mean is absent, and the first point of the grid
            was used.
        valid_users: number of users of the validation part.
        seconds: duration of the hyper-parameter search, in seconds.
    """

    parameters: dict[str, float]
    tried: int
    edge: tuple[str, ...] = ()
    valid: float | None = None
    valid_users: int | None = None
    seconds: float

    @property
    def place(self) -> str:
        """Where the chosen values lie in the range that was searched: `inside`, or at an edge."""
        return f"at the edge of {' and '.join(self.edge)}" if self.edge else "inside"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All metrics of one evaluation of a model that ranks the catalogue, and of its baselines.

    Attributes:
        ours: the name of the recipe's own model.
        counts: numbers of users and targets, warm and cold; `targets_seen` counts targets that no
            list may show, because their users had seen them; `users_unknown` counts users without a
            history who are not in the user table. With context features, pairs of a user and a
            context are counted in place of users.
        fallback: the model that answers for unknown users in place of the two-tower model.
        headline: the main metrics: means over all users, under the main evaluation protocol.
        differences: means over users of the two-tower model's metrics minus those of each baseline,
            under the main evaluation protocol.
        beside: name of a further protocol (`per_row`, `seen_kept`, `seen_excluded`, `tfrs_compat`,
            and protocols of the recipe such as `train_rows`) → the metrics under it.
        segments: name of a segment → the metrics of its users or targets; empty segments are left
            out.
        catalogue: model → coverage and popularity bias of its lists under the main protocol; null
            if all lists are empty.
        baselines: baseline → its parameters and how they were chosen.
        left_out: baseline that did not run, or protocol that has no rows → the reason.
        seconds: model → wall time of ranking, in seconds.
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
    """Points of a scatter plot of sampled items: popularity against a quantity such as the norm.

    Attributes:
        counts: number of training interactions of each item, [n].
        values: the quantity (norm or bias) of each item, [n].
        correlation: Spearman correlation of counts and values over all items with training
            interactions; None if one of them is constant.
    """

    counts: list[int]
    values: list[float]
    correlation: float | None


class Neighbours(msgspec.Struct, frozen=True):
    """The nearest neighbours of one item by the cosine similarity of item embeddings.

    Attributes:
        item: row number of the item in the item table.
        items: row numbers of its neighbours in the item table, nearest first.
        cosines: cosine similarity of each neighbour's embedding to the item's.
    """

    item: int
    items: list[int]
    cosines: list[float]


class Example(msgspec.Struct, frozen=True):
    """An example user of the test part: the end of their history, and their recommendation list.

    Attributes:
        user: row number of the user in the user table.
        n_earlier: number of the user's interactions before the test part.
        latest: row numbers of the items of the user's last interactions before the test part,
            newest first.
        recommended: row numbers of the items in the user's recommendation list, best first.
        withheld: row numbers of the items that the user has in the test part; -1 is an item that is
            not in the item table.
    """

    user: int
    n_earlier: int
    latest: list[int]
    recommended: list[int]
    withheld: list[int]

    @property
    def hits(self) -> int:
        """The number of recommended items that are among the user's withheld items."""
        return len(set(self.recommended) & set(self.withheld))


class Inside(msgspec.Struct, frozen=True, kw_only=True):
    """An analysis of the evaluated model: history weights, embedding norms, biases and neighbours.

    Attributes:
        query_inputs: names of the columns that are inputs of the query tower.
        item_inputs: names of the columns that are inputs of the item tower.
        n_weights: number of trained weights of the model.
        loss: the kind of training loss.
        decays: history column → weight of each position in a full history, newest first.
        norms: norms of item embeddings and popularity of the items; None if all norms are 1.
        biases: item biases, including a prior, and popularity of the items; None if there are no
            biases.
        neighbours: the nearest neighbours of the most popular items.
        examples: example users of the test part, with their recommendation lists.
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
    """The paths of the files in the folder of the evaluate stage."""

    folder: Path

    @property
    def report(self) -> Path:
        """The JSON file with all metrics of the evaluation."""
        return self.folder / "report.json"

    @property
    def inside(self) -> Path:
        """The JSON file with the analysis of the evaluated model."""
        return self.folder / "inside.json"

    def write(self, report: Report, inside: Inside) -> None:
        """Write the metrics of an evaluation and the analysis of the model as JSON files."""
        self.report.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2))
        self.inside.write_bytes(msgspec.json.encode(inside))

    def read_report(self) -> Report:
        """Read the metrics of the evaluation from their JSON file."""
        return read_json(self.report, Report, "evaluate")

    def read_inside(self) -> Inside:
        """Read the analysis of the evaluated model from its JSON file."""
        return read_json(self.inside, Inside, "evaluate")
