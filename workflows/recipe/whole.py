"""The whole recipe: all its blocks, and the checks of rules that concern several blocks."""

from __future__ import annotations

import hashlib
from operator import attrgetter
from typing import Any, Literal

import msgspec

from models.core.column_names import HISTORY_AGES
from models.core.config import PriorConfig
from models.core.fields import Name, Part
from models.encoders.config import AttentionConfig
from models.losses.config import LossConfig
from models.offers.config import OffersConfig, TasksConfig
from models.towers.config import ModelConfig, TwoTowerConfig
from models.training.config import OptimizerConfig, TrackingConfig, TrainConfig
from workflows.recipe.columns import (
    check_fill,
    check_made,
    check_order,
    known,
    raw_features,
)
from workflows.recipe.features import Feature, History, VocabularyRule, refuse_duplicates
from workflows.recipe.filters import Condition, Filter, check_filter
from workflows.recipe.kinds.base import Cells
from workflows.recipe.names import check_names
from workflows.recipe.protocol import EvaluateConfig, IndexConfig
from workflows.recipe.search_space import TuneConfig
from workflows.recipe.sources import Fetch, Source
from workflows.recipe.splits import GivenFiles, GlobalTime, LeaveLast, Split
from workflows.recipe.steps import Derive, Join, Pivot

#: Kind of model → the blocks of a recipe that it does not read. Blocks that a variant inherits from
#: a recipe of another kind, such as `loss`, are not refused.
_UNREAD = {
    "two_tower": ("tasks",),
    "popularity": ("tasks", "tracking"),
    "content": ("tasks", "tracking"),
    "offers": ("loss", "fallback", "index"),
}


class Recipe(Part, frozen=True):
    """A recipe: the data set, its split and encoding, and the model with its training.

    Attributes:
        name: name of the recipe, and the default name of its runs.
        sources: name of a raw table → its files and their format.
        interactions: the source whose rows are interactions.
        features: name of a column → its role, its kind and its use by the models.
        split: the rule by which interactions are held out for validation and test.
        description: one line about the data set, for the report.
        data: folder of the raw files, relative to the recipe's own folder.
        fetch: the package from which the verb `fetch` takes the raw files; null for none.
        pivot: the step that merges the interactions of a user and an item into one row.
        derive: the steps that derive new columns, in the order in which they are applied.
        join: the user table and the item table whose columns are added to the interactions.
        filter: the rules that say which interactions are kept, applied in this order within a
            stage.
        history: the histories of users, which are inputs of the query tower; null for none.
        vocabulary: the rule that says which values get codes of their own, for all columns that
            have no rule of their own.
        model: the kind of model, with its hyper-parameters.
        loss: the training loss of the two-tower model.
        optimizer: the optimiser of the training.
        prior: a prior for recent popularity, which is added to item scores; null for none.
        tracking: the tracker to which metrics are sent, such as MLflow; null for none.
        train: the training loop: batches, epochs and early stopping.
        tune: the search for hyper-parameters by the verb `tune`.
        evaluate: the baselines, list lengths and intervals of the verb `evaluate`.
        index: the search for the items with the highest scores.
        tasks: how offer models (`model.kind: offers`) are compared.
        fallback: how items are ranked for a user who is in no table and has no history: by
            `popularity`, or by the query `tower` with an unseen id and the inputs of the unknown
            user.
    """

    name: Name
    sources: dict[str, Source]
    interactions: str
    features: dict[str, Feature]
    split: Split
    description: str = ""
    data: str = "."
    fetch: Fetch | None = None
    pivot: Pivot | None = None
    derive: tuple[Derive, ...] = ()
    join: tuple[Join, ...] = ()
    filter: tuple[Filter, ...] = ()
    history: History | None = None
    vocabulary: VocabularyRule = VocabularyRule()
    model: ModelConfig | OffersConfig = TwoTowerConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    prior: PriorConfig | None = None
    tracking: TrackingConfig | None = None
    train: TrainConfig = TrainConfig()
    tune: TuneConfig = TuneConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    index: IndexConfig = IndexConfig()
    tasks: TasksConfig = TasksConfig()
    fallback: Literal["popularity", "tower"] = "popularity"

    def __post_init__(self) -> None:
        check_names(self.features, self.history, offers=self.has_offers)
        for role in ("user", "item"):
            ids = [n for n, f in self.features.items() if f.id and f.role == role]
            if len(ids) != 1:
                raise ValueError(
                    f"features need exactly one with role {role} and id: true, got {ids or 'none'}"
                )
        for role in ("time", "weight"):
            found = [n for n, f in self.features.items() if f.role == role]
            if len(found) > 1:
                raise ValueError(f"features may have one with role {role}, got {found}")
        times = [n for n, f in self.features.items() if f.role == "time"]
        if not times and isinstance(self.split, LeaveLast | GlobalTime):
            kind = self.split.__struct_config__.tag
            raise ValueError(
                f"split {kind} needs a feature with role time. Without a time, take a split of "
                "kind random (rows), by_user (users) or given (files)"
            )
        self._check_history(times)
        for name, feature in self.features.items():
            feature.meaning.check_among(name, self.features)
        self._check_model()
        named = [("interactions", self.interactions), *(("join", j.table) for j in self.join)]
        if isinstance(self.split, GivenFiles):
            named += [("split", s) for s in (self.split.valid, self.split.test) if s]
        for field, source in named:
            if source not in self.sources:
                raise ValueError(
                    f"{field} names {source!r}, which is not one of the sources "
                    f"({', '.join(self.sources)})"
                )
        for join in self.join:
            if join.key not in (self.user_id, self.item_id):
                raise ValueError(
                    f"join of {join.table!r} has the key {join.key!r}; expected the user id "
                    f"{self.user_id!r} or the item id {self.item_id!r}"
                )
        if len({j.key for j in self.join}) < len(self.join):
            raise ValueError("join may look up one table by the user id and one by the item id")
        self._check_offers()
        columns = known(self.features, self.derive, self.pivot)
        check_made(columns, self.features, self.derive, self.pivot)
        check_fill(columns, self.join, self.derive)
        check_order(self.features, self.derive, self.history)
        check_filter(columns, self.derive, self.filter)
        _ = self.raw_features

    def _check_history(self, times: list[str]) -> None:
        if self.history is None:
            return
        if not times and self.history.before != "others":
            raise ValueError(
                f"history.before: {self.history.before} needs a feature with role time. A history "
                "without time is a bag of the user's other rows: set before: others, or leave "
                "`before` out"
            )
        for column in self.history.columns:
            feature = self.features.get(column)
            if feature is None or feature.role != "item" or not feature.meaning.is_category:
                raise ValueError(f"history column {column!r} is no item feature of kind category")

    def _check_offers(self) -> None:
        if not isinstance(self.model, OffersConfig):
            if self.history and self.history.events:
                raise ValueError("history.events is for models of kind offers; set model.kind")
            return
        if self.history is None:
            raise ValueError(
                "models of kind offers need a history: its columns are the attributes of an offer"
            )
        if self.time is None:
            raise ValueError("models of kind offers need a feature with role time")
        if self.train.max_rows_per_user is not None:
            raise ValueError(
                "models of kind offers do not read train.max_rows_per_user: model.max_per_day "
                "bounds the rows of a user and day. Leave it out"
            )
        if self.tasks.source != "train" and not getattr(self.split, self.tasks.source, 1):
            raise ValueError(
                f"tasks.source is {self.tasks.source!r}, and the split has no such part; what "
                "belongs to an offer is learnt from its rows"
            )
        named = {name: model.attributes for name, model in self.model.models.items()}
        for place, columns in {**named, "tasks": self.tasks.attributes}.items():
            refuse_duplicates(f"attributes of {place}", columns)
            for column in columns:
                if column not in self.history.columns:
                    raise ValueError(
                        f"{place} names the attribute {column!r}; expected columns of history "
                        f"({', '.join(self.history.columns)})"
                    )

    def _check_model(self) -> None:
        kind = str(self.model.__struct_config__.tag)
        defaults = {field.name: field.default for field in msgspec.structs.fields(Recipe)}
        for name in _UNREAD.get(kind, ()):
            if getattr(self, name) != defaults[name]:
                raise ValueError(f"a model of kind {kind} does not read {name}: leave {name} out")
        biased = isinstance(self.model, TwoTowerConfig) and self.model.item_bias
        if self.prior and not biased:
            raise ValueError(
                "prior is a part of the item bias: it needs a model of kind two_tower with "
                "item_bias: true"
            )
        if self.time is None and (self.prior or getattr(self.model, "days", None)):
            what = "prior" if self.prior else "model.days"
            raise ValueError(
                f"{what} weighs rows by their age, which needs a feature with role time; leave it "
                "out where the data has no time"
            )
        dims = self.model.dims if isinstance(self.model, TwoTowerConfig) else {}
        for column, width in dims.items():
            feature = self.features.get(column)
            if feature is None or not feature.meaning.has_codes or not feature.input:
                raise ValueError(
                    f"model.dims names {column!r}, which is no input of kind category or categories"
                )
            if width == "one_hot" and feature.weights:
                raise ValueError(
                    f"model.dims makes {column!r} one_hot, which knows no weights; give it a "
                    f"width, or leave features.{column}.weights out"
                )

    @property
    def raw_features(self) -> dict[str, Feature]:
        """The columns that are read from raw files, as features; some are only for steps."""
        made = [step.to for step in self.derive]
        needed = [(step.of, step.reads) for step in self.derive]
        needed += [(r.column, r.reads) for r in self.filter if isinstance(r, Condition)]
        if self.history and self.history.events:
            needed.append((self.history.events.column, "text"))
        if self.pivot:
            made += self.pivot.counts.values()
            needed.append((self.pivot.event, "text"))
        return raw_features(self.features, made, needed)

    def of_raw_files(self) -> Recipe:
        """Return a copy of the recipe, for reading raw files: its features are the raw columns."""
        features = self.raw_features
        # histories and models use derived columns
        bare: dict[str, Any] = {"pivot": None, "derive": (), "join": ()}
        bare |= {"history": None, "model": TwoTowerConfig(), "tasks": TasksConfig()}
        # numbers that filters compare are read as float64
        rules = [r for r in self.filter if isinstance(r, Condition) and r.column in features]
        bare["filter"] = tuple(rules)
        return msgspec.structs.replace(self, features=features, **bare)

    @property
    def towers(self) -> ModelConfig:
        """The block `model` of a recipe without offer models: two towers, which rank all items."""
        assert not isinstance(self.model, OffersConfig)
        return self.model

    @property
    def has_offers(self) -> bool:
        """Whether the recipe has offer models, which rank users for an offer by their histories."""
        return isinstance(self.model, OffersConfig)

    @property
    def offer_attributes(self) -> list[str]:
        """The item attributes (such as brand) whose values can define an offer."""
        assert self.history is not None
        return list(self.history.columns)

    @property
    def offer_tasks(self) -> list[str]:
        """The names of the attributes whose values are the offers of evaluation and export."""
        return list(self.tasks.attributes) or self.offer_attributes

    def cells_read(self, step: Derive) -> Cells:
        """Return the type of the cells in the column that a derive step reads."""
        return known(self.features, self.derive, self.pivot).get(step.of, step.reads)

    @property
    def compared(self) -> set[str]:
        """Names of the columns that a filter of the recipe compares with numbers."""
        rules = [rule for rule in self.filter if isinstance(rule, Condition)]
        return {rule.column for rule in rules if rule.reads == "number"}

    def _id(self, role: str) -> str:
        return next(n for n, f in self.features.items() if f.id and f.role == role)

    @property
    def user_id(self) -> str:
        """Name of the column with user ids."""
        return self._id("user")

    @property
    def item_id(self) -> str:
        """Name of the column with item ids."""
        return self._id("item")

    @property
    def time(self) -> str | None:
        """Name of the column with the times of interactions; None if the recipe has no times."""
        return next((n for n, f in self.features.items() if f.role == "time"), None)

    @property
    def weight(self) -> str | None:
        """Name of the column with row weights for the loss; None if the recipe has none."""
        return next((n for n, f in self.features.items() if f.role == "weight"), None)

    @property
    def history_inputs(self) -> dict[str, str]:
        """A map from each history input of the query tower to the item column that it lists.

        The map is empty if the recipe has no history.
        """
        return self.history.inputs if self.history else {}

    @property
    def trains_on_sequences(self) -> bool:
        """Whether training batches hold sequences, with a target at every step, or single rows.

        This needs the history encoder `attention`, and histories of item ids alone that have all
        earlier rows of the user. Otherwise, a batch has single rows, each with its history.
        """
        history = self.history
        return (
            isinstance(self.model, TwoTowerConfig)
            and isinstance(self.model.encoder, AttentionConfig)
            and history is not None
            and history.before == "event"
            and history.keep == "latest"
            and history.columns == (self.item_id,)
        )

    @property
    def history_with_ages(self) -> str | None:
        """Name of the history input that comes with the ages of its items; None without ages.

        Ages are an input if batches hold sequences, the times are dates (not numbers that only
        order the events), and the encoder weights items by age.
        """
        time = self.features.get(self.time or "")
        if self.history is None or time is None or not self.trains_on_sequences:
            return None
        if self.towers.encoder.decay is None:  # type: ignore[union-attr]
            return None
        return None if time.unit == "order" else next(iter(self.history.inputs))

    @property
    def history_columns(self) -> list[str]:
        """Names of the query inputs that a history gives: lists of items, and their ages."""
        return [*self.history_inputs, *([HISTORY_AGES] if self.history_with_ages else [])]

    def columns(self, *roles: str) -> list[str]:
        """Return the names of the features with one of the given roles, in the recipe's order."""
        return [n for n, f in self.features.items() if f.role in roles]

    def vocabulary_rule(self, column: str) -> VocabularyRule:
        """Return the rule that says which values of a column get codes of their own."""
        return self.features[column].vocabulary or self.vocabulary

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain data for JSON, with the defaults filled in."""
        return msgspec.json.decode(msgspec.json.encode(self))

    def digest(self, *parts: str) -> str:
        """Return the SHA-256 of the recipe, or of named parts such as `train` or `evaluate.ks`."""
        chosen = {part: attrgetter(part)(self) for part in parts} if parts else self
        return hashlib.sha256(msgspec.json.encode(chosen, order="sorted")).hexdigest()
