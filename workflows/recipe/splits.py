"""Parts of a recipe: what is held out."""

from __future__ import annotations

from models.core.fields import NonNegative, Part, Positive, Share

#: A share of all, or how many.
Amount = Share | NonNegative


def _check_shares(valid: float, test: float) -> None:
    """Refuse shares that leave nothing to train on; of counts only the data can tell."""
    if sum(amount for amount in (valid, test) if isinstance(amount, float)) >= 1:
        raise ValueError(
            f"valid and test are shares; together they must be below 1, got {valid} + {test}"
        )


class LeaveLast(Part, frozen=True, tag_field="kind", tag="leave_last"):
    """Each user's last `test` rows, the `valid` rows before them, and the rest to train on."""

    valid: Positive = 1
    test: Positive = 1


class GlobalTime(Part, frozen=True, tag_field="kind", tag="time"):
    """One cut for all users: the last rows in time, as shares of all rows.

    Rows of one time stay together: a cut lies between two times, as near to the asked share as they
    allow, and leaves no part empty.
    """

    valid: Share = 0.1
    test: Share = 0.1

    def __post_init__(self) -> None:
        _check_shares(self.valid, self.test)


class RandomRows(Part, frozen=True, tag_field="kind", tag="random"):
    """Rows drawn at random: a share, or so many. It leaks the future; to compare with papers."""

    valid: Amount = 0.1
    test: Amount = 0.1
    seed: NonNegative = 1

    def __post_init__(self) -> None:
        _check_shares(self.valid, self.test)


class ByUser(Part, frozen=True, tag_field="kind", tag="by_user"):
    """Users drawn at random: a share, or so many; those of valid and test are new to training."""

    valid: Amount = 0.1
    test: Amount = 0.1
    seed: NonNegative = 1

    def __post_init__(self) -> None:
        _check_shares(self.valid, self.test)


class GivenFiles(Part, frozen=True, tag_field="kind", tag="given"):
    """Sources that are already split; `interactions` names the training rows."""

    test: str
    valid: str | None = None


Split = LeaveLast | GlobalTime | RandomRows | ByUser | GivenFiles
