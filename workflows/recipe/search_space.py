"""What `tune` searches: fields of the recipe, and the values that they may take."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from models.core.fields import Part, Times

#: A value of a recipe's field.
Plain = bool | int | float | str | None


class Range(Part, frozen=True):
    """Numbers from `low` to `high`, on a logarithmic scale or not.

    Attributes:
        low: the smallest.
        high: the largest.
        log: draw on a logarithmic scale.
        only_if: fields that stand before in the space, and the values that they must have for this
            one to be drawn: `{model.normalize: true}`.
        otherwise: what the field is where they have others; null leaves it as it is in the recipe.
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
    """Return what `tune` searches where the recipe does not say.

    A low temperature goes with cosines only: dot products of any length find their own scale.

    Args:
        ordered: the model reads a history in the order of time.
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
    """What `tune` searches.

    Attributes:
        trials: fits in all.
        space: field of the recipe → choices, or a range. By default learning rate, width, dropout,
            cosines with their temperature, batch size, rows of a user and epoch, and, where there
            is a history in the order of time, how fast it fades.
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
