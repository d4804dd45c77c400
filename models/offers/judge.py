"""The judge of offer models: it measures the AUC of pairs of users and single items."""

from __future__ import annotations

from models.offers.model import InferenceModel, Model
from models.offers.pairs import Pairs

#: Name of the validation AUC, the only metric that is measured while an offer model is trained.
MONITOR = "val_auc"


class PairJudge:
    """Measures the AUC of an offer model over pairs of users and items of the validation part.

    The model scores pairs as at inference, without random groups and dropout, so that the same
    weights always give the same AUC.

    Args:
        pairs: the held-out events (user, item) of the validation part.
        item: the name of the attribute that holds the item ids.

    Raises:
        NoNegativesError: no pair can be a negative.
    """

    names = (MONITOR,)

    def __init__(self, pairs: Pairs, item: str) -> None:
        pairs.refuse_without_negatives(item)
        self.pairs = pairs
        self.item = item
        self._traced: InferenceModel | None = None

    def measure(self, model: Model) -> dict[str, float]:
        """Return the AUC over the pairs of users and items of the validation part."""
        if self._traced is None or self._traced.model is not model:
            self._traced = InferenceModel(model)
        return {MONITOR: self.pairs.auc_of_items(self._traced, self.item)}
