"""JSON bodies of requests and answers: their fields, their checks, and the reports of faults."""

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
from workflows.stages.recommender import ListOptions

#: Greatest number of faults of a request that are described, and that are counted: a fault takes
#: 16 microseconds, and a body has room for 100,000.
MAX_FAULTS, MAX_FAULTS_COUNTED = 20, 1000
_MAX_NAME = 80
#: In JSON objects of a request with at most this many fields, unknown fields are not counted.
_FEW_FIELDS = 8

#: Number of faults found so far in the request that is checked now.
_n_found: contextvars.ContextVar[int] = contextvars.ContextVar("n_found", default=0)

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 80
_short.maxlevel = 3


def _check_value(value: object) -> object:
    """Validate a raw feature value: text, a number, a list of either, or null if missing."""
    if value is None or _is_text(value) or _is_number(value):
        return value
    if isinstance(value, list) and all(map(_is_text, value)):
        return value
    if isinstance(value, list) and all(map(_is_number, value)):
        return value
    if _n_found.get() >= MAX_FAULTS_COUNTED:  # the request is refused for the faults before
        return None
    _n_found.set(_n_found.get() + 1)
    raise PydanticCustomError("raw_value", "text, a finite number, a list of either, or null")


def _is_text(value: object) -> bool:
    """Return whether a value is text that UTF-8 can encode; half a surrogate pair cannot be."""
    return isinstance(value, str) and (
        value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value)
    )


def _is_number(value: object) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:  # an int above 1e308
        return False


Id = Annotated[str, Field(min_length=1, max_length=1000)]
Value = Annotated[str | float | list[str] | list[float] | None, BeforeValidator(_check_value)]
Features = Annotated[dict[str, Value], Field(max_length=LIMITS.batch)]


class _RequestModel(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _limit_unknown_fields(cls, value: object) -> object:
        """Drop the unknown fields of a request that exceed the number of faults to count."""
        if not isinstance(value, dict) or len(value) <= _FEW_FIELDS:
            return value
        unknown = [name for name in value if name not in cls.model_fields]
        room = max(0, MAX_FAULTS_COUNTED - _n_found.get())
        _n_found.set(_n_found.get() + len(unknown))
        dropped = set(islice(unknown, room, None))
        return {name: field for name, field in value.items() if name not in dropped}


class ListQuery(BaseModel):
    """Length and item filters of recommendation lists, from the query string or the body."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    k: int = Field(10, ge=1, le=LIMITS.k, description="Number of items in a list.")
    keep_seen: bool = Field(
        False, description="If true, lists may contain items that the user has seen."
    )
    only: list[str] = Field(
        [],
        max_length=LIMITS.rules,
        description="Rules column=value; each item of a list meets all of them.",
    )
    deny: list[Id] = Field(
        [], max_length=LIMITS.batch, description="Ids of items that lists must not contain."
    )

    def options(self) -> ListOptions:
        """Return the length and item filters of lists as the options that an export takes."""
        return ListOptions(self.k, self.keep_seen, tuple(self.only), tuple(self.deny))


class _Body(_RequestModel):
    @model_validator(mode="before")
    @classmethod
    def _reset_found(cls, value: object) -> object:
        """Reset the count of faults at the beginning of a request body."""
        _n_found.set(0)
        return value


class UserQuery(_RequestModel):
    """A user who gets a recommendation list, given by id, by raw values of features, or by both."""

    id: Id | None = Field(None, description="Id of the user.")
    features: Features = Field(
        default_factory=dict,
        description="Raw values of the inputs of the query tower. An input that is not given is "
        "taken from the stored row of the user; for a user without a stored row it is missing.",
    )

    @model_validator(mode="after")
    def _require_id_or_features(self) -> UserQuery:
        if self.id is None and not self.features:
            raise PydanticCustomError("empty_user", "an id, features, or both")
        return self


class RecommendBody(ListQuery, _Body):
    """A batch of users, and the length and item filters of their recommendation lists."""

    users: list[UserQuery] = Field(
        min_length=1, max_length=LIMITS.batch, description="The users; each gets a list."
    )


class EmbedBody(_Body):
    """Raw feature values of users and items for which embeddings are requested."""

    users: list[Features] = Field(
        [], max_length=LIMITS.batch, description="One row per user: inputs of the query tower."
    )
    items: list[Features] = Field(
        [], max_length=LIMITS.batch, description="One row per item: inputs of the item tower."
    )


class LabelledItem(BaseModel):
    """An item's id with its display columns, such as the title."""

    item: str = Field(description="Id of the item.")
    labels: dict[str, str | None] = Field(description="Label columns, such as the title.")


class RankedItem(LabelledItem):
    """A recommended or similar item, with its rank in the list and its score."""

    rank: int = Field(description="Place in the list, from 1.")
    score: float = Field(description="Score of the model; larger is better.")


class UserList(BaseModel):
    """The list of items recommended to one user, and the model that made it."""

    user: str | None = Field(description="Id of the user; null if none was given.")
    answered_by: str = Field(
        description="The model that made the list: two-tower; raw features, if the user was "
        "embedded from the given values; or the name of the fallback."
    )
    items: list[RankedItem] = Field(description="The items, best first.")


ExportDigest = Annotated[
    str, Field(description="The export that answered: the first 12 characters of its digest.")
]


class OneUserAnswer(UserList):
    """The list of items recommended to one user, and the export that it comes from."""

    export: ExportDigest


class ListsAnswer(BaseModel):
    """One list of recommended items for each user of the request, in the order of the request."""

    export: ExportDigest
    lists: list[UserList] = Field(description="The lists, one for each user of the request.")


class HistoryAnswer(BaseModel):
    """The last items that a user interacted with, newest first."""

    export: ExportDigest
    user: str = Field(description="Id of the user.")
    known: bool = Field(description="Whether the export has this user.")
    items: list[LabelledItem] = Field(description="The items, newest first.")


class SimilarItemsAnswer(BaseModel):
    """The items that are most similar to one item."""

    export: ExportDigest
    item: str = Field(description="Id of the item of the request.")
    items: list[RankedItem] = Field(description="The similar items, most similar first.")


class EmbeddingsAnswer(BaseModel):
    """One embedding for each user and item of the request, in the order of the request."""

    export: ExportDigest
    users: list[list[float]] = Field(description="The embeddings of the users.")
    items: list[list[float]] = Field(description="The embeddings of the items.")


class Health(BaseModel):
    """A description of the export from which the server answers now, and of its run."""

    status: str = Field(description="Always ready: before that, the server does not answer.")
    run: str = Field(description="Name of the run.")
    recipe: str = Field(description="Name of the recipe.")
    recipe_hash: str = Field(description="Hash of the recipe.")
    export: ExportDigest
    exported: str = Field(description="When the export was written.")
    as_of: str = Field(
        description="test: histories end before the test part; latest: they have all interactions."
    )
    users: int = Field(description="Number of users with an embedding.")
    items: int = Field(description="Number of items in the catalogue.")


class Fault(BaseModel):
    """One fault of a refused request: the field, what it held, and what it should hold."""

    field: str = Field(description="The field at fault, such as body.users[0].id.")
    got: str = Field(description="What the field held, shortened.")
    expected: str = Field(description="What the field should hold, or what to do.")


class Faults(BaseModel):
    """The faults for which a request was refused."""

    faults: list[Fault] = Field(description=f"The first faults, at most {MAX_FAULTS}.")
    more: int = Field(
        0,
        description="Number of further faults. The check of a request stops after about a "
        "thousand faults.",
    )


class Refusal(Exception):
    """Exception: a request is refused with an HTTP error.

    Args:
        status: the HTTP status of the error response.
        faults: the faults of the request.
        more: number of further faults of the request.
        headers: HTTP headers of the error response.
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
    """Return the description of a fault; the value that the request gave is shortened."""
    return Fault(field=field, got=_short.repr(got), expected=expected)


def refusal_of(errors: Sequence[Mapping[str, Any]]) -> Refusal:
    """Return the refusal, 422, that reports pydantic's errors in a request."""
    faults = [fault(_place_of(e), e.get("input"), _expected(e)) for e in errors[:MAX_FAULTS]]
    return Refusal(422, *faults, more=len(errors) - len(faults))


def _place_of(error: Mapping[str, Any]) -> str:
    # for text that is not JSON, pydantic's place is the number of a character
    return "body" if error["type"] == "json_invalid" else place(*error["loc"])


def place(*parts: str | int) -> str:
    """Return the place of a value in a request as text: `body.users[0].features["a b"]`."""
    return "".join(_step(part) for part in parts).lstrip(".")


def _step(part: str | int) -> str:
    if isinstance(part, int):
        return f"[{part}]"
    is_plain = part.isidentifier() and len(part) <= _MAX_NAME
    return f".{part}" if is_plain else f"[{json.dumps(part[:_MAX_NAME])}]"


def _expected(error: Mapping[str, Any]) -> str:
    if error["type"] == "extra_forbidden":
        return "no field of this name; /openapi.json has the names"
    if error["type"] == "json_invalid":
        return f"JSON; at character {error['loc'][-1]}: {error['ctx']['error']}"
    text = str(error["msg"])
    return text.removeprefix("Input should be ").removeprefix("Value error, ")
