"""Parts of a recipe: where raw rows come from, what they are joined with, which are kept."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from models.config import Part

Pattern = Annotated[str, Meta(min_length=1)]


class Fetch(Part, frozen=True):
    """Raw files that lie inside a wheel of the package index, taken without installing it.

    Attributes:
        package: name and exact version, such as `recbole==1.2.1`.
        sha256: of the wheel.
        members: path inside the wheel → file name in the data folder.
    """

    package: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]+==[A-Za-z0-9_.]+$")]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
    members: dict[str, Annotated[str, Meta(pattern=r"^[^/]+$")]]


class Source(Part, frozen=True):
    """A raw table.

    Attributes:
        files: one file name or glob, or several, in the data folder.
        format: by the file's ending where it is not given.
        rename: raw column name → name used in the rest of the recipe.
        nulls: texts that stand for "no value" (csv and tsv).
    """

    files: Pattern | Annotated[tuple[Pattern, ...], Meta(min_length=1)]
    format: Literal["csv", "tsv", "parquet"] | None = None
    rename: dict[str, str] = {}  # noqa: RUF012 - msgspec copies it
    nulls: tuple[str, ...] = ("",)


class Join(Part, frozen=True):
    """Look up the columns of a user or item table by their id.

    Attributes:
        table: name of a source with one row an id.
        on: the id column, in both tables.
        on_missing: what becomes of an interaction whose id is not in the table.
    """

    table: str
    on: str
    on_missing: Literal["keep", "drop"] = "keep"


class PositiveRule(Part, frozen=True):
    """Which rows are positives: `column` compared with `value`."""

    column: str
    is_: Literal["==", "!=", ">=", ">", "<=", "<"] = msgspec.field(name="is")
    value: float | str
