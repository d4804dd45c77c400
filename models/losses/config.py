"""Hyper-parameters of the training loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, TypeAlias

from models.core.fields import NonNegative, Part, PositiveFloat, Rows

#: Name → the module in this folder and its loss function. To add one, write a file and a line.
FUNCTIONS: Mapping[str, str] = {"softmax": "in_batch:softmax_loss"}

if TYPE_CHECKING:
    FunctionName: TypeAlias = str
else:
    FunctionName = Literal[tuple(FUNCTIONS)]


class LossConfig(Part, frozen=True):
    """The training loss, which compares the score of a row's own item with scores of negatives.

    Attributes:
        kind: which items are the negatives: `in_batch` takes the items of the batch; `mixed` takes
            these and `negatives` more items, drawn uniformly from the item table (Yang et al.
            2020); `full` takes the whole item table; `auto` means `full` for tables of up to
            `full_up_to` items, else `mixed`.
        function: the loss function: `softmax` is cross-entropy.
        full_up_to: the largest item table for which `auto` means full.
        negatives: the number of items that `mixed` draws in each step.
        temperature: T in the logits s/T - log q, where s is a score.
        logq: whether to subtract log q, where q is the probability that the item is a negative, so
            that popular items are not penalised for being in many batches. With the kind `full`,
            nothing is subtracted, because every item is a negative equally often.
        mask: which other items are no negatives of a row: `none` masks nothing (the default of
            TFRS), `item` masks further occurrences of the row's own item, `user` masks all training
            positives of the row's user.
        reduction: whether the loss of a batch is the `sum` or the `mean` of the losses of its rows;
            with Adagrad the two train differently.
        precision: the precision of the loss' matrix products; sums stay in float32. The precision
            `bfloat16` is faster on processors with AVX512-BF16, AMX or tensor cores, and gives
            gradients with errors of about 0.1 %.

    The defaults of TensorFlow Recommenders' Retrieval task are kind in_batch, logq false, mask none
    and reduction sum; Merlin's are kind in_batch, logq false, mask item and reduction mean.
    """

    kind: Literal["auto", "in_batch", "mixed", "full"] = "auto"
    function: FunctionName = "softmax"
    full_up_to: NonNegative = 20_000
    negatives: Rows = 1024
    temperature: PositiveFloat = 1.0
    logq: bool = True
    mask: Literal["none", "item", "user"] = "user"
    reduction: Literal["mean", "sum"] = "mean"
    precision: Literal["float32", "bfloat16"] = "float32"

    def negatives_of(self, n_items: int) -> str:
        """Return the kind of negatives, never `auto`, for an item table of the given size."""
        if self.kind != "auto":
            return self.kind
        return "full" if n_items <= self.full_up_to else "mixed"
