"""Parts of a recipe that say which interactions are kept: the rules of the block `filter`."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from models.core.fields import NonNegative, Part, Positive
from workflows.recipe.columns import Known
from workflows.recipe.kinds.base import Cells
from workflows.recipe.steps import Derive, Text

#: Whether a rule drops rows before vocabularies and statistics are fitted, or after that.
Stage = Literal["before", "after"]


class Condition(Part, frozen=True):
    """A condition on the cell of a column. A missing cell does not meet any condition.

    Attributes:
        column: the raw, joined or derived column whose cells are compared.
        is_: the comparison operator, written `is` in a recipe.
        value: the value to compare with: a text for a text column, a number for a number column;
            for a time, seconds since the epoch or a date such as 2020-09-22 (UTC); `in` takes a
            list, `not_null` takes no value.
    """

    column: Text
    is_: Literal["==", "!=", ">=", ">", "<=", "<", "in", "not_null"] = msgspec.field(name="is")
    value: float | str | tuple[float | str, ...] | None = None

    def __post_init__(self) -> None:
        several = isinstance(self.value, tuple)
        if several != (self.is_ == "in") or (self.value is None) != (self.is_ == "not_null"):
            what = {"in": "a list of values", "not_null": "no value"}.get(self.is_, "one value")
            raise ValueError(f"is: {self.is_} takes {what}, got {self.value!r}")
        if self.value == ():
            raise ValueError("is: in takes a list of values, got none")
        if len({isinstance(value, str) for value in self.values}) > 1:
            raise ValueError(f"is: in takes numbers or texts, not both, got {list(self.values)}")

    @property
    def values(self) -> tuple[float | str, ...]:
        """The value or values that the condition compares a cell with."""
        if self.value is None:
            return ()
        return self.value if isinstance(self.value, tuple) else (self.value,)

    @property
    def reads(self) -> Cells:
        """The type of cells as which the column is read, if no feature declares the column."""
        return "number" if self.values and not isinstance(self.values[0], str) else "text"

    def __str__(self) -> str:
        values = ", ".join(v if isinstance(v, str) else _number(v) for v in self.values)
        return f"{self.column} {self.is_} {values}".strip()


def _number(value: float) -> str:
    return f"{value:.0f}" if value.is_integer() else repr(value)


class Keep(Condition, frozen=True, tag_field="kind", tag="keep"):
    """Keep only the interactions that meet a condition.

    Attributes:
        stage: whether rows are dropped `before` or `after` the rows are split and the vocabularies
            are learnt. With `after`, the split and the vocabularies still count the dropped rows.
        still_seen: whether the items of dropped rows count as seen by their users, so that items
            that a user disliked are not in the user's list. Dropped rows are no positives, and
            count neither for histories nor for popularity. With a split by time, a dropped row
            counts as seen if it is earlier than all held-out rows.
    """

    stage: Stage = "before"
    still_seen: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.still_seen and self.stage == "after":
            raise ValueError("still_seen is for rules of stage: before")


class UsersWith(Condition, frozen=True, tag_field="kind", tag="users_with"):
    """Keep all interactions of each user who has at least one interaction that meets a condition.

    To keep the train rows of a user, one of the train rows must meet the condition; to keep the
    valid rows, one of the train or valid rows; to keep the test rows, any row of the user.

    Attributes:
        stage: whether rows are dropped `before` or `after` the rows are split and the vocabularies
            are learnt. With `after`, the split and the vocabularies still count the dropped rows.
    """

    stage: Stage = "before"


class TopUsers(Part, frozen=True, tag_field="kind", tag="top_users"):
    """Keep the interactions of the n users with the most train rows; ties are broken by user id.

    Attributes:
        n: number of users whose interactions are kept.
        stage: whether rows are dropped `before` or `after` the rows are split and the vocabularies
            are learnt. With `after`, the split and the vocabularies still count the dropped rows.
    """

    n: Positive
    stage: Stage = "before"


class SampleUsers(Part, frozen=True, tag_field="kind", tag="sample_users"):
    """Keep the interactions of about a given share of the users, chosen by a hash of their ids.

    Attributes:
        share: share of the users whose interactions are kept.
        seed: the seed of the hash; another seed chooses other users.
        stage: whether rows are dropped `before` or `after` the rows are split and the vocabularies
            are learnt. With `after`, the split and the vocabularies still count the dropped rows.
    """

    share: Annotated[float, Meta(gt=0, lt=1)]
    seed: NonNegative = 1
    stage: Stage = "before"


class PerDay(Part, frozen=True, tag_field="kind", tag="per_day"):
    """Keep at most n interactions per user and day (UTC) in each part, chosen by a hash.

    Attributes:
        n: the greatest number of interactions of a user and day that are kept.
        seed: the seed of the hash; another seed chooses other interactions.
        stage: whether rows are dropped `before` or `after` the rows are split and the vocabularies
            are learnt. With `after`, the split and the vocabularies still count the dropped rows.
    """

    n: Positive = 8
    seed: NonNegative = 1
    stage: Stage = "before"


Filter = Keep | UsersWith | TopUsers | SampleUsers | PerDay
#: Filter rules that decide about each interaction alone.
OF_ONE_ROW = (Keep, SampleUsers)


def check_filter(columns: Known, derive: Sequence[Derive], rules: Sequence[Filter]) -> None:
    """Raise ValueError if a filter rule does not fit its column or its place among the rules."""
    learnt = [step.to for step in derive if step.fitted]
    _refuse_late(rules)
    for rule in rules:
        if isinstance(rule, PerDay) and "time" not in columns.values():
            raise ValueError("filter per_day needs a feature with role time")
        if not isinstance(rule, Condition):
            continue
        if rule.stage == "before" and rule.column in learnt:
            raise ValueError(
                f"filter reads {rule.column!r}, which is learnt from the rows that it leaves; set "
                "`stage: after`"
            )
        _refuse_unlike(rule, columns.get(rule.column))


def _refuse_late(rules: Sequence[Filter]) -> None:
    """Refuse a rule about single rows that comes after a rule about all rows of a part."""
    before = [rule for rule in rules if rule.stage == "before"]
    for earlier, rule in itertools.pairwise(before):
        if isinstance(rule, OF_ONE_ROW) and not isinstance(earlier, OF_ONE_ROW):
            names = [r.__struct_config__.tag for r in (rule, earlier)]
            raise ValueError(
                f"filter {names[0]} comes after {names[1]}, but is done first: it looks at one row "
                f"alone, and {names[1]} at all rows of the parts. Put it before, or set its "
                "`stage: after`"
            )


def _refuse_unlike(rule: Condition, found: Cells | None) -> None:
    fits = True
    if rule.values and found == "time" and rule.reads == "text":
        fits = all(_is_date(value) for value in rule.values)
    elif rule.values and found is not None:
        fits = found != "lists" and (found == "text") == (rule.reads == "text")
    if not fits:
        raise ValueError(
            f"filter compares {rule.column!r}, a {found} column, with {rule.value!r}; a number is "
            "compared with a number, text with (quoted) text, a time with seconds or a date such "
            "as 2020-09-22, and lists with nothing"
        )


def _is_date(value: float | str) -> bool:
    try:
        dt.datetime.fromisoformat(str(value))
    except ValueError:
        return False
    return True
