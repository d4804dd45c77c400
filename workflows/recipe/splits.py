"""Parts of a recipe that say which interactions are held out for validation and test."""

from __future__ import annotations

from models.core.fields import NonNegative, Part, Positive, Share

#: A share of all rows or users, or their number.
Amount = Share | NonNegative


def _check_shares(valid: float, test: float) -> None:
    """Refuse shares of held-out rows that leave no rows for training.

    Where the recipe gives numbers of rows instead, they are checked when the data is read.
    """
    if sum(amount for amount in (valid, test) if isinstance(amount, float)) >= 1:
        raise ValueError(
            f"valid and test are shares; together they must be below 1, got {valid} + {test}"
        )


class LeaveLast(Part, frozen=True, tag_field="kind", tag="leave_last"):
    """A split that holds out each user's last rows.

    Attributes:
        valid: number of rows of each user that are held out for valid: the rows just before the
            test rows.
        test: number of rows of each user that are held out for test: the last rows.
    """

    valid: Positive = 1
    test: Positive = 1


class GlobalTime(Part, frozen=True, tag_field="kind", tag="time"):
    """A split by time: the latest rows are held out, from the same time on for all users.

    Rows with equal times stay in the same part, so the shares are approximate; no part is empty.

    Attributes:
        valid: share of all rows that are held out for valid: the rows just before the test rows.
        test: share of all rows that are held out for test: the latest rows.
    """

    valid: Share = 0.1
    test: Share = 0.1

    def __post_init__(self) -> None:
        _check_shares(self.valid, self.test)


class RandomRows(Part, frozen=True, tag_field="kind", tag="random"):
    """A split by rows: held-out rows are drawn at random; their number or share is given.

    Some training rows are then later than held-out rows. A random split serves to compare with
    papers that use one.

    Attributes:
        valid: share or number of the rows that are held out for valid.
        test: share or number of the rows that are held out for test.
        seed: the random seed with which held-out rows are drawn.
    """

    valid: Amount = 0.1
    test: Amount = 0.1
    seed: NonNegative = 1

    def __post_init__(self) -> None:
        _check_shares(self.valid, self.test)


class ByUser(Part, frozen=True, tag_field="kind", tag="by_user"):
    """A split by users: users are drawn at random, and all their rows are held out.

    Attributes:
        valid: share or number of the users whose rows are held out for valid.
        test: share or number of the users whose rows are held out for test.
        seed: the random seed with which users are drawn.
    """

    valid: Amount = 0.1
    test: Amount = 0.1
    seed: NonNegative = 1

    def __post_init__(self) -> None:
        _check_shares(self.valid, self.test)


class GivenFiles(Part, frozen=True, tag_field="kind", tag="given"):
    """A split by files: train, valid and test are different sources of the recipe.

    The source that `interactions` names is the part train.

    Attributes:
        test: the source whose rows are the part test.
        valid: the source whose rows are the part valid; null for a split without this part.
    """

    test: str
    valid: str | None = None


Split = LeaveLast | GlobalTime | RandomRows | ByUser | GivenFiles
