"""A recipe's block `tune`: the fields (hyper-parameters) to search, and their possible values."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from models.core.fields import Part, Times

#: A value of a field of the recipe.
Plain = bool | int | float | str | None


class Range(Part, frozen=True):
    """A range of a hyper-parameter in `tune`: numbers from `low` to `high`, linear or logarithmic.

    Attributes:
        low: the smallest number of the range.
        high: the largest number of the range.
        log: whether numbers are drawn on a logarithmic scale.
        only_if: values that earlier fields of the search space must have, such as
            `{model.normalize: true}`, for this field to be drawn.
        otherwise: the field's value if the earlier fields have other values; null leaves the
            recipe's value.
    """

    low: float
    high: float
    log: bool = False
    only_if: dict[str, Plain] = msgspec.field(default_factory=dict)
    otherwise: Plain = None

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(
                f"a range goes up (from above 0 with log), got {self.low}, {self.high}"
            )
        if self.otherwise is not None and not self.only_if:
            raise ValueError("otherwise is for a range with only_if; this one is always drawn")


Choices = Annotated[tuple[Plain, ...], Meta(min_length=1, max_length=1_000)]
Space = dict[str, Choices | Range]


def usual_space(*, ordered: bool) -> Space:
    """Return the default search space of `tune` for a two-tower model.

    Low softmax temperatures are drawn only if the towers' outputs are normalised, because towers
    that are not normalised learn the scale of their scores.

    Args:
        ordered: whether user histories are in the order of time.
    """
    space: Space = {
        "optimizer.lr": Range(low=5e-4, high=1e-2, log=True),
        "model.dim": (32, 64, 128),
        "model.dropout": (0.0, 0.1, 0.2, 0.3, 0.4),
        "model.normalize": (False, True),
        "loss.temperature": Range(
            low=0.05, high=0.3, log=True, only_if={"model.normalize": True}, otherwise=1.0
        ),
        "train.batch_size": (256, 512, 1024),
        "train.max_rows_per_user": (20, 30, 50, None),
    }
    if ordered:
        space["model.encoder.decay"] = Range(low=2.0, high=200.0, log=True)
    return space


class TuneConfig(Part, frozen=True):
    """The settings of `tune`: the number of fits, and the search space of hyper-parameters.

    Attributes:
        trials: the number of fits with different hyper-parameters.
        space: name of a recipe field → the values to choose from, or their range. The default space
            has the learning rate, width, dropout, normalisation with its temperature, batch size,
            rows of a user in an epoch, and, if there is a history in the order of time, its decay.
    """

    trials: Times = 20
    space: Space | None = None

    def __post_init__(self) -> None:
        before: set[str] = set()
        for name, values in (self.space or {}).items():
            root = name.partition(".")[0]
            if root not in ("model", "loss", "optimizer", "train") or name == "train.monitor":
                raise ValueError(
                    f"space names {name!r}; expected a field of model, loss, optimizer or train "
                    "(not train.monitor): no other field changes a fit on one etl stage"
                )
            asked = values.only_if if isinstance(values, Range) else {}
            if missing := [other for other in asked if other not in before]:
                raise ValueError(
                    f"space draws {name!r} only if {missing[0]!r} has a value; expected that field "
                    f"in the space before it, which holds: {', '.join(sorted(before)) or 'nothing'}"
                )
            before.add(name)
