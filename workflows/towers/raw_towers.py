"""Exports towers that take raw values (text and numbers) in place of codes, as SavedModels.

The SavedModels contain the vocabularies, and their inputs are text, numbers and lists, as in the
raw data. The SavedModel's graph derives columns, looks up codes, standardises numbers and calls the
tower, so that TensorFlow Serving and Triton need neither this package nor a separate encoder.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import tensorflow as tf

from models.core.column_names import HISTORY_AGES
from models.core.reserved_codes import NULL, PAD, UNSEEN
from models.towers.tower import Tower, ragged_batch
from workflows.derive.fitted import States
from workflows.ground import arguments
from workflows.ground.column_names import EMBEDDING
from workflows.ground.statistics import NumberFact
from workflows.ground.vocabulary import Vocabulary
from workflows.recipe import Recipe
from workflows.recipe.kinds.base import Change, Encoded, LookUp, MarkMissing, PassOn
from workflows.recipe.raw_inputs import RawInput, columns_read, input_name, raw_inputs, step_to
from workflows.towers import derived


def save(
    tower: Tower,
    path: Path,
    *,
    recipe: Recipe,
    vocabularies: Mapping[str, Vocabulary],
    numbers: Mapping[str, NumberFact],
    states: States,
) -> None:
    """Write a tower as a SavedModel that takes raw values (text and numbers) in place of codes.

    The signature `serving_default` of the SavedModel takes one tensor per raw column, as
    workflows/recipe/raw_inputs.py says: string [B] for a category or a time, "" if missing; string
    [B, L] for a list of categories or a history (oldest first), padded with ""; float32 [B, L] for
    the weights of a list's values, NaN if missing, which counts as 1; float32 [B, L] for the ages
    of a history's items in seconds, NaN if unknown; float32 [B] for a number, NaN if missing. The
    signature returns {"embedding": float32 [B, dim]}. A value that is not in the vocabulary gets a
    code for unseen values. The file `inputs.json` in the SavedModel's folder describes the tensors.

    Args:
        tower: the user or item encoder, with its weights.
        path: the folder of the SavedModel.
        recipe: the recipe with the features.
        vocabularies: the vocabularies of the columns; a history uses the vocabulary of its item
            column.
        numbers: the statistics that standardise number columns.
        states: derived column → what its step learnt from the training rows.
    """
    module = tf.Module()
    module.weights = list(tower.weights)
    with tempfile.TemporaryDirectory() as folder:
        described = _described(tower, recipe, numbers)
        domains = {e.change.domain for e in described if isinstance(e.change, LookUp)}
        module.codes = {
            domain: VocabularyTable(vocabularies[domain], Path(folder) / f"{domain}.txt")
            for domain in domains
        }
        sources = list(dict.fromkeys(encoded.source for encoded in described))
        inputs = raw_inputs(recipe, sources)
        named = arguments.argument_names(list(inputs))
        specs = {
            name: tf.TensorSpec(raw.form.shape, tf.as_dtype(raw.form.dtype), name=named[name])
            for name, raw in inputs.items()
        }
        module.learnt = derived.learnt(states)

        def encode(raw: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            values = {name: _value(raw, recipe, name, module.learnt) for name in sources}
            encoded = {e.name: _read(values[e.source], e.change, module.codes) for e in described}
            return {EMBEDDING: tower(ragged_batch(tower, encoded), training=False)}

        function = tf.function(encode, autograph=False).get_concrete_function(specs)
        tf.saved_model.save(module, str(path), signatures={"serving_default": function})
    arguments.write(
        {name: _described_input(named[name], raw) for name, raw in inputs.items()}, path
    )


def _described(tower: Tower, recipe: Recipe, numbers: Mapping[str, NumberFact]) -> list[Encoded]:
    """Describe the raw inputs of a tower and how each is encoded, in the order of its inputs."""
    inputs = recipe.history_inputs
    found = {name: Encoded(name, name, LookUp(column)) for name, column in inputs.items()}
    found[HISTORY_AGES] = Encoded(HISTORY_AGES, HISTORY_AGES, PassOn())
    for name, feature in recipe.features.items():
        for encoded in feature.meaning.encode(name, feature, numbers):
            found[encoded.name] = encoded
    return [found[name] for name in tower.schema.column_names]


def _described_input(argument: str, raw: RawInput) -> arguments.Input:
    """Describe a raw input for inputs.json."""
    form = raw.form
    missing = "" if form.is_text else "NaN"
    holds = "ISO 8601" if raw.is_time else ""
    return arguments.Input(argument, form.dtype, form.shape, missing, holds, raw.source or "")


def _value(
    raw: dict[str, tf.Tensor], recipe: Recipe, source: str, states: Mapping[str, derived.Learnt]
) -> tf.Tensor:
    """Return the values of a feature or a history: raw values, or values that steps derive.

    Args:
        raw: the raw inputs of the tower.
        recipe: the recipe with the steps.
        source: the name of the feature, or of the history input.
        states: derived column → what its step learnt.
    """
    listed = recipe.history_inputs.get(source)
    last = listed or source
    columns = columns_read(recipe, last)
    values = raw[input_name(source, listed, columns[0])]
    for column in (*columns[1:], last):
        step = step_to(recipe, column)
        if step is None:
            continue
        of, name = (input_name(source, listed, c) for c in (step.of, column))
        values = derived.derive(values, step, states.get(column), of)
        values = derived.as_feature(values, recipe.features.get(column))
        if name in raw:  # a step reads it, so that it can be given
            given = tf.cast(raw[name], values.dtype)
            values = tf.where(derived.is_missing(given), values, given)
    return values


def _read(values: tf.Tensor, change: Change, tables: Mapping[str, VocabularyTable]) -> tf.Tensor:
    """Encode the raw values of one tower input in the graph: as codes or standardised numbers."""
    if isinstance(change, LookUp):
        codes = tables[change.domain](values)
        return tf.where(values == "", PAD, codes) if values.shape.rank == 2 else codes
    if isinstance(change, MarkMissing):
        return tf.cast(tf.math.is_nan(values), tf.float32)
    if isinstance(change, PassOn):
        return values
    fact = change.fact
    filled = tf.where(tf.math.is_nan(values), tf.constant(fact.fill, tf.float32), values)
    return (filled - fact.mean) / (fact.std if fact.std > 0 else 1.0)


class VocabularyTable(tf.Module):
    """A vocabulary as a TensorFlow look-up table, with the same codes as `Vocabulary.encode`.

    The vocabulary's values are in a file, one per line, because a constant with millions of texts
    takes minutes to load, and a graph can have at most 2 GiB. Values that cannot be lines of the
    file, such as text with line breaks, are constants of the graph.

    Args:
        vocabulary: the values in the order of their codes.
        file: the file to write, which TensorFlow copies into the SavedModel.
    """

    def __init__(self, vocabulary: Vocabulary, file: Path) -> None:
        super().__init__()
        self.oov_buckets = vocabulary.oov_buckets
        self.first_code = vocabulary.first_code
        values = vocabulary.values.to_pylist()
        odd = {value: n for n, value in enumerate(values) if _is_no_line(value)}
        # bytes that are not UTF-8 cannot be a value; they get the line of an odd value
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
        """Return the vocabulary's code of each text, int32, in the shape of the given tensor."""
        found = self.table.lookup(values)
        if self.odd is not None:
            found = tf.maximum(found, self.odd.lookup(values))
        unseen = tf.constant(UNSEEN, tf.int64)
        if self.oov_buckets > 1:
            unseen += crc32(values) % self.oov_buckets
        codes = tf.where(found >= 0, found + self.first_code, unseen)
        return tf.cast(tf.where(values == "", tf.constant(NULL, tf.int64), codes), tf.int32)


#: The file of an empty vocabulary: TensorFlow refuses an empty file, and these bytes are not text.
_NOTHING = b"\xff\n"


def _is_no_line(value: str) -> bool:
    """Return whether a text, such as one with a line break, cannot be a line of a file."""
    return not value or "\n" in value or "\r" in value


def crc32(values: tf.Tensor) -> tf.Tensor:
    """Return zlib's CRC-32 of each text's UTF-8 bytes, int64, in the shape of the values."""
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
    """Return the CRC-32 look-up table of the reflected polynomial 0xEDB88320, as in zlib."""
    table = []
    for register in range(256):
        for _ in range(8):
            register = (register >> 1) ^ (0xEDB88320 if register & 1 else 0)
        table.append(register)
    return table


_TABLE = _table()
