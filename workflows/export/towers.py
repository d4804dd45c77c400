"""A tower as a SavedModel for plain TensorFlow: one named tensor a feature, no code of ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import tensorflow as tf

from models.core.reserved_codes import PAD
from models.towers.tower import Tower, inputs_of
from workflows.ground import arguments

OUTPUT = "embedding"


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

    weights = weights_of(tower)

    def encode(features: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {OUTPUT: tower(ragged_batch(features, weights), training=False)}

    module = tf.Module()
    # Merlin's layers would save traces and configs of their own; the function needs variables only
    module.weights = list(tower.weights)
    function = tf.function(encode, autograph=False).get_concrete_function(specs)
    tf.saved_model.save(module, str(path), signatures={"serving_default": function})
    arguments.write(named, path)


def weights_of(tower: Tower) -> dict[str, str]:
    """Return a tower's columns of weights, and whose they are."""
    return {c.name: c.weights_of for c in inputs_of(tower) if c.weights_of}


def ragged_batch(
    features: dict[str, tf.Tensor], weights: Mapping[str, str]
) -> dict[str, tf.Tensor]:
    """Return encoded features as Merlin's towers take them; matrices are padded lists.

    Args:
        features: one tensor a column.
        weights: column of weights → the list whose values they weigh. A value without a weight,
            or with NaN for one, weighs 1.
    """
    batch: dict[str, tf.Tensor] = {}
    for name, values in features.items():
        if values.shape.rank == 2:
            codes = features[weights.get(name, name)]
            if name in weights:
                values = _as_wide(values, codes)
            ragged = tf.ragged.boolean_mask(values, codes != PAD)
            batch[f"{name}__values"] = ragged.values
            batch[f"{name}__offsets"] = tf.cast(ragged.row_splits, tf.int32)
        else:
            batch[name] = values
    return batch


def _as_wide(weights: tf.Tensor, codes: tf.Tensor) -> tf.Tensor:
    """Return weights in the shape of the codes that they belong to."""
    width = tf.shape(codes)[1]
    missing = tf.maximum(0, width - tf.shape(weights)[1])
    weights = tf.pad(weights[:, :width], [[0, 0], [0, missing]], constant_values=1.0)
    return tf.where(tf.math.is_nan(weights), 1.0, weights)
