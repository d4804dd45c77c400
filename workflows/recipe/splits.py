"""Parts of a recipe: what is held out."""

from __future__ import annotations

from models.config import NonNegative, Part, Positive, Share


def _check_shares(valid: float, test: float) -> None:
    if valid + test >= 1:
        raise ValueError(
            f"valid and test are shares; together they must be below 1, got {valid} + {test}"
        )


class LeaveLast(Part, frozen=True, tag_field="kind", tag="leave_last"):
    """Each user's last `test` rows, the `valid` rows before them, and the rest to train on."""

    valid: Positive = 1
    test: Positive = 1


class GlobalTime(Part, frozen=True, tag_field="kind", tag="time"):
    """One cut for all users: the last rows in time, as shares of all rows.

    A row belongs to train up to and including the time quantile 1 - valid - test.
    """

    valid: Share = 0.1
    test: Share = 0.1

    def __post_init__(self) -> None:
        _check_shares(self.valid, self.test)


class RandomRows(Part, frozen=True, tag_field="kind", tag="random"):
    """Rows drawn at random, as shares. It leaks the future; for comparison with papers."""

    valid: Share = 0.1
    test: Share = 0.1
    seed: NonNegative = 1

    def __post_init__(self) -> None:
        _check_shares(self.valid, self.test)


class ByUser(Part, frozen=True, tag_field="kind", tag="by_user"):
    """Users drawn at random, as shares: valid and test users are unknown in training."""

    valid: Share = 0.1
    test: Share = 0.1
    seed: NonNegative = 1

    def __post_init__(self) -> None:
        _check_shares(self.valid, self.test)


class GivenFiles(Part, frozen=True, tag_field="kind", tag="given"):
    """Sources that are already split; `interactions` names the training rows."""

    test: str
    valid: str | None = None


Split = LeaveLast | GlobalTime | RandomRows | ByUser | GivenFiles
