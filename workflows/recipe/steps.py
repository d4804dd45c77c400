"""Parts of a recipe: what is made of raw tables: look-ups, a pivot, new columns."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from models.core.fields import NonNegative, Part, Positive
from workflows.recipe.kinds.base import Cells

Text = Annotated[str, Meta(min_length=1)]
#: A level of a path. Deeper ones are no categories of a shop but a damaged separator.
Depth = Annotated[int, Meta(ge=1, le=100)]


class Join(Part, frozen=True):
    """Look up the columns of a user or item table by their id.

    Attributes:
        table: name of a source with one row an id.
        on: the id column, in both tables.
        on_missing: what becomes of an interaction whose id is not in the table: `keep` it with
            missing values, `drop` it, or `fill` in the values of `fill`.
        fill: column → value for ids that are not in the table; columns that are not listed stay
            missing. It says nothing of missing cells in the table's own rows.
    """

    table: str
    on: str
    on_missing: Literal["keep", "drop", "fill"] = "keep"
    fill: dict[str, float | str] = {}  # noqa: RUF012 - msgspec copies it

    def __post_init__(self) -> None:
        if (self.on_missing == "fill") != bool(self.fill):
            raise ValueError("on_missing: fill goes with values in `fill`, and with no others")


class Pivot(Part, frozen=True):
    """One row a user and item, with how often each kind of event happened, and first when.

    What a row is then said by its ids, its counts, its time and the joined tables.

    Attributes:
        event: the column that names the kind of event.
        counts: kind of event → column with its count; other kinds are not counted.
    """

    event: Text
    counts: Annotated[dict[Text, Text], Meta(min_length=1)]

    def __post_init__(self) -> None:
        names = list(self.counts.values())
        if len(set(names)) < len(names):
            raise ValueError(f"each kind of event needs a column of its own, got {names}")


class Derived(Part, frozen=True):
    """A new column `to`, made of the column `of` wherever that lives: in the log or a side table.

    A step reads raw columns, features or what an earlier step made. What it makes may be declared
    among the features, or serve the next steps only.
    """

    reads: ClassVar[Cells]
    gives: ClassVar[Cells]
    #: Whether it learns from the training rows, so that its column is known only after the split.
    fitted: ClassVar[bool] = False

    of: Text
    to: Text


class DatePart(Derived, frozen=True, tag_field="kind", tag="date_part"):
    """A part of a date, UTC; the date is the feature of role time, or ISO 8601 text.

    Attributes:
        part: `month` is 1-12, `weekday` 0-6 from Monday, `epoch_day` days since 1970.
    """

    reads: ClassVar[Cells] = "time"
    gives: ClassVar[Cells] = "number"

    part: Literal["year", "month", "day", "weekday", "hour", "epoch_day"]


class CyclicMonth(Derived, frozen=True, tag_field="kind", tag="cyclic_month"):
    """sin or cos of 2 pi (month + offset) / 12, so that December lies beside January."""

    reads: ClassVar[Cells] = "time"
    gives: ClassVar[Cells] = "number"

    part: Literal["sin", "cos"]
    offset: Annotated[int, Meta(ge=-12, le=12)] = -1


class Bins(Derived, frozen=True, tag_field="kind", tag="bins"):
    """The label of the interval in which a number lies; an edge belongs to the interval below it.

    Attributes:
        edges: rising; they part the line into one interval more than there are edges.
        labels: one for each interval.
    """

    reads: ClassVar[Cells] = "number"
    gives: ClassVar[Cells] = "text"

    edges: Annotated[tuple[float, ...], Meta(min_length=1)]
    labels: tuple[Text, ...]

    def __post_init__(self) -> None:
        if any(low >= high for low, high in zip(self.edges, self.edges[1:], strict=False)):
            raise ValueError(f"edges must rise, got {list(self.edges)}")
        if len(self.labels) != len(self.edges) + 1:
            raise ValueError(
                f"{len(self.edges)} edges part the line into {len(self.edges) + 1} intervals, but "
                f"there are {len(self.labels)} labels"
            )


class Log1p(Derived, frozen=True, tag_field="kind", tag="log1p"):
    """log(1 + x) of a number from 0 on, such as a count whose few largest values are huge."""

    reads: ClassVar[Cells] = "number"
    gives: ClassVar[Cells] = "number"


class Clip(Derived, frozen=True, tag_field="kind", tag="clip"):
    """A number, but at least `low` and at most `high`; one of them may be left out."""

    reads: ClassVar[Cells] = "number"
    gives: ClassVar[Cells] = "number"

    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        if self.low is None and self.high is None:
            raise ValueError("clip needs low, high or both")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low must not be above high, got {self.low:g} and {self.high:g}")


class PathLevel(Derived, frozen=True, tag_field="kind", tag="path_level"):
    """One level of a path such as `a.b.c`; missing where there is no path or it is not so deep.

    Attributes:
        level: from 1.
        levels: how deep a path may be; a deeper one is refused.
    """

    reads: ClassVar[Cells] = "text"
    gives: ClassVar[Cells] = "text"

    level: Depth
    levels: Depth
    separator: Text = "."

    def __post_init__(self) -> None:
        if self.level > self.levels:
            raise ValueError(f"level {self.level} is deeper than levels: {self.levels}")


class PriceCluster(Derived, frozen=True, tag_field="kind", tag="price_cluster"):
    """The rounded centre of a number's cluster; clusters are fitted on the training rows.

    Attributes:
        k: at most so many clusters.
        seed: the seed of the sample and the first centres.
        sample: training rows that the clusters are fitted on, if there are more.
        digits: decimals of the label; centres that round to one label share it.
    """

    reads: ClassVar[Cells] = "number"
    gives: ClassVar[Cells] = "text"
    fitted: ClassVar[bool] = True

    k: Annotated[int, Meta(ge=1, le=10_000)]
    seed: NonNegative = 1
    sample: Annotated[int, Meta(ge=1, le=100_000_000)] = 500_000
    digits: Annotated[int, Meta(ge=0, le=15)] = 0


class TopValues(Derived, frozen=True, tag_field="kind", tag="top_values"):
    """The n most frequent values of the training rows, ties by value; all others are `other`."""

    reads: ClassVar[Cells] = "text"
    gives: ClassVar[Cells] = "text"
    fitted: ClassVar[bool] = True

    n: Positive
    other: Text = "other"


Derive = DatePart | CyclicMonth | Bins | Log1p | Clip | PathLevel | PriceCluster | TopValues
