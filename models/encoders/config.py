"""Hyper-parameters of the history encoders, one class a kind.

A new encoder is a class here, in the union `EncoderConfig`, and a file of this folder with the name
of its `kind` and a function `build(config, max_len)`.
"""

from __future__ import annotations

from typing import TypeAlias

from models.core.fields import Part, PositiveFloat


class DecayPoolConfig(Part, frozen=True, tag_field="kind", tag="decay_pool"):
    """A weighted mean of the items; the weight of an item depends on its position alone.

    Attributes:
        decay: an item at position k of the history, 0 being the latest, starts with the weight
            exp(-k / decay); training goes on from there. Null gives all positions the same weight,
            which training leaves alone: the history is a bag without an order. It is the default
            of a recipe whose history has no time.
    """

    decay: PositiveFloat | None = 10.0


EncoderConfig: TypeAlias = DecayPoolConfig
