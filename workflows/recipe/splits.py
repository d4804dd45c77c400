"""Parts of a recipe that say which interactions are held out for validation and test."""

from __future__ import annotations

from models.core.fields import NonNegative, Part, Positive, Share

#: A share of all rows or users, or their number.
Amount = Share | NonNegative


def _check_shares(valid: float, test: float) -> None:
    """Refuse shares of held-out rows that leave no rows for training.

    Numbers of held-out rows are checked once the data is read.
    """
    if sum(amount for amount in (valid, test) if isinstance(amount, float)) >= 1:
        raise ValueError(
            f"valid and test are shares; together they must be below 1, got {valid} + {test}"
        )


class LeaveLast(Part, frozen=True, tag_field="kind", tag="leave_last"):
    """A split of each user's rows: the last `test` are for test, `valid` before for validation."""

    valid: Positive = 1
    test: Positive = 1


class GlobalTime(Part, frozen=True, tag_field="kind", tag="time"):
    """A split by one cut in time for all users: the latest rows are held out, as shares of all.

    Rows with equal times stay together, so that the parts of the split have only about the wanted
    shares; no part is left empty.
    """

    valid: Share = 0.1
    test: Share = 0.1

    def __post_init__(self) -> None:
        _check_shares(self.valid, self.test)


class RandomRows(Part, frozen=True, tag_field="kind", tag="random"):
    """A split by rows: those held out are drawn at random, as a share of all rows or a number.

    Some training rows are then later than held-out rows. The random split is for comparison with
    papers that use it.
    """

    valid: Amount = 0.1
    test: Amount = 0.1
    seed: NonNegative = 1

    def __post_init__(self) -> None:
        _check_shares(self.valid, self.test)


class ByUser(Part, frozen=True, tag_field="kind", tag="by_user"):
    """A split by users: those held out are drawn at random, and training has none of their rows."""

    valid: Amount = 0.1
    test: Amount = 0.1
    seed: NonNegative = 1

    def __post_init__(self) -> None:
        _check_shares(self.valid, self.test)


class GivenFiles(Part, frozen=True, tag_field="kind", tag="given"):
    """A split by files: `interactions` has the training rows, `valid` and `test` the others."""

    test: str
    valid: str | None = None


Split = LeaveLast | GlobalTime | RandomRows | ByUser | GivenFiles
