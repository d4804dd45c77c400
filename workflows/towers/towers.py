"""A tower as a SavedModel for plain TensorFlow: one named tensor a feature, no code of ours."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from models.towers.tower import Tower, ragged_batch
from workflows.ground import arguments
from workflows.ground.column_names import EMBEDDING


def save(tower: Tower, path: Path) -> None:
    """Write a tower.

    Its `serving_default` takes a tensor a feature: int32 [B] for a category, int32 [B, L] for a
    list of categories padded with code 0, float32 [B, L] for the weights of its values, float32 [B]
    for a number; it returns {"embedding": float32 [B, dim]}. `inputs.json` in its folder says what
    the tensor of each feature is called.

    Args:
        tower: a built encoder.
        path: the SavedModel's folder.
    """
    named = arguments.argument_names(tower.schema.column_names)
    specs = {
        column.name: tf.TensorSpec(
            [None, None] if column.is_list else [None],
            tf.as_dtype(column.dtype.to_numpy.name),
            name=named[column.name],
        )
        for column in tower.schema
    }

    def encode(features: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {EMBEDDING: tower(ragged_batch(tower, features), training=False)}

    module = tf.Module()
    # Merlin's layers would save traces and configs of their own; the function needs variables only
    module.weights = list(tower.weights)
    function = tf.function(encode, autograph=False).get_concrete_function(specs)
    tf.saved_model.save(module, str(path), signatures={"serving_default": function})
    arguments.write(named, path)
