"""The type and shape of raw feature values that towers take as tensors, from files or JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

#: The largest number that a tower takes, because its numbers are float32.
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Form:
    """The type and shape of the raw values of one feature.

    Attributes:
        is_text: whether values are text; otherwise they are float32 numbers.
        is_list: whether a cell of the feature is a list of values.
        width: the length that all lists have; None for lists of any length.
    """

    is_text: bool
    is_list: bool = False
    width: int | None = None

    @classmethod
    def of_tensor(cls, dtype: str, shape: Sequence[int | None]) -> Form:
        """Return the form of the raw values in a tower's input tensor, whose first axis is rows."""
        return cls(dtype == "string", len(shape) == 2, shape[1] if len(shape) == 2 else None)

    @property
    def dtype(self) -> str:
        """The type of the tensor of raw values, as TensorFlow names it."""
        return "string" if self.is_text else "float32"

    @property
    def shape(self) -> tuple[int | None, ...]:
        """The dimensions of the tensor of raw values; None means any size."""
        return (None, self.width) if self.is_list else (None,)

    @property
    def arrow(self) -> pa.DataType:
        """The Arrow type of a column of such raw values."""
        value = pa.string() if self.is_text else pa.float32()
        return pa.list_(value) if self.is_list else value

    @property
    def plural(self) -> str:
        """A plural noun for such raw values in messages, such as numbers."""
        values = "text" if self.is_text else "numbers"
        values = f"{self.width} {values}" if self.width else values
        return f"lists of {values}" if self.is_list else values

    def cast(self, column: pa.ChunkedArray) -> pa.ChunkedArray:
        """Return a column of raw values, converted to the Arrow type of the form.

        Raises:
            ArrowInvalid, ArrowNotImplementedError: the column cannot be converted to this type.
        """
        column = column.cast(self.arrow, safe=self.is_text or self.is_list)
        if self.width:
            lengths = pc.list_value_length(column)
            odd = lengths.filter(pc.not_equal(lengths, self.width))
            if len(odd):
                raise pa.ArrowInvalid(f"a list of {odd[0].as_py()}")
        return column

    def array(self, column: pa.ChunkedArray) -> npt.NDArray[Any]:
        """Return a column of raw values as an array for a tensor.

        Missing values and the padding of lists are "" for text and NaN for numbers.
        """
        cells = column.combine_chunks()
        if not self.is_list:
            return self._plain(cells)
        lengths = pc.fill_null(pc.list_value_length(cells), 0).to_numpy().astype(np.int64)
        gap, dtype = ("", object) if self.is_text else (np.nan, np.float32)
        width = self.width or max(1, lengths.max(initial=0))
        matrix = np.full((len(cells), width), gap, dtype)
        matrix[np.arange(matrix.shape[1]) < lengths[:, None]] = self._plain(cells.flatten())
        return matrix

    def _plain(self, values: pa.Array) -> npt.NDArray[Any]:
        """Return an array for a tensor from raw values that are not lists."""
        if self.is_text:
            return values.fill_null("").to_numpy(zero_copy_only=False).astype(object)
        return values.to_numpy(zero_copy_only=False).astype(np.float32)

    def fault(self, value: Any) -> str:
        """Return as text what a raw value from JSON should be; "" if the value is valid."""
        if value is None:
            return ""
        right, one = (str, "text") if self.is_text else ((int, float), "number")
        cells = value if isinstance(value, list) else [value]
        fits = isinstance(value, list) == self.is_list and len(cells) == (self.width or len(cells))
        if not fits or not all(isinstance(c, right) for c in cells):
            single = one if self.is_text else f"a {one}"
            many = f"{self.width} {one}s" if self.width else f"{one}s"
            return f"{f'a list of {many}' if self.is_list else single}, or null"
        if not self.is_text and any(abs(cell) > _LARGEST for cell in cells):
            return f"a number of at most {_LARGEST:g}, or null"
        return ""


TEXT, NUMBER = Form(is_text=True), Form(is_text=False)
TEXTS, NUMBERS = Form(is_text=True, is_list=True), Form(is_text=False, is_list=True)
