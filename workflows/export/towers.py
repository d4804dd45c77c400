"""A tower as a SavedModel for plain TensorFlow: one named tensor a feature, no code of ours."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from models.towers import Tower
from workflows.vocabulary import PAD

OUTPUT = "embedding"


def save(tower: Tower, path: Path) -> None:
    """Write a tower.

    Its `serving_default` takes a tensor a feature: int32 [B] for a category, int32 [B, L] for a
    list of categories padded with code 0, float32 [B] for a number; it returns
    {"embedding": float32 [B, dim]}.

    Args:
        tower: a built encoder.
        path: the SavedModel's folder.
    """
    specs = {
        column.name: tf.TensorSpec(
            [None, None] if column.is_list else [None],
            tf.as_dtype(column.dtype.to_numpy.name),
            name=column.name,
        )
        for column in tower.schema
    }

    def encode(**features: tf.Tensor) -> dict[str, tf.Tensor]:
        return {OUTPUT: tower(ragged_batch(features), training=False)}

    module = tf.Module()
    # Merlin's layers would save traces and configs of their own; the function needs variables only
    module.weights = list(tower.weights)
    function = tf.function(encode, autograph=False).get_concrete_function(**specs)
    tf.saved_model.save(module, str(path), signatures={"serving_default": function})


def ragged_batch(features: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Return encoded features as Merlin's towers take them; matrices are padded lists."""
    batch: dict[str, tf.Tensor] = {}
    for name, values in features.items():
        if values.shape.rank == 2:
            ragged = tf.ragged.boolean_mask(values, values != PAD)
            batch[f"{name}__values"] = ragged.values
            batch[f"{name}__offsets"] = tf.cast(ragged.row_splits, tf.int32)
        else:
            batch[name] = values
    return batch
