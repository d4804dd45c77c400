"""The protocol of feature kinds: what a class for a value of `kind:` must define.

A kind is an object without state. Its methods take the feature, because fields of the feature such
as `separator` or `null` belong to the recipe. Where etl, export or serving treat kinds differently,
they call a method of the kind. Kinds describe layers and columns for TensorFlow or Merlin as plain
data; the code that imports these packages builds them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import pyarrow as pa

from workflows.ground.statistics import NumberFact
from workflows.raw.values import Place
from workflows.recipe.kinds.form import Form

#: The type of a column's cells for steps, joins and filters: seconds, numbers, text, or lists.
Cells = Literal["time", "number", "text", "lists"]


class Fields(Protocol):
    """The fields of a feature that kinds read (workflows/recipe/features.py explains them)."""

    @property
    def role(self) -> str: ...
    @property
    def id(self) -> bool: ...
    @property
    def kind(self) -> str: ...
    @property
    def separator(self) -> str | None: ...
    @property
    def weights(self) -> str | None: ...
    @property
    def null(self) -> str | float: ...
    @property
    def indicator(self) -> bool: ...
    @property
    def input(self) -> bool: ...
    @property
    def dim(self) -> int | None: ...


@dataclass(frozen=True)
class Reading:
    """The settings for reading the cells of one column.

    Attributes:
        place: the column and its file, for messages.
        nulls: texts that mean a missing value, beside the empty text.
        exact: whether numbers are read as float64, because a filter compares them.
        all_parts: whether empty parts of a list are kept as null, because the weights of the
            values have the same positions.
    """

    place: Place
    nulls: tuple[str, ...] = ()
    exact: bool = False
    all_parts: bool = False


# ── how a column becomes inputs of a tower ──────────────────────────────────────────────


@dataclass(frozen=True)
class LookUp:
    """Each value becomes its code in the vocabulary of a column.

    Attributes:
        domain: the column that the vocabulary belongs to.
    """

    domain: str


@dataclass(frozen=True)
class Standardise:
    """Missing numbers are replaced by a fill value; then all numbers are standardised.

    Attributes:
        fact: the fill value, the mean and the standard deviation.
    """

    fact: NumberFact


@dataclass(frozen=True)
class MarkMissing:
    """A number becomes 1.0 where it is missing, else 0.0."""


@dataclass(frozen=True)
class PassOn:
    """Values stay as they are.

    Attributes:
        fill: replaces a missing number; None if no number is missing.
    """

    fill: float | None = None


Change = LookUp | Standardise | MarkMissing | PassOn


@dataclass(frozen=True)
class Encoded:
    """One column of the encoded tables.

    Attributes:
        name: the name of the column in the encoded tables.
        source: the feature that it is made from.
        change: how the feature's values are encoded.
        tags: Merlin's tags, by which models choose their inputs.
        properties: Merlin's properties of the column.
    """

    name: str
    source: str
    change: Change
    tags: tuple[str, ...] = ()
    properties: Mapping[str, str] = field(default_factory=dict)


# ── kinds ───────────────────────────────────────────────────────────────────────────────


class Kind(ABC):
    """A feature kind.

    Attributes:
        name: its name in recipes.
        takes: fields of a feature that only this kind and perhaps a few others use.
        cells: the type of its cells for steps, joins and filters.
        is_list: whether a cell is a list of values.
        has_codes: whether its values get codes from a vocabulary.
        has_statistics: whether its numbers are standardised by statistics of the training rows.
        is_label: whether it is text for people, which no model takes.
        reads_dictionary: whether readers return its text as Arrow dictionary arrays.
        dtype: the type of a value before encoding, as Merlin's schema names it.
    """

    name: ClassVar[str]
    takes: ClassVar[frozenset[str]] = frozenset()
    cells: ClassVar[Cells]
    is_list: ClassVar[bool] = False
    has_codes: ClassVar[bool] = False
    has_statistics: ClassVar[bool] = False
    is_label: ClassVar[bool] = False
    reads_dictionary: ClassVar[bool] = True
    dtype: ClassVar[Literal["int32", "int64", "float32"]] = "int32"

    @property
    def is_category(self) -> bool:
        """Whether a cell is one value with a code: ids and histories have such values."""
        return self.has_codes and not self.is_list

    def check(self, feature: Fields) -> None:  # noqa: B027 - most kinds have nothing to refuse
        """Raise ValueError if the fields of a feature contradict each other."""

    def check_among(  # noqa: B027 - most kinds have nothing to refuse
        self, name: str, features: Mapping[str, Fields]
    ) -> None:
        """Raise ValueError if a feature does not fit the other features of the recipe."""

    def refuses_gaps(self, feature: Fields) -> bool:
        """Return whether the recipe makes a missing value an error."""
        return False

    def cell_bytes(self, feature: Fields) -> int:
        """Return the estimated bytes of a cell in memory, without its texts."""
        return 4

    # from raw files

    @abstractmethod
    def read(self, column: pa.ChunkedArray, feature: Fields, how: Reading) -> pa.ChunkedArray:
        """Return cells of a raw file in canonical types. It is the first step of etl for a column.

        Raises:
            DataError: a cell does not have the form that the recipe declares.
        """

    def settle(self, column: pa.ChunkedArray, place: Place) -> pa.ChunkedArray:
        """Return the cells in the form that etl stores, after lists and their weights were matched.

        Raises:
            DataError: a cell does not have the form that the recipe declares.
        """
        return column

    def read_given(self, column: pa.ChunkedArray, feature: Fields, how: Reading) -> pa.ChunkedArray:
        """Return cells of a file of raw values for a trained model, in the type of `form`.

        Raises:
            DataError: a cell does not have the form that the recipe declares.
        """
        return self.read(column, feature, how)

    # to towers

    def form(self, feature: Fields) -> Form | None:
        """Return the form in which a raw tower takes a value; None if it takes none."""
        return None

    def dims(self, feature: Fields) -> tuple[Any, ...]:
        """Return the dimensions of the column, as Merlin's schema names them."""
        return (None, None) if self.is_list else (None,)

    def columns(self, name: str, feature: Fields) -> list[str]:
        """Return the columns of the encoded tables that are made from a feature."""
        return [name]

    def encode(self, name: str, feature: Fields, facts: Mapping[str, NumberFact]) -> list[Encoded]:
        """Describe the columns of the encoded tables that are made from a feature.

        Args:
            name: the name of the feature.
            feature: the feature.
            facts: number column → its statistics.
        """
        return []


def role_tags(feature: Fields) -> tuple[str, ...]:
    """Return Merlin's tag of a feature's role."""
    return (f"{feature.role}_id" if feature.id else feature.role,)
