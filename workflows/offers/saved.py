"""Writes a trained offer model as three SavedModels that need only TensorFlow.

user_tower    <list>__values, <list>__offsets of each list of a user → users
offer_tower   <attribute>__values, __offsets, __weights of each attribute → offers
scorer        users, offers → scores [n_users, n_offers]
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf

from models.offers.model import InferenceModel


def save(model: InferenceModel, folder: Path) -> None:
    """Write an offer model's SavedModels user_tower, offer_tower and scorer to a folder.

    Args:
        model: the trained offer model.
        folder: the folder of the export.
    """
    users, offers, pairs = model.specs()
    _save(model.model, folder / "user_tower", model.embed_users, users, "users")
    _save(model.model, folder / "offer_tower", model.embed_offers, offers, "offers")
    _save(model.model, folder / "scorer", model.score_pairs, pairs, "scores")


def _save(model: Any, folder: Path, function: Any, specs: dict[str, Any], name: str) -> None:
    module = tf.Module()
    module.weights = model.weights

    def call(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        return {name: function(dict(zip(specs, tensors, strict=True)))}

    traced = tf.function(call, input_signature=list(specs.values()), autograph=False)
    tf.saved_model.save(module, str(folder), signatures={"serving_default": traced})
