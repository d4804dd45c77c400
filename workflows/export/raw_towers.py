"""A tower that takes raw values, as a SavedModel for plain TensorFlow: vocabularies are inside.

What a user or an item is can be told as it stands in the raw data: text, numbers, lists. The graph
looks codes up, standardises numbers and calls the tower, so that TensorFlow Serving and Triton need
nothing of this package and no encoder beside them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import tensorflow as tf

from models.core.reserved_codes import NULL, PAD, UNSEEN
from models.towers.tower import Input, Tower, inputs_of
from workflows.export.towers import OUTPUT, ragged_batch, weights_of
from workflows.ground import arguments
from workflows.ground.statistics import NumberFact
from workflows.ground.vocabulary import Vocabulary

#: An input column `<number>_missing` says whether the number was there.
_MISSING = "_missing"


def save(
    tower: Tower,
    path: Path,
    *,
    vocabularies: Mapping[str, Vocabulary],
    numbers: Mapping[str, NumberFact],
) -> None:
    """Write a tower whose inputs are raw values.

    Its `serving_default` takes a tensor a feature: string [B] for a category, "" where it is
    missing; string [B, L] for a list of categories or a history (oldest first), "" where there is
    no more; float32 [B, L] for the weights of a list's values, NaN where one is missing, which then
    is 1; float32 [B] for a number, NaN where it is missing. It returns {"embedding": float32
    [B, dim]}. A value that training has not met gets its unseen code. `inputs.json` in its folder
    says what the tensor of each feature is called.

    Args:
        tower: a built encoder.
        path: the SavedModel's folder.
        vocabularies: the vocabularies of the columns; a history is looked up in that of its domain.
        numbers: how number columns are standardised.
    """
    module = tf.Module()
    module.weights = list(tower.weights)
    with tempfile.TemporaryDirectory() as folder:
        inputs = inputs_of(tower)
        domains = {c.domain for c in inputs if c.domain}
        module.codes = {
            d: VocabularyTable(vocabularies[d], Path(folder) / f"{d}.txt") for d in domains
        }
        readers = {c.name: _reader(c, module.codes, numbers) for c in inputs}
        raw_inputs = [c for c in inputs if _raw_name(c) == c.name]
        named = arguments.argument_names([c.name for c in raw_inputs])
        specs = {c.name: _spec(c, named[c.name]) for c in raw_inputs}

        weights = weights_of(tower)

        def encode(raw: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            encoded = {c.name: readers[c.name](raw[_raw_name(c)]) for c in inputs}
            return {OUTPUT: tower(ragged_batch(encoded, weights), training=False)}

        function = tf.function(encode, autograph=False).get_concrete_function(specs)
        tf.saved_model.save(module, str(path), signatures={"serving_default": function})
    arguments.write(named, path)


def _raw_name(column: Input) -> str:
    """Return the raw feature that an input is made from."""
    return column.name if column.domain or column.weights_of else column.name.removesuffix(_MISSING)


def _spec(column: Input, name: str) -> tf.TensorSpec:
    shape = [None, None] if column.is_list else [None]
    dtype = tf.string if column.domain else tf.float32
    return tf.TensorSpec(shape, dtype, name=name)


def _reader(
    column: Input, codes: Mapping[str, VocabularyTable], numbers: Mapping[str, NumberFact]
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return what turns raw values into one input of the tower."""
    if column.domain:
        look_up = codes[column.domain]
        if not column.is_list:
            return look_up
        return lambda values: tf.where(values == "", PAD, look_up(values))
    if column.weights_of:
        return tf.identity
    if _raw_name(column) != column.name:
        return lambda values: tf.cast(tf.math.is_nan(values), tf.float32)
    fact = numbers[column.name]
    scale = fact.std if fact.std > 0 else 1.0

    def standardise(values: tf.Tensor) -> tf.Tensor:
        filled = tf.where(tf.math.is_nan(values), tf.constant(fact.fill, tf.float32), values)
        return (filled - fact.mean) / scale

    return standardise


class VocabularyTable(tf.Module):
    """A vocabulary as a look-up inside the graph; the codes are those of `Vocabulary.encode`.

    The values stand in a file, a line each: it loads in seconds where a constant of millions of
    texts takes minutes, and a graph holds 2 GiB at most. The few values that are no line, such as
    text with line breaks, stand in the graph.

    Args:
        vocabulary: values in the order of their codes.
        file: where to write them, one a line; TensorFlow copies it into the SavedModel.
    """

    def __init__(self, vocabulary: Vocabulary, file: Path) -> None:
        super().__init__()
        self.oov_buckets = vocabulary.oov_buckets
        self.first_code = vocabulary.first_code
        values = vocabulary.values.to_pylist()
        odd = {value: n for n, value in enumerate(values) if _is_no_line(value)}
        # bytes that are no UTF-8, and so no value, keep the place of an odd one
        lines = (b"\xff%d" % odd[value] if value in odd else value.encode() for value in values)
        file.write_bytes(b"\n".join(lines) + b"\n" if values else _NOTHING)
        first = tf.lookup.TextFileInitializer(
            str(file),
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
        )
        self.table = tf.lookup.StaticHashTable(first, default_value=-1)
        self.odd = None
        if odd:
            second = tf.lookup.KeyValueTensorInitializer(
                tf.constant([value.encode() for value in odd]),
                tf.constant(list(odd.values()), tf.int64),
            )
            self.odd = tf.lookup.StaticHashTable(second, default_value=-1)

    def __call__(self, values: tf.Tensor) -> tf.Tensor:
        """Return the code of each text, int32, the shape of the values."""
        found = self.table.lookup(values)
        if self.odd is not None:
            found = tf.maximum(found, self.odd.lookup(values))
        unseen = tf.constant(UNSEEN, tf.int64)
        if self.oov_buckets > 1:
            unseen += crc32(values) % self.oov_buckets
        codes = tf.where(found >= 0, found + self.first_code, unseen)
        return tf.cast(tf.where(values == "", tf.constant(NULL, tf.int64), codes), tf.int32)


#: A file without values: TensorFlow refuses an empty one, and this is no text.
_NOTHING = b"\xff\n"


def _is_no_line(value: str) -> bool:
    """Say whether a text cannot stand in a line of its own."""
    return not value or "\n" in value or "\r" in value


def crc32(values: tf.Tensor) -> tf.Tensor:
    """Return zlib's CRC-32 of each text's UTF-8 bytes, int64, the shape of the values."""
    flat = tf.reshape(values, [-1])
    lengths = tf.strings.length(flat)
    longest = tf.maximum(1, tf.reduce_max(tf.concat([lengths, [1]], 0)))
    data = tf.cast(tf.io.decode_raw(flat, tf.uint8, fixed_length=longest), tf.int64)
    table = tf.constant(_TABLE, tf.int64)

    def step(i: tf.Tensor, register: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        index = tf.bitwise.bitwise_and(tf.bitwise.bitwise_xor(register, data[:, i]), 0xFF)
        shifted = tf.bitwise.right_shift(register, tf.constant(8, tf.int64))
        following = tf.bitwise.bitwise_xor(tf.gather(table, index), shifted)
        return i + 1, tf.where(i < lengths, following, register)

    start = tf.fill(tf.shape(flat), tf.constant(0xFFFFFFFF, tf.int64))
    _, register = tf.while_loop(lambda i, _: i < longest, step, (tf.constant(0), start))
    return tf.reshape(tf.bitwise.bitwise_xor(register, 0xFFFFFFFF), tf.shape(values))


def _table() -> list[int]:
    """Return the table of the reflected polynomial 0xEDB88320 (ISO 3309, as in zlib)."""
    table = []
    for register in range(256):
        for _ in range(8):
            register = (register >> 1) ^ (0xEDB88320 if register & 1 else 0)
        table.append(register)
    return table


_TABLE = _table()
