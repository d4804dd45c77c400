"""Parts of a recipe: what a column is, which values get codes, what becomes a history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta

from models.core.fields import Buckets, Length, NonNegative, Part, Positive
from workflows.recipe import time_formats
from workflows.recipe.kinds import BY_ROLE, KINDS, OWN_FIELDS, kinds_that_take
from workflows.recipe.kinds.base import Kind

if TYPE_CHECKING:
    KindName = str
else:
    KindName = Literal[tuple(KINDS)]


class VocabularyRule(Part, frozen=True):
    """Which values of a column get a code of their own.

    Attributes:
        min_count: seen at least this often in training.
        max_values: only the most frequent ones.
        oov_buckets: codes that all other values share, by a hash.
    """

    min_count: Positive = 1
    max_values: Positive | None = None
    oov_buckets: Buckets = 1


class Feature(Part, frozen=True):
    """What a column is.

    Attributes:
        role: whose it is; `context` belongs to the interaction and feeds the query tower;
            `time` orders the interactions; `weight` is what an interaction counts in the loss.
        id: this is the user's or the item's id.
        kind: `category`, `categories` (a list), `number`, `label` (kept to be read by people), or
            `weights` (a list of numbers beside the values of a list).
        separator: splits a text cell into `categories` or `weights`; null where cells are lists
            already.
        weights: the column of kind `weights` that says what each of the `categories` counts; the
            tower takes their weighted mean.
        null: what a missing `number` becomes; `error` refuses it.
        indicator: give a number a second input that says whether it was missing.
        input: feed it to its tower; an id that is no input still names its rows.
        vocabulary: rules that differ from the recipe's.
        unit: what a `time` that is a number counts since 1970: s, ms, us, ns, or d for days.
            `order` says that the numbers only order the events and are no dates. Without it,
            numbers are seconds, and are refused where they would be dates that no log has.
        format: how a `time` is written that is not ISO 8601: directives of strptime such as
            `%m/%d/%Y %H:%M`, `yyyymmdd` for dates such as 20240703, as text or numbers, or
            `excel` for the days that spreadsheets count.
    """

    role: Literal["user", "item", "context", "time", "weight"]
    id: bool = False
    kind: KindName = "category"
    separator: Annotated[str, Meta(min_length=1)] | None = None
    weights: str | None = None
    null: Literal["error", "median", "mean"] | Annotated[float, Meta(ge=-1e18, le=1e18)] = "error"
    indicator: bool = False
    input: bool = True
    vocabulary: VocabularyRule | None = None
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
        """What the column means by its kind, or by a role that decides in place of it."""
        return BY_ROLE.get(self.role, KINDS[self.kind])


#: Field of a feature → its default.
_DEFAULTS = dict(
    zip(reversed(Feature.__struct_fields__), reversed(Feature.__struct_defaults__), strict=False)
)


class Events(Part, frozen=True):
    """Kinds of events in one log: some are what is to be predicted, others say what led there.

    Attributes:
        column: which names the kind of a row.
        kinds: those of which lists are made, one list a kind and column.
        target: the kind whose rows stay in the splits; rows of all kinds count for vocabularies.
    """

    column: Annotated[str, Meta(min_length=1)]
    kinds: Annotated[tuple[str, ...], Meta(min_length=1)]
    target: str


class History(Part, frozen=True):
    """Lists of what a user did before each interaction, as inputs of the query tower.

    Attributes:
        columns: the item id and other item columns; column c gives the input `history_c`, which
            shares the embeddings of c.
        max_len: at most so many; 200 is the default where the features have no time.
        keep: the `latest`, or the `earliest`, of more than that. Where there is no time, `latest`
            stands for a sample of the user's rows, drawn by `seed`.
        before: what is earlier: an `event` that stands before in the order of time (ties in the
            order of the file), or one of an earlier `second` or `day`. `others` needs no time: a
            row of train knows all other rows of train of its user, and a row of valid or test all
            rows of the parts before. It is for rows that were split without regard to time, and is
            the default where the features have no time.
        seed: the seed of the sample.
        events: a list of its own for each kind of event; column c gives the inputs
            `history_<kind>_c`. Only offer models take them.
    """

    columns: tuple[str, ...]
    max_len: Length = 50
    keep: Literal["latest", "earliest"] = "latest"
    before: Literal["event", "second", "day", "others"] = "event"
    seed: NonNegative = 1
    events: Events | None = None

    def __post_init__(self) -> None:
        if self.before == "others" and (self.events or self.keep == "earliest"):
            raise ValueError("before: others goes with keep: latest, and without events")

    @property
    def inputs(self) -> dict[str, str]:
        """Input column → item column."""
        if self.events is None:
            return {f"history_{column}": column for column in self.columns}
        kinds = self.events.kinds
        return {f"history_{kind}_{c}": c for kind in kinds for c in self.columns}
