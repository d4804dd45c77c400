"""Every hyper-parameter once: its name, type, default and meaning.

The recipe is parsed into these; nouns in this folder take them; nothing else repeats them.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

import msgspec
from msgspec import Meta

# Every number of a recipe has an upper bound: what is larger is a slip, and would end in an error
# of memory or of a library that takes no such number.

#: NumPy, Arrow, protobuf, FAISS and TensorFlow all take integers up to here.
_MOST = 2**31 - 1
#: float32 holds numbers up to 3.4e38; products of two hyper-parameters stay within it.
_LARGEST = 1e18
Positive = Annotated[int, Meta(ge=1, le=_MOST)]
NonNegative = Annotated[int, Meta(ge=0, le=_MOST)]
PositiveFloat = Annotated[float, Meta(gt=0, le=_LARGEST)]
NonNegativeFloat = Annotated[float, Meta(ge=0, le=_LARGEST)]
Share = Annotated[float, Meta(ge=0, lt=1)]
#: The length of a list of items, of a user's history or of a ranking: each query holds one.
Length = Annotated[int, Meta(ge=1, le=10_000)]
#: The width of a layer. A square kernel of the largest has 1 GiB.
Wide = Annotated[int, Meta(ge=1, le=16_384)]
#: How often something is repeated, such as epochs, trials or resamples.
Times = Annotated[int, Meta(ge=1, le=100_000)]
#: Rows of a batch, or rows drawn for it. Their embeddings of width 64 have 256 MiB.
Rows = Annotated[int, Meta(ge=1, le=1_000_000)]
#: Codes that a column holds beside those of its values: each is a row of an embedding table.
Buckets = Annotated[int, Meta(ge=1, le=10_000_000)]
#: Text that becomes a part of file names.
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*\Z", max_length=100)]
#: The width of an embedding: a number, or a rule by the size of the vocabulary.
Width = Annotated[int, Meta(ge=1, le=4_096)] | Literal["infer"]


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A frozen block of a recipe that refuses unknown keys."""


class TwoTowerConfig(Part, frozen=True, tag_field="kind", tag="two_tower"):
    """The towers.

    Attributes:
        dim: width of an embedding, and of the towers' output where a tower has no layers; `infer`
            takes Merlin's rule, 2 times the fourth root of the vocabulary's size, rounded up to a
            multiple of 8, for each column by itself.
        dims: widths of single categories, where they differ from `dim`: column → a width, `infer`,
            or `one_hot`, which learns nothing: a 1 in the place of the value (missing and unseen
            ones have places, too), for a list the mean of those. A history is as its column.
        combine: how a tower joins its inputs: `sum` (all of width `dim`) or `concat`.
        query_layers: widths of the query tower's MLP; empty for none. The last layer is linear.
        item_layers: the same for the item tower. Both towers must end in the same width.
        activation: the activation of the layers before the last.
        normalize: L2-normalise both outputs, so that the score is the cosine.
        history_decay: an item at position k of the history starts with the weight exp(-k / decay);
            training goes on from there. Null gives all positions the same weight, which training
            leaves alone: the history is a bag without an order. It is the default of a recipe
            whose history has no time.
        init_stddev: standard deviation of freshly made embeddings.
        item_bias: one more dimension, 1 on the queries' side, that ranks items for everybody.
        dropout: share of the numbers of a tower's joined inputs left out in a training step.
        id_dropout: share of ids replaced by the unseen code in a training step, so that unknown
            users and new items meet a trained row.
    """

    dim: Width = 64
    dims: dict[str, Width | Literal["one_hot"]] = {}
    combine: Literal["sum", "concat"] = "sum"
    query_layers: Annotated[tuple[Wide, ...], Meta(max_length=32)] = ()
    item_layers: Annotated[tuple[Wide, ...], Meta(max_length=32)] = ()
    activation: Literal["relu", "gelu", "selu", "tanh"] = "relu"
    normalize: bool = False
    history_decay: PositiveFloat | None = 10.0
    init_stddev: PositiveFloat = 0.05
    item_bias: bool = True
    dropout: Share = 0.2
    id_dropout: Share = 0.0

    def __post_init__(self) -> None:
        layers = self.query_layers and self.item_layers
        if self.dim == "infer" and not (self.combine == "concat" and layers):
            raise ValueError(
                "dim infer gives each column a width of its own: it needs combine concat, and "
                "query_layers and item_layers that end in one width"
            )
        if self.dims and self.combine == "sum":
            raise ValueError("dims gives columns widths of their own: it needs combine concat")


class PopularityConfig(Part, frozen=True, tag_field="kind", tag="popularity"):
    """The same items for everybody: most rows first. Nothing is learnt.

    Attributes:
        days: the age at which a row weighs 1/e; null lets all weigh the same.
    """

    #: What other kinds of model may choose.
    item_bias: ClassVar[bool] = True
    normalize: ClassVar[bool] = False

    days: PositiveFloat | None = None


class ContentConfig(Part, frozen=True, tag_field="kind", tag="content"):
    """Items with the categories of the history: their one-hots side by side. Nothing is learnt.

    A user is the mean of what `history` lists of him; so the score is, for each category, the share
    of the history that has the item's value, added up over the categories.
    """

    item_bias: ClassVar[bool] = False
    normalize: ClassVar[bool] = False


ModelConfig = TwoTowerConfig | PopularityConfig | ContentConfig


class LossConfig(Part, frozen=True):
    """Softmax cross-entropy of the row's item among other items.

    Attributes:
        kind: the other items: `in_batch` those of the batch, `mixed` those and `negatives` items
            drawn uniformly from the item table (Yang et al. 2020), `full` the whole item table;
            `auto` is full for tables of up to `full_up_to` items, else in_batch.
        full_up_to: see `auto`.
        negatives: the negatives of `mixed`.
        temperature: T of the logits s/T - log q.
        logq: subtract log q, q the share of rows that bring the item into the comparison, so that
            popular items are not punished for standing in many batches. `full` needs none.
        mask: which of the other items are no negatives of a row: `none` (the default of TFRS),
            `item` (the same item again), `user` (all that its user liked in training).
        reduction: over the rows of a batch. With Adagrad `sum` and `mean` train differently.
        precision: of the loss' matrix products; sums stay in float32. `bfloat16` is faster where
            the processor has it (AVX512-BF16, AMX, tensor cores), and its gradients are off by
            about 0.1 %.

    The defaults of TensorFlow Recommenders' Retrieval task are kind in_batch, logq false, mask none
    and reduction sum; Merlin's are kind in_batch, logq false, mask item and reduction mean.
    """

    kind: Literal["auto", "in_batch", "mixed", "full"] = "auto"
    full_up_to: NonNegative = 20_000
    negatives: Rows = 1024
    temperature: PositiveFloat = 1.0
    logq: bool = True
    mask: Literal["none", "item", "user"] = "user"
    reduction: Literal["mean", "sum"] = "mean"
    precision: Literal["float32", "bfloat16"] = "float32"


class OptimizerConfig(Part, frozen=True):
    """The optimiser.

    Attributes:
        kind: adagrad and adamw as in Keras 2.12, and adam, which leaves the rows of a table (and
            their moments) alone that a batch does not touch.
        lr: learning rate.
        weight_decay: the weight decay of adamw.
        decay: what a step of adamw takes off a weight w: `keras` lr·weight_decay·w,
            `tfa` weight_decay·w, as TensorFlow Addons meant it (there of touched rows only, here of
            all).
        warmup_steps: the learning rate rises from 0 over so many steps.
        schedule: what it does after that, until the last epoch: stay, or fall to 0 in a line or
            along a cosine.
    """

    kind: Literal["adam", "adamw", "adagrad"] = "adam"
    lr: PositiveFloat = 0.003
    weight_decay: NonNegativeFloat = 0.0
    decay: Literal["keras", "tfa"] = "keras"
    warmup_steps: NonNegative = 0
    schedule: Literal["constant", "linear", "cosine"] = "constant"

    def __post_init__(self) -> None:
        if self.weight_decay and self.kind != "adamw":
            raise ValueError(f"weight_decay is for kind adamw; {self.kind} would not look at it")


class TrainConfig(Part, frozen=True):
    """The training loop.

    Attributes:
        batch_size: rows of a step. In-batch softmax draws its negatives from them.
        epochs: at most this many.
        monitor: the metric whose best epoch is kept, of `val_recall@k`, `val_ndcg@k`, …;
            `val_mean` is the mean of recall at 10, 20, 50 and ndcg at 10, steadier than any one.
        patience: stop after this many epochs without a better one.
        max_rows_per_user: rows of a user in one epoch, drawn anew each epoch; null for all. 50 is
            the default of a recipe whose history has no time.
        seed: the seed of initial weights, order of rows and draws.
    """

    batch_size: Rows = 512
    epochs: Times = 40
    monitor: str = "val_mean"
    patience: Times = 4
    max_rows_per_user: Positive | None = None
    seed: NonNegative = 1


class PriorConfig(Part, frozen=True):
    """Recent popularity as a part of the item bias, chosen on the validation part.

    Attributes:
        days: decays to try: the age at which an interaction weighs 1/e.
        weights: strengths to try; no prior is tried as well.
    """

    days: Annotated[tuple[PositiveFloat, ...], Meta(max_length=100)] = (3.0, 7.0, 14.0)
    weights: Annotated[tuple[PositiveFloat, ...], Meta(max_length=100)] = (
        *(0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0),
    )


Baseline = Literal[
    "random",
    "popularity",
    "recent-popularity",
    "content",
    "item-knn",
    "ease",
    "ease-decayed",
    "als",
]
#: All of them; one that cannot run on a data set is left out, and the report says why.
BASELINES: tuple[Baseline, ...] = get_args(Baseline)


#: A value of a recipe's field.
Plain = bool | int | float | str | None


class Range(Part, frozen=True):
    """Numbers from `low` to `high`, on a logarithmic scale or not.

    Attributes:
        low: the smallest.
        high: the largest.
        log: draw on a logarithmic scale.
        only_if: fields that stand before in the space, and the values that they must have for this
            one to be drawn: `{model.normalize: true}`.
        otherwise: what the field is where they have others; null leaves it as it is in the recipe.
    """

    low: float
    high: float
    log: bool = False
    only_if: dict[str, Plain] = {}
    otherwise: Plain = None

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(
                f"a range goes up (from above 0 with log), got {self.low}, {self.high}"
            )
        if self.otherwise is not None and not self.only_if:
            raise ValueError("otherwise is for a range with only_if; this one is always drawn")


Choices = Annotated[tuple[Plain, ...], Meta(min_length=1, max_length=1_000)]
Space = dict[str, Choices | Range]


def usual_space(*, ordered: bool) -> Space:
    """Return what `tune` searches where the recipe does not say.

    A low temperature goes with cosines only: dot products of any length find their own scale.

    Args:
        ordered: the model reads a history in the order of time.
    """
    space: Space = {
        "optimizer.lr": Range(low=5e-4, high=1e-2, log=True),
        "model.dim": (32, 64, 128),
        "model.dropout": (0.0, 0.1, 0.2, 0.3, 0.4),
        "model.normalize": (False, True),
        "loss.temperature": Range(
            low=0.05, high=0.3, log=True, only_if={"model.normalize": True}, otherwise=1.0
        ),
        "train.batch_size": (256, 512, 1024),
        "train.max_rows_per_user": (20, 30, 50, None),
    }
    if ordered:
        space["model.history_decay"] = Range(low=2.0, high=200.0, log=True)
    return space


class TuneConfig(Part, frozen=True):
    """What `tune` searches.

    Attributes:
        trials: fits in all.
        space: field of the recipe → choices, or a range. By default learning rate, width, dropout,
            cosines with their temperature, batch size, rows of a user and epoch, and, where there
            is a history in the order of time, how fast it fades.
    """

    trials: Times = 20
    space: Space | None = None

    def __post_init__(self) -> None:
        before: set[str] = set()
        for name, values in (self.space or {}).items():
            root = name.partition(".")[0]
            if root not in ("model", "loss", "optimizer", "train") or name == "train.monitor":
                raise ValueError(
                    f"space names {name!r}; expected a field of model, loss, optimizer or train "
                    "(not train.monitor): no other field changes a fit on one etl stage"
                )
            asked = values.only_if if isinstance(values, Range) else {}
            if missing := [other for other in asked if other not in before]:
                raise ValueError(
                    f"space draws {name!r} only if {missing[0]!r} has a value; expected that field "
                    f"in the space before it, which holds: {', '.join(sorted(before)) or 'nothing'}"
                )
            before.add(name)


class TrackingConfig(Part, frozen=True):
    """Where a fit is recorded beside its own history.json.

    Attributes:
        kind: the tracker; it needs the `tracking` extra.
        uri: the URI of an MLflow server, or a folder; empty for one in the run's folder.
        experiment: the experiment of MLflow.
    """

    kind: Literal["mlflow", "tensorboard"]
    uri: str = ""
    experiment: str = "two-tower"


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


class Ranked(Part, frozen=True):
    """What lists are made of.

    Attributes:
        candidates: `catalogue` (every row of the item table) or `train` (items seen in training).
        exclude_seen: leave out what the user had before the cut.
    """

    candidates: Literal["catalogue", "train"] = "catalogue"
    exclude_seen: bool = True


class EvaluateConfig(Part, frozen=True):
    """The protocol that every printed figure follows.

    Attributes:
        baselines: what stands beside the two-tower, of `models.baselines`. Their hyper-parameters
            are chosen on the validation part, from a grid that stands with each and goes on where
            its best point lies at an edge.
        ks: list lengths.
        exclude_seen: leave out what the user had before the cut.
        candidates: `catalogue` (every row of the item table) or `train` (items seen in training).
        also: other lists to measure beside the headline's, row by row.
        train_rows: say, too, how many of the training rows the models give back, seen items kept.
        bootstrap: resamples of an interval.
        level: the level of an interval.
        seed: the seed of resampling and of the random baseline.
    """

    baselines: tuple[Baseline, ...] = BASELINES
    ks: Annotated[tuple[Length, ...], Meta(max_length=100)] = (10, 20, 50, 100)
    exclude_seen: bool = True
    candidates: Literal["catalogue", "train"] = "catalogue"
    also: Annotated[tuple[Ranked, ...], Meta(max_length=100)] = ()
    train_rows: bool = False
    bootstrap: Times = 1000
    level: Annotated[float, Meta(gt=0, lt=1)] = 0.95
    seed: NonNegative = 1

    def __post_init__(self) -> None:
        if not self.ks or list(self.ks) != sorted(set(self.ks)):
            raise ValueError(f"ks must rise and not be empty, got {list(self.ks)}")
        if len(set(self.baselines)) < len(self.baselines):
            raise ValueError(f"baselines names one twice, got {list(self.baselines)}")
