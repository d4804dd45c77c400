"""The evaluate stage, read back: figures, each with its protocol, and views into the model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

import msgspec

from workflows.ground.stage_content import read_json

#: What stands where a figure does not exist.
NOTHING = "-"


def exists(value: float | None) -> TypeGuard[float]:
    """Say whether there is a figure: an average of nothing is none."""
    return value is not None and not math.isnan(value)


def shown(value: float | None, form: str) -> str:
    """Return a figure as text in one of the formats of `format`, or a dash where there is none."""
    return format(value, form) if exists(value) else NOTHING


class Figure(msgspec.Struct, frozen=True, omit_defaults=True):
    """A mean with its bootstrap interval; a single user has no interval."""

    mean: float
    low: float | None = None
    high: float | None = None
    standard_error: float | None = None


class Protocol(msgspec.Struct, frozen=True, kw_only=True):
    """What figures mean; printed beside them.

    Attributes:
        part: the held-out part.
        split: how it was held out.
        cut: what histories and counts of popularity hold.
        candidates: what was ranked: `catalogue` or `train`.
        n_candidates: how many items that is.
        exclude_seen: whether the users' earlier items were left out.
        refit: whether parameters were learnt again on train and valid.
        hit: what counts: `by id`, or `by score` (a target at least as good as the k-th item).
        ties: what items of equal score are worth.
        averaged: over users, or over rows.
        level: the level of the intervals.
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
    """Figures under one protocol, of the same users and targets for all models.

    Attributes:
        protocol: what the figures mean.
        what: whose figures they are.
        users: how many users.
        targets: how many held-out rows.
        metrics: model → metric → figure. What was not computed is absent.
    """

    protocol: Protocol
    what: str
    users: int
    targets: int
    metrics: dict[str, dict[str, Figure]]


class BaselineChoice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a baseline came to its parameters.

    Attributes:
        parameters: name → value.
        tried: how many combinations were fitted on train.
        edge: parameters whose chosen value is the lowest or the highest that was tried, because the
            search met a bound or ended; empty when the choice lies inside what was tried.
        valid: the chosen one's mean of recall@10, @20, @50 and ndcg@10 on the validation part;
            absent where the split has none, and the first point of the grid was taken.
        valid_users: users that it was chosen by.
        seconds: the seconds of fitting and choosing.
    """

    parameters: dict[str, float]
    tried: int
    edge: tuple[str, ...] = ()
    valid: float | None = None
    valid_users: int | None = None
    seconds: float

    @property
    def place(self) -> str:
        """Where the chosen point lies among those tried: `inside`, or at which edge."""
        return f"at the edge of {' and '.join(self.edge)}" if self.edge else "inside"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Every figure of one evaluation.

    Attributes:
        ours: the name of the recipe's own model.
        counts: users and targets, warm and cold; `targets_seen` are those that no list may show,
            because their users had them before; `users_unknown` are users in no table without a
            history. Where features belong to an interaction, a user on each occasion counts.
        fallback: what answers unknown users in the two-tower's place.
        headline: all users, over users.
        differences: the two-tower minus each baseline, user by user, under the same protocol.
        beside: figures under other protocols: `per_row`, `seen_kept` or `seen_excluded`,
            `tfrs_compat`, and what the recipe asks for: `train_rows`, `catalogue_seen_kept` and the
            like, row by row.
        segments: name → the figures of some users or targets; absent where there are none.
        catalogue: model → coverage and popularity bias of the headline's lists; null where no list
            holds an item.
        baselines: baseline → how it came to its parameters.
        left_out: baseline → why it did not run.
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
    """A number of some items beside their popularity.

    Attributes:
        counts: training interactions of the items, [n].
        values: the number of each, [n].
        correlation: Spearman's, over all items met in training; None where one side is constant.
    """

    counts: list[int]
    values: list[float]
    correlation: float | None


class Neighbours(msgspec.Struct, frozen=True):
    """The items nearest to an item.

    Attributes:
        item: its row.
        items: rows of its neighbours, the nearest first.
        cosines: the cosine of each neighbour's embedding and the item's.
    """

    item: int
    items: list[int]
    cosines: list[float]


class Example(msgspec.Struct, frozen=True):
    """A user of the test part, with the end of their history and their list.

    Attributes:
        user: row of the user.
        n_earlier: number of interactions before the test part.
        latest: item rows of the last of them, the latest first.
        recommended: item rows of the user's list, the best first.
        withheld: item rows of the user's test part; -1 is an item of no table.
    """

    user: int
    n_earlier: int
    latest: list[int]
    recommended: list[int]
    withheld: list[int]

    @property
    def hits(self) -> int:
        """The number of recommended items that were withheld."""
        return len(set(self.recommended) & set(self.withheld))


class Inside(msgspec.Struct, frozen=True, kw_only=True):
    """Views into the evaluated model.

    Attributes:
        query_inputs: columns that the query tower reads.
        item_inputs: columns that the item tower reads.
        n_weights: number of trained weights.
        loss: kind of the loss.
        decays: history column → share of each position of a full history, the latest first.
        norms: lengths of the items' embeddings; None where all are 1.
        biases: biases of the items, a prior included; None where there are none.
        neighbours: the nearest items of the most popular ones.
        examples: some users of the test part.
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
        """Every figure, JSON."""
        return self.folder / "report.json"

    @property
    def inside(self) -> Path:
        """The views into the model, JSON."""
        return self.folder / "inside.json"

    def write(self, report: Report, inside: Inside) -> None:
        """Write both files."""
        self.report.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2))
        self.inside.write_bytes(msgspec.json.encode(inside))

    def read_report(self) -> Report:
        """Return every figure."""
        return read_json(self.report, Report, "evaluate")

    def read_inside(self) -> Inside:
        """Return the views into the model."""
        return read_json(self.inside, Inside, "evaluate")
