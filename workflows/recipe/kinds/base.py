"""The protocol of feature kinds: what a class for a value of `kind:` must define.

A kind is an object without state. The methods of a kind take the feature, because fields of the
feature such as `separator` or `fill` belong to the recipe. Where etl, export or serving treat kinds
differently, they call a method of the kind. Kinds describe layers and columns for TensorFlow or
Merlin as plain data; the code that imports these packages builds them.
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
    """The fields of a recipe's feature that its kind reads (see workflows/recipe/features.py)."""

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
    def fill(self) -> str | float: ...
    @property
    def indicator(self) -> bool: ...
    @property
    def input(self) -> bool: ...
    @property
    def dim(self) -> int | None: ...
    @property
    def normalize(self) -> bool: ...
    @property
    def dropout(self) -> float: ...


@dataclass(frozen=True)
class Reading:
    """The settings with which the cells of one raw column are read.

    Attributes:
        place: the raw column and its file, for error messages.
        nulls: texts that mean a missing value, in addition to the empty text.
        exact: whether numbers are read as float64, because a filter compares them.
        all_parts: whether empty values of a list are kept as null, because weights match values by
            position.
    """

    place: Place
    nulls: tuple[str, ...] = ()
    exact: bool = False
    all_parts: bool = False


# ── how a column becomes inputs of a tower ──────────────────────────────────────────────


@dataclass(frozen=True)
class LookUp:
    """An encoding that replaces each value by its code in the vocabulary of a column.

    Attributes:
        domain: the column whose vocabulary is used.
    """

    domain: str


@dataclass(frozen=True)
class Standardise:
    """An encoding that fills in missing numbers, and then standardises all numbers.

    Attributes:
        fact: the fill value, the mean and the standard deviation.
    """

    fact: NumberFact


@dataclass(frozen=True)
class MarkMissing:
    """An encoding that gives 1.0 where a number is missing, else 0.0."""


@dataclass(frozen=True)
class PassOn:
    """An encoding that leaves values as they are, except for missing numbers.

    Attributes:
        fill: the number that replaces missing numbers; None if no number is missing.
    """

    fill: float | None = None


Change = LookUp | Standardise | MarkMissing | PassOn


@dataclass(frozen=True)
class Encoded:
    """One column of the encoded tables, and how it is made from a feature of the recipe.

    Attributes:
        name: the name of the column in the encoded tables.
        source: the feature that the column is made from.
        change: the encoding by which the feature's values become those of this column.
        tags: Merlin's tags, by which models choose their inputs.
        properties: the properties of the column in Merlin's schema.
    """

    name: str
    source: str
    change: Change
    tags: tuple[str, ...] = ()
    properties: Mapping[str, str] = field(default_factory=dict)


# ── kinds ───────────────────────────────────────────────────────────────────────────────


class Kind(ABC):
    """A feature kind, which checks, reads and encodes the features with a certain `kind`.

    Attributes:
        name: the name of the kind in recipes.
        takes: names of the optional fields of a feature that the kind uses.
        cells: the type of the feature's cells for steps, joins and filters.
        is_list: whether a cell of the feature is a list of values.
        has_codes: whether values of the feature get codes from a vocabulary.
        has_statistics: whether numbers of the feature are standardised by statistics of the
            training rows.
        is_label: whether the feature is text for people, which no model takes.
        reads_dictionary: whether readers return the feature's text as Arrow dictionary arrays.
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
        """Whether a cell is one value with a code: ids and history items are such values."""
        return self.has_codes and not self.is_list

    def check(self, feature: Fields) -> None:  # noqa: B027 - most kinds have nothing to refuse
        """Raise ValueError if the fields of a feature contradict each other."""

    def check_among(  # noqa: B027 - most kinds have nothing to refuse
        self, name: str, features: Mapping[str, Fields]
    ) -> None:
        """Raise ValueError if a feature does not fit the other features of the recipe."""

    def refuses_gaps(self, feature: Fields) -> bool:
        """Return whether a missing value of the feature is an error."""
        return False

    def cell_bytes(self, feature: Fields) -> int:
        """Return the estimated bytes of one cell of the feature in memory, without its texts."""
        return 4

    # from raw files

    @abstractmethod
    def read(self, column: pa.ChunkedArray, feature: Fields, how: Reading) -> pa.ChunkedArray:
        """Return the feature's cells of a raw file as text, numbers or lists; etl's first step.

        Raises:
            DataError: a cell does not have the form that the recipe declares.
        """

    def to_stored(self, column: pa.ChunkedArray, place: Place) -> pa.ChunkedArray:
        """Return the cells as etl stores them, after category values were matched with weights.

        Raises:
            DataError: a cell does not have the form that the recipe declares.
        """
        return column

    def read_given(self, column: pa.ChunkedArray, feature: Fields, how: Reading) -> pa.ChunkedArray:
        """Return the feature's cells of a file or request with raw values for a trained model.

        Raises:
            DataError: a cell does not have the form that the recipe declares.
        """
        return self.read(column, feature, how)

    # to towers

    def form(self, feature: Fields) -> Form | None:
        """Return the type and shape of the feature's raw values; None if no tower takes them."""
        return None

    def dims(self, feature: Fields) -> tuple[Any, ...]:
        """Return the dimensions of the feature's encoded column, as Merlin's schema writes them."""
        return (None, None) if self.is_list else (None,)

    def columns(self, name: str, feature: Fields) -> list[str]:
        """Return the names of the encoded columns that are made from the feature."""
        return [name]

    def encode(self, name: str, feature: Fields, facts: Mapping[str, NumberFact]) -> list[Encoded]:
        """Describe the encoded columns that are made from the feature.

        Args:
            name: the name of the feature.
            feature: the fields of the feature in the recipe.
            facts: number column → its training mean, standard deviation and fill value.
        """
        return []


def role_tags(feature: Fields) -> tuple[str, ...]:
    """Return Merlin's tag of a feature's role, such as user or item."""
    return (f"{feature.role}_id" if feature.id else feature.role,)
