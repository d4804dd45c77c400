"""What goes over the wire: questions, checked field by field, answers, and what was wrong."""

from __future__ import annotations

import contextvars
import json
import math
import reprlib
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from workflows.serve.limits import LIMITS
from workflows.stages.export import Wish

#: Faults of a question that are told, and that are looked for: each takes 16 microseconds, and a
#: body has room for 100,000.
MAX_FAULTS, MANY = 20, 1000
_LONGEST_NAME = 80
#: Fields up to which nobody counts the unknown ones.
_FEW = 8

#: How many faults have been found in the question that is being checked.
_found: contextvars.ContextVar[int] = contextvars.ContextVar("found", default=0)

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 80
_short.maxlevel = 3


def _value(value: object) -> object:
    """Let pass what a raw tower takes: text, a number, lists of either, or null for a gap."""
    if value is None or _is_text(value) or _is_float(value):
        return value
    if isinstance(value, list) and all(map(_is_text, value)):
        return value
    if isinstance(value, list) and all(map(_is_float, value)):
        return value
    if _found.get() >= MANY:  # the question is refused anyway
        return None
    _found.set(_found.get() + 1)
    raise PydanticCustomError("raw_value", "text, a finite number, a list of texts or null")


def _is_text(value: object) -> bool:
    """Say whether a value is text that has bytes: half of a surrogate pair has none."""
    return isinstance(value, str) and (
        value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value)
    )


def _is_float(value: object) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:  # an int beyond 1e308
        return False


Id = Annotated[str, Field(min_length=1, max_length=1000)]
Value = Annotated[str | float | list[str] | list[float] | None, BeforeValidator(_value)]
Features = Annotated[dict[str, Value], Field(max_length=LIMITS.batch)]


class _Question(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _not_too_many_faults(cls, told: object) -> object:
        """Leave out unknown fields where enough of them have been found."""
        if not isinstance(told, dict) or len(told) <= _FEW:
            return told
        unknown = [name for name in told if name not in cls.model_fields]
        room = max(0, MANY - _found.get())
        _found.set(_found.get() + len(unknown))
        left_out = set(islice(unknown, room, None))
        return {name: value for name, value in told.items() if name not in left_out}


class Asked(BaseModel):
    """What lists may hold; as a query string or as a part of a body."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    k: int = Field(10, ge=1, le=LIMITS.k, description="Length of a list.")
    keep_seen: bool = Field(False, description="Show what the user had before, too.")
    only: list[str] = Field(
        [], max_length=LIMITS.rules, description="Rules column=value that every item meets."
    )
    deny: list[Id] = Field([], max_length=LIMITS.batch, description="Ids of items not to be shown.")

    def wish(self) -> Wish:
        """Return it as an export takes it."""
        return Wish(self.k, self.keep_seen, tuple(self.only), tuple(self.deny))


class _Body(_Question):
    @model_validator(mode="before")
    @classmethod
    def _begin(cls, told: object) -> object:
        """Forget the faults of the question before."""
        _found.set(0)
        return told


class Asker(_Question):
    """Somebody who wants a list: known by id, or told by raw values, or both."""

    id: Id | None = None
    features: Features = Field(
        default_factory=dict,
        description="Raw values of the query tower's inputs; what is not told comes from the "
        "user's row, or is missing.",
    )

    @model_validator(mode="after")
    def _somebody(self) -> Asker:
        if self.id is None and not self.features:
            raise PydanticCustomError("nobody", "an id, features, or both")
        return self


class RecommendBody(Asked, _Body):
    """A batch of users, and what all their lists may hold."""

    users: list[Asker] = Field(min_length=1, max_length=LIMITS.batch)


class EmbedBody(_Body):
    """Raw rows of users or items."""

    users: list[Features] = Field([], max_length=LIMITS.batch)
    items: list[Features] = Field([], max_length=LIMITS.batch)


class Shown(BaseModel):
    """An item with its label columns."""

    item: str
    labels: dict[str, str | None]


class Ranked(Shown):
    """An item of a list."""

    rank: int
    score: float


class UserList(BaseModel):
    """A user's list; `answered_by` is two-tower, raw features, or the fallback that stood in."""

    user: str | None
    answered_by: str
    items: list[Ranked]


class OneList(UserList):
    """The list of one user."""

    export: str = Field(description="Which export answered: the beginning of its digest.")


class Lists(BaseModel):
    """One list for each user of the question, in its order."""

    export: str = Field(description="Which export answered: the beginning of its digest.")
    lists: list[UserList]


class History(BaseModel):
    """What a user did before the cut, newest first."""

    export: str
    user: str
    known: bool
    items: list[Shown]


class Similar(BaseModel):
    """The items most like one."""

    export: str
    item: str
    items: list[Ranked]


class Embedded(BaseModel):
    """One embedding for each row of the question, in its order."""

    export: str
    users: list[list[float]]
    items: list[list[float]]


class Health(BaseModel):
    """What is loaded."""

    status: str
    run: str
    recipe: str
    recipe_hash: str
    export: str
    exported: str
    as_of: str
    users: int
    items: int


class Fault(BaseModel):
    """What is wrong with a question, and where."""

    field: str
    got: str
    expected: str


class Faults(BaseModel):
    """Why a question was refused."""

    faults: list[Fault]
    more: int = Field(
        0, description="How many more faults were found; the search ends after a thousand."
    )


class Refused(Exception):
    """A question that gets an HTTP error.

    Args:
        status: HTTP's.
        faults: what is wrong.
        more: how many faults there are beside them.
        headers: the headers of the answer.
    """

    def __init__(
        self,
        status: int,
        *faults: Fault,
        more: int = 0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, faults)
        self.status, self.headers = status, headers
        more += len(faults[MAX_FAULTS:])
        self.body = Faults(faults=list(faults[:MAX_FAULTS]), more=more)


def fault(field: str, got: object, expected: str) -> Fault:
    """Return a fault; what came is cut short."""
    return Fault(field=field, got=_short.repr(got), expected=expected)


def refused(errors: Sequence[Mapping[str, Any]]) -> Refused:
    """Return pydantic's errors in our words: `body.users[0].id`, what came, what was expected."""
    told = [fault(_place(e), e.get("input"), _expected(e)) for e in errors[:MAX_FAULTS]]
    return Refused(422, *told, more=len(errors) - len(told))


def _place(error: Mapping[str, Any]) -> str:
    # of what is no JSON, pydantic gives the number of a character
    return "body" if error["type"] == "json_invalid" else place(*error["loc"])


def place(*parts: str | int) -> str:
    """Return where something stands: `body.users[0].features["a b"]`."""
    return "".join(_step(part) for part in parts).lstrip(".")


def _step(part: str | int) -> str:
    if isinstance(part, int):
        return f"[{part}]"
    plain = part.isidentifier() and len(part) <= _LONGEST_NAME
    return f".{part}" if plain else f"[{json.dumps(part[:_LONGEST_NAME])}]"


def _expected(error: Mapping[str, Any]) -> str:
    if error["type"] == "extra_forbidden":
        return "no such field"
    if error["type"] == "json_invalid":
        return f"JSON; at character {error['loc'][-1]}: {error['ctx']['error']}"
    text = str(error["msg"])
    return text.removeprefix("Input should be ").removeprefix("Value error, ")
