"""Types of a recipe's fields, such as positive numbers, and the base class of a recipe's blocks.

Each block of hyper-parameters is defined once, beside the component that reads it.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

# Every number of a recipe has an upper bound. A larger number is a typing error; it would fail
# later, for lack of memory or in a library that does not accept it.

#: Largest integer that NumPy, Arrow, protobuf, FAISS and TensorFlow all accept.
_MOST = 2**31 - 1
#: Products of two such numbers are within the range of float32, 3.4e38.
_LARGEST = 1e18
Positive = Annotated[int, Meta(ge=1, le=_MOST)]
NonNegative = Annotated[int, Meta(ge=0, le=_MOST)]
PositiveFloat = Annotated[float, Meta(gt=0, le=_LARGEST)]
NonNegativeFloat = Annotated[float, Meta(ge=0, le=_LARGEST)]
Share = Annotated[float, Meta(ge=0, lt=1)]
#: Length of a user's history or of a list of items.
Length = Annotated[int, Meta(ge=1, le=10_000)]
#: Width of a layer. The square kernel of the widest layer has 1 GiB.
Wide = Annotated[int, Meta(ge=1, le=16_384)]
#: Number of repetitions, such as epochs, trials or resamples.
Times = Annotated[int, Meta(ge=1, le=100_000)]
#: Number of rows in a batch, or drawn for it. Embeddings of so many rows with 64 dimensions have
#: 256 MiB.
Rows = Annotated[int, Meta(ge=1, le=1_000_000)]
#: Number of codes for values that are not in the vocabulary; each is a row of an embedding table.
Buckets = Annotated[int, Meta(ge=1, le=10_000_000)]
#: Text that is used in file names.
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*\Z", max_length=100)]
#: Width of an embedding: a number, or "infer" to compute it from the size of the vocabulary.
Width = Annotated[int, Meta(ge=1, le=4_096)] | Literal["infer"]


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base class of a recipe's blocks of hyper-parameters: immutable; unknown keys raise."""
