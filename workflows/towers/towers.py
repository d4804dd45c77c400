"""Exports a tower as a SavedModel that needs only TensorFlow, with one named tensor per feature."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from models.towers.tower import Tower, ragged_batch
from workflows.ground import arguments
from workflows.ground.column_names import EMBEDDING


def save(tower: Tower, path: Path) -> None:
    """Write a user or item tower as a SavedModel that takes encoded inputs.

    The signature `serving_default` of the SavedModel takes one tensor per feature: int32 [B] for a
    category, int32 [B, L] for a list of categories padded with code 0, float32 [B, L] for the
    weights of its values, float32 [B] for a number. The signature returns {"embedding": float32 [B,
    dim]}. The file `inputs.json` in the SavedModel's folder describes the tensors.

    Args:
        tower: the user or item encoder, with its weights.
        path: the folder of the SavedModel.
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
    inputs = {
        column: arguments.Input(named[column], spec.dtype.name, tuple(spec.shape))
        for column, spec in specs.items()
    }
    arguments.write(inputs, path)
