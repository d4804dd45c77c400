"""Argument names: plain TensorFlow loads and calls a SavedModel whatever its columns are called."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from workflows.ground import arguments
from workflows.ground.arguments import Input, argument_names
from workflows.ground.errors import ArtifactError

ODD = [
    *("User ID", "ISBN-13", "Preis €", "user_id:token", "a.b", "class", "2nd (cat)", "When?"),
    *("类别", "#no", "a,b", 'a"b', "a[b]", "self", "training", "inputs", "name", "kwargs", "args"),
    *("k", "exclude", "a b", "a_b", "a_b_2", "Age", "age", "AGE", "x" * 200, "_hidden", "0", " "),
    *("True", "None", "²", "ß", "ss", "K", "k_2", "\u212a", "column", "column_2", "captures"),
]


def test_no_two_columns_share_an_argument_and_tensorflow_takes_all(tmp_path):
    named = argument_names(ODD)
    assert list(named) == ODD
    assert len({argument.lower() for argument in named.values()}) == len(ODD)

    def encode(features):
        return {"sum": tf.stack([features[n] * (i + 1.0) for i, n in enumerate(ODD)], 1)}

    specs = {name: tf.TensorSpec([None], tf.float32, name=named[name]) for name in ODD}
    function = tf.function(encode, autograph=False).get_concrete_function(specs)
    tf.saved_model.save(tf.Module(), str(tmp_path), signatures={"serving_default": function})
    loaded = tf.saved_model.load(str(tmp_path))
    signature = loaded.signatures["serving_default"]
    assert set(signature.structured_input_signature[1]) == set(named.values())
    values = {named[name]: tf.constant([i + 1.0]) for i, name in enumerate(ODD)}
    np.testing.assert_array_equal(signature(**values)["sum"][0], np.arange(1, len(ODD) + 1) ** 2)


def test_a_plain_name_is_kept_whatever_stands_before_it():
    assert argument_names(["a b", "a_b", "user_id", "User ID"]) == {
        "a b": "a_b_2",
        "a_b": "a_b",
        "user_id": "user_id",
        "User ID": "User_ID_2",
    }


def test_inputs_json_is_read_as_it_was_written(tmp_path):
    inputs = {
        "类别": Input("column", "string", (None, None), missing=""),
        "a": Input("a", "float32", (None,), missing="NaN", holds="months", derived_from="类别"),
    }
    arguments.write(inputs, tmp_path)
    assert arguments.read(tmp_path) == inputs
    assert '"类别": {"argument": "column"' in (tmp_path / arguments.INPUTS).read_text("utf-8")
    (tmp_path / arguments.INPUTS).write_text("[]")
    with pytest.raises(ArtifactError, match="Run `two-tower export` again"):
        arguments.read(tmp_path)
