"""Composes config.pbtxt, Triton's configuration of a model, from its input and output tensors.

The first dimension of every tensor is the batch: `max_batch_size` is 0, and the dimensions are
those of the SavedModel.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Spec(NamedTuple):
    """An input or output tensor: its Triton type and its dimensions, where -1 is any size."""

    kind: str
    dims: tuple[int, ...]


Specs = Mapping[str, Spec]


class Step(NamedTuple):
    """A step of a Triton ensemble: a model, and its inputs and outputs as ensemble tensors."""

    model: str
    inputs: Mapping[str, str]
    outputs: Sequence[str]


def savedmodel(name: str, inputs: Specs, outputs: Specs) -> str:
    """Return Triton's configuration (config.pbtxt) of a TensorFlow SavedModel."""
    return _whole(name, 'platform: "tensorflow_savedmodel"', inputs, outputs)


def python(name: str, inputs: Specs, outputs: Specs) -> str:
    """Return Triton's configuration (config.pbtxt) of a model with a Python backend."""
    return _whole(name, 'backend: "python"', inputs, outputs)


def ensemble(name: str, inputs: Specs, outputs: Specs, steps: Sequence[Step]) -> str:
    """Return Triton's configuration (config.pbtxt) of an ensemble: models run in sequence."""
    whole = _whole(name, 'platform: "ensemble"', inputs, outputs)
    blocks = "".join(_step(step) for step in steps)
    return f"{whole}ensemble_scheduling {{\n{blocks}}}\n"


def _whole(name: str, kind: str, inputs: Specs, outputs: Specs) -> str:
    tensors = [_tensor("input", *item) for item in inputs.items()]
    tensors += [_tensor("output", *item) for item in outputs.items()]
    return f"name: {_text(name)}\n{kind}\nmax_batch_size: 0\n{''.join(tensors)}"


def _tensor(side: str, name: str, spec: Spec) -> str:
    dims = ", ".join(map(str, spec.dims))
    return f"{side} {{ name: {_text(name)} data_type: {spec.kind} dims: [ {dims} ] }}\n"


def _step(step: Step) -> str:
    maps = [
        f"    input_map {{ key: {_text(n)} value: {_text(t)} }}\n" for n, t in step.inputs.items()
    ]
    maps += [f"    output_map {{ key: {_text(n)} value: {_text(n)} }}\n" for n in step.outputs]
    head = f"    model_name: {_text(step.model)}\n    model_version: -1\n"
    return f"  step {{\n{head}{''.join(maps)}  }}\n"


def _text(name: str) -> str:
    """Return a text as a quoted string of the protobuf text format."""
    return json.dumps(name, ensure_ascii=False)
