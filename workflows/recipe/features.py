"""Parts of a recipe: features, the values that get codes, and user histories."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta

from models.core.fields import Buckets, Length, NonNegative, Part, Positive, Share
from workflows.recipe import time_formats
from workflows.recipe.kinds import BY_ROLE, KINDS, OWN_FIELDS, kinds_that_take
from workflows.recipe.kinds.base import Kind

if TYPE_CHECKING:
    KindName = str
else:
    KindName = Literal[tuple(KINDS)]


class VocabularyRule(Part, frozen=True):
    """The rule that says which values of a categorical column get codes of their own.

    Attributes:
        min_count: the least number of training rows that a value must have to get a code.
        max_values: the greatest number of values that get codes; the most frequent values are
            taken.
        oov_buckets: the number of codes that all other values share; a hash decides which value
            gets which code.
    """

    min_count: Positive = 1
    max_values: Positive | None = None
    oov_buckets: Buckets = 1


class Feature(Part, frozen=True):
    """A column of the data, declared in a recipe: its role, its kind, and its use by the models.

    Attributes:
        role: `user` and `item` describe users and items; `context` describes the interaction and is
            an input of the query tower; `time` orders the interactions; `weight` multiplies the
            loss of an interaction.
        id: whether the feature is the id of users or of items.
        kind: `category` (one value), `categories` (a list of values), `number`, `label` (text for
            people, which no model takes), `weights` (a list of numbers, one for each value of a
            list), or `vector` (a list of `dim` numbers); workflows/recipe/kinds/ defines each of
            them.
        separator: the text that separates the values in a cell of `categories`, `weights` or a
            `vector`; null if cells are lists already.
        weights: the feature of kind `weights` with the weights of the `categories`; the tower then
            takes the weighted mean of their embeddings.
        fill: the value that replaces a missing `number`; `error` refuses missing numbers.
        indicator: whether the tower gets a second input that says whether the number was missing.
        input: whether the tower of the feature's role takes the feature as an input; an id that is
            no input still identifies the rows.
        vocabulary: the vocabulary rule for this column; the default is the rule of the recipe.
        dim: the length of the lists of a `vector`.
        normalize: whether the towers divide each `vector` by its L2 norm.
        dropout: share of the numbers of each `vector` that become 0 at random in training.
        unit: the unit of a `time` that is a number, counted from 1970: s, ms, us, ns, or d for
            days. `order` means that the numbers only order the events and are not dates. By default
            the unit is seconds, and numbers that would be implausible dates are refused.
        format: the format of a `time` that is not ISO 8601: directives of strptime, such as
            `%m/%d/%Y %H:%M`, `yyyymmdd` for dates such as 20240703, as text or numbers, or `excel`
            for the days that spreadsheets count.
    """

    role: Literal["user", "item", "context", "time", "weight"]
    id: bool = False
    kind: KindName = "category"
    separator: Annotated[str, Meta(min_length=1)] | None = None
    weights: str | None = None
    fill: Literal["error", "median", "mean"] | Annotated[float, Meta(ge=-1e18, le=1e18)] = "error"
    indicator: bool = False
    input: bool = True
    vocabulary: VocabularyRule | None = None
    dim: Annotated[int, Meta(ge=1, le=4_096)] | None = None
    normalize: bool = False
    dropout: Share = 0.0
    unit: Literal["s", "ms", "us", "ns", "d", "order"] | None = None
    format: Annotated[str, Meta(min_length=1)] | None = None

    def __post_init__(self) -> None:
        if self.id and (self.role not in ("user", "item") or not self.meaning.is_category):
            raise ValueError("an id has role user or item and kind category")
        self._check_kind()
        if (self.unit or self.format) and self.role != "time":
            raise ValueError(f"{'unit' if self.unit else 'format'} is for role time")
        if self.unit and self.format:
            raise ValueError("a time has either a unit or a format")
        if self.format:
            time_formats.check(self.format)

    def _check_kind(self) -> None:
        of_kind = KINDS[self.kind]
        of_kind.check(self)
        for field in OWN_FIELDS:
            is_given = getattr(self, field) != _DEFAULTS[field]
            if is_given and not (field in of_kind.takes and field in self.meaning.takes):
                names = kinds_that_take(field)
                plural = "s" if len(names) > 1 else ""
                raise ValueError(f"{field} is for kind{plural} {' and '.join(names)}")
        self.meaning.check(self)

    @property
    def meaning(self) -> Kind:
        """The object that implements the kind; roles time and weight have kinds of their own."""
        return BY_ROLE.get(self.role, KINDS[self.kind])


#: Field of a feature → its default.
_DEFAULTS = dict(
    zip(reversed(Feature.__struct_fields__), reversed(Feature.__struct_defaults__), strict=False)
)


def refuse_duplicates(field: str, names: Sequence[str]) -> None:
    """Raise ValueError if a recipe field that lists names has the same name twice."""
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{field} names {twice!r} twice; name each once")


class Events(Part, frozen=True):
    """The kinds of events in one log: one kind is predicted, and histories keep the kinds apart.

    Attributes:
        column: the column with the kind of event of each row.
        kinds: the kinds of events that have histories: one list for each kind and column.
        target: the kind of event to predict. Only rows of this kind stay in train, valid and test;
            vocabularies count the values of all rows.
    """

    column: Annotated[str, Meta(min_length=1)]
    kinds: Annotated[tuple[str, ...], Meta(min_length=1)]
    target: str

    def __post_init__(self) -> None:
        refuse_duplicates("kinds", self.kinds)


class History(Part, frozen=True):
    """Settings of histories: for each interaction, the user's earlier items, as a query input.

    Attributes:
        columns: the item id and other item columns; column c gives the input `history_c`, which
            shares the embeddings of c.
        max_len: the greatest length of a history; the default is 200 if no feature is a time.
        keep: whether histories longer than `max_len` keep their `latest` or their `earliest` items.
            Without a time, `latest` means a sample of the user's rows, drawn by `seed`.
        before: which rows of a user count as earlier: every `event` that comes before in the order
            of time (ties in the order of the file), or the rows of an earlier `second` or `day`.
            With `others`, which needs no times, the history of a train row is all other train rows
            of the user, and the history of a valid or test row is all rows of earlier parts. The
            choice `others` suits a split without regard to time, and is the default if no feature
            is a time.
        seed: the seed of the random sample of a user's rows.
        events: separate histories for each kind of event, only for offer models; column c gives the
            inputs `history_<kind>_c`.
    """

    columns: Annotated[tuple[str, ...], Meta(min_length=1)]
    max_len: Length = 50
    keep: Literal["latest", "earliest"] = "latest"
    before: Literal["event", "second", "day", "others"] = "event"
    seed: NonNegative = 1
    events: Events | None = None

    def __post_init__(self) -> None:
        refuse_duplicates("columns", self.columns)
        if self.before == "others" and (self.events or self.keep == "earliest"):
            raise ValueError("before: others goes with keep: latest, and without events")

    @property
    def inputs(self) -> dict[str, str]:
        """A map from each history input of the query tower to the item column that it lists."""
        if self.events is None:
            return {f"history_{column}": column for column in self.columns}
        kinds = self.events.kinds
        return {f"history_{kind}_{c}": c for kind in kinds for c in self.columns}
