"""Types of the recipe's fields, with their bounds, and the base class of its blocks.

Each block of hyper-parameters is defined beside the component that reads it; nothing repeats it.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

# Every number of a recipe has an upper bound: what is larger is a slip, and would end in an error
# of memory or of a library that takes no such number.

#: NumPy, Arrow, protobuf, FAISS and TensorFlow all take integers up to here.
_MOST = 2**31 - 1
#: float32 holds numbers up to 3.4e38; products of two hyper-parameters stay within it.
_LARGEST = 1e18
Positive = Annotated[int, Meta(ge=1, le=_MOST)]
NonNegative = Annotated[int, Meta(ge=0, le=_MOST)]
PositiveFloat = Annotated[float, Meta(gt=0, le=_LARGEST)]
NonNegativeFloat = Annotated[float, Meta(ge=0, le=_LARGEST)]
Share = Annotated[float, Meta(ge=0, lt=1)]
#: The length of a list of items, of a user's history or of a ranking: each query holds one.
Length = Annotated[int, Meta(ge=1, le=10_000)]
#: The width of a layer. A square kernel of the largest has 1 GiB.
Wide = Annotated[int, Meta(ge=1, le=16_384)]
#: How often something is repeated, such as epochs, trials or resamples.
Times = Annotated[int, Meta(ge=1, le=100_000)]
#: Rows of a batch, or rows drawn for it. Their embeddings of width 64 have 256 MiB.
Rows = Annotated[int, Meta(ge=1, le=1_000_000)]
#: Codes that a column holds beside those of its values: each is a row of an embedding table.
Buckets = Annotated[int, Meta(ge=1, le=10_000_000)]
#: Text that becomes a part of file names.
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*\Z", max_length=100)]
#: The width of an embedding: a number, or a rule by the size of the vocabulary.
Width = Annotated[int, Meta(ge=1, le=4_096)] | Literal["infer"]


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A frozen block of a recipe that refuses unknown keys."""
