"""The judge of a fit of offer models: the AUC of pairs of users and single items."""

from __future__ import annotations

from models.offers.model import InferenceModel, Model
from models.offers.pairs import Pairs

#: The only metric that a fit measures.
MONITOR = "val_auc"


class PairJudge:
    """Measures the AUC of validation pairs by the path that answers questions.

    Nothing is grouped or dropped out, so two measurements of the same weights are equal.

    Args:
        pairs: the validation events.
        item: the attribute that names items.

    Raises:
        NoNegativesError: there is no pair that could be a negative.
    """

    names = (MONITOR,)

    def __init__(self, pairs: Pairs, item: str) -> None:
        pairs.refuse_without_negatives(item)
        self.pairs = pairs
        self.item = item
        self._traced: InferenceModel | None = None

    def measure(self, model: Model) -> dict[str, float]:
        """Return the AUC. The functions of a model are traced in its first epoch only."""
        if self._traced is None or self._traced.model is not model:
            self._traced = InferenceModel(model)
        return {MONITOR: self.pairs.auc_of_items(self._traced, self.item)}
