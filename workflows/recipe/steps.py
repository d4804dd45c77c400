"""Parts of a recipe that change raw tables: joins, a pivot, and derived columns."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from models.core.fields import NonNegative, Part, Positive
from workflows.recipe.kinds.base import Cells

Text = Annotated[str, Meta(min_length=1)]
#: The number of a level of a path. Category paths have few levels; more are a wrong separator.
Depth = Annotated[int, Meta(ge=1, le=100)]


class Join(Part, frozen=True):
    """A step that adds the columns of a user or item table to each interaction, by the id.

    Attributes:
        table: name of a source with one row for each id.
        key: the user or item id column, which has the same name in the interactions and in the
            table.
        on_missing: the treatment of an interaction whose id is not in the table: `keep` gives it
            missing values, `drop` drops it, `fill` gives it the values of `fill`.
        fill: column → value for ids that are not in the table; other columns, and missing cells in
            the table's own rows, stay missing.
    """

    table: str
    key: str
    on_missing: Literal["keep", "drop", "fill"] = "keep"
    fill: dict[str, float | str] = {}  # noqa: RUF012 - msgspec copies it

    def __post_init__(self) -> None:
        if (self.on_missing == "fill") != bool(self.fill):
            raise ValueError("on_missing: fill goes with values in `fill`, and with no others")


class Pivot(Part, frozen=True):
    """A step that merges the events of a user and an item into one row, with event counts.

    After the pivot, a row keeps only its ids, event counts, first time and joined columns.

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
    """A step that derives a new column `to` from the column `of`, in each table with this column.

    A step reads raw columns, features, or columns of earlier steps. The new column may be a
    feature, or may serve later steps only.

    Attributes:
        of: the column that the step reads.
        to: the name of the new column.
    """

    reads: ClassVar[Cells]
    #: Types of cells that the step takes in place of `reads`, from a declared or derived column.
    also_reads: ClassVar[tuple[Cells, ...]] = ()
    gives: ClassVar[Cells]
    #: Whether the step learns from the training rows: its column then exists only after the split.
    fitted: ClassVar[bool] = False

    of: Text
    to: Text


class DatePart(Derived, frozen=True, tag_field="kind", tag="date_part"):
    """A step that takes a part of a date (UTC) from the time feature or from ISO 8601 text.

    Attributes:
        part: `month` is 1-12, `weekday` 0-6 from Monday, `epoch_day` days since 1970.
    """

    reads: ClassVar[Cells] = "time"
    also_reads: ClassVar[tuple[Cells, ...]] = ("text",)
    gives: ClassVar[Cells] = "number"

    part: Literal["year", "month", "day", "weekday", "hour", "epoch_day"]


class CyclicMonth(Derived, frozen=True, tag_field="kind", tag="cyclic_month"):
    """A step that gives the sine or cosine of 2 pi (month + offset) / 12.

    On this circle, December is as near to January as January is to February. The step reads a date,
    or a number from 1 to 12, such as the month from a step of kind date_part. If it reads a number,
    a request to the server may give the month in place of the date.

    Attributes:
        part: `sin` or `cos`. A month needs both: one of them alone has the same value for two
            months.
        offset: the number that is added to the month; -1 puts January at the angle 0.
    """

    reads: ClassVar[Cells] = "time"
    also_reads: ClassVar[tuple[Cells, ...]] = ("text", "number")
    gives: ClassVar[Cells] = "number"

    part: Literal["sin", "cos"]
    offset: Annotated[int, Meta(ge=-12, le=12)] = -1


class Bins(Derived, frozen=True, tag_field="kind", tag="bins"):
    """A step that gives the label of the interval in which a number lies.

    A number that is equal to an edge belongs to the interval below the edge.

    Attributes:
        edges: the borders of the intervals, in rising order; there is one more interval than edges.
        labels: the label of each interval.
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
    """A step that gives log(1 + x) of a number that is not negative, such as a count."""

    reads: ClassVar[Cells] = "number"
    gives: ClassVar[Cells] = "number"


class Clip(Derived, frozen=True, tag_field="kind", tag="clip"):
    """A step that limits a number to the range from `low` to `high`; one bound may be left out.

    Attributes:
        low: the lower bound, which replaces smaller numbers; null for no lower bound.
        high: the upper bound, which replaces larger numbers; null for no upper bound.
    """

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
    """A step that takes one level of a path such as `a.b.c`; missing if the path lacks the level.

    Attributes:
        level: the number of the level, from 1.
        levels: the greatest number of levels; a path with more levels is refused.
        separator: the text between two levels of a path.
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
    """A step that replaces a number, such as a price, by the rounded centre of its cluster.

    The clusters are fitted on the training rows.

    Attributes:
        k: the greatest number of clusters that are fitted.
        seed: the random seed of the sample of rows and of the first cluster centres.
        sample: the greatest number of training rows on which the clusters are fitted.
        digits: number of decimals of the centres; centres with the same rounded value share a
            label.
    """

    reads: ClassVar[Cells] = "number"
    gives: ClassVar[Cells] = "text"
    fitted: ClassVar[bool] = True

    k: Annotated[int, Meta(ge=1, le=10_000)]
    seed: NonNegative = 1
    sample: Annotated[int, Meta(ge=1, le=100_000_000)] = 500_000
    digits: Annotated[int, Meta(ge=0, le=15)] = 0


class TopValues(Derived, frozen=True, tag_field="kind", tag="top_values"):
    """A step that keeps the n most frequent training values of a column; ties are broken by value.

    All other values become `other`.

    Attributes:
        n: number of values that are kept.
        other: the value that replaces all other values.
    """

    reads: ClassVar[Cells] = "text"
    gives: ClassVar[Cells] = "text"
    fitted: ClassVar[bool] = True

    n: Positive
    other: Text = "other"


Derive = DatePart | CyclicMonth | Bins | Log1p | Clip | PathLevel | PriceCluster | TopValues
