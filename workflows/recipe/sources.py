"""Parts of a recipe: where raw rows come from."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from models.config import Part

Pattern = Annotated[str, Meta(min_length=1)]
Patterns = Pattern | Annotated[tuple[Pattern, ...], Meta(min_length=1)]


class Fetch(Part, frozen=True):
    """Raw files that lie inside a wheel of the package index, taken without installing it.

    Attributes:
        package: name and exact version, such as `recbole==1.2.1`.
        sha256: of the wheel.
        members: path inside the wheel → file name in the data folder.
    """

    package: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*==[A-Za-z0-9_.]+\Z")]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    members: dict[str, Annotated[str, Meta(pattern=r"^(?!\.{1,2}\Z)[^/\0]+\Z")]]


class Source(Part, frozen=True):
    """A raw table.

    Attributes:
        files: one file name or glob, or several, in the data folder.
        format: by the file's ending where it is not given; `aliccp` is Tianchi's skeleton of
            impressions, whose columns get the names that NVIDIA's converter gives them.
        common: the files of common features that belong to an aliccp skeleton.
        rename: raw column name → name used in the rest of the recipe.
        nulls: texts that stand for "no value" (csv and tsv).
    """

    files: Patterns
    format: Literal["csv", "tsv", "parquet", "aliccp"] | None = None
    common: Patterns | None = None
    rename: dict[str, str] = {}  # noqa: RUF012 - msgspec copies it
    nulls: tuple[str, ...] = ("",)

    def __post_init__(self) -> None:
        if (self.format == "aliccp") != (self.common is not None):
            raise ValueError(
                "format: aliccp needs `common`, the files of common features, and no other format "
                "has them"
            )
