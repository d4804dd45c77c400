"""Raw values through the exported graph, beside the encoded path and beside zlib."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_run import Tiny

from models.core.reserved_codes import NULL, UNSEEN
from models.core.retriever import Ragged
from models.towers.tower import embed
from workflows.ground.vocabulary import Vocabulary
from workflows.stages.etl import Prepared
from workflows.stages.train import load_model
from workflows.towers.raw_towers import VocabularyTable, crc32
from workflows.towers.selfcheck import padded


@pytest.fixture(scope="module")
def folder(tiny: Tiny) -> Path:
    return tiny.exported.store.folder("export")


def signature(folder: Path, tower: str):
    loaded = tf.saved_model.load(str(folder / tower))
    return loaded, loaded.signatures["serving_default"]


def vocabulary(*values: str, oov_buckets: int = 1) -> Vocabulary:
    counts = np.arange(len(values), 0, -1)
    return Vocabulary.build(pa.array(values, pa.string()), counts, oov_buckets=oov_buckets)


@pytest.mark.parametrize(("side", "tower"), [("user", "query_tower"), ("item", "item_tower")])
def test_x02_every_row_of_the_tables_gets_its_embedding_from_raw_values(folder, side, tower):
    loaded, encode = signature(folder, f"{tower}_raw")
    features = pq.read_table(folder / f"{side}_features.parquet")
    specs = encode.structured_input_signature[1]
    inputs = {n: tf.constant(padded(features[n]), spec.dtype) for n, spec in specs.items()}
    found = encode(**inputs)["embedding"].numpy()
    embeddings = pq.read_table(folder / f"{side}_embeddings.parquet")["embedding"].to_numpy()
    np.testing.assert_allclose(found, np.stack(embeddings), rtol=1e-5, atol=1e-5)
    assert loaded


def test_unknown_and_missing_values_are_what_the_encoder_makes_of_them(tiny, folder):
    run = tiny.exported
    prepared = Prepared.open(run.store, run.recipe)
    model = load_model(run.store, run.recipe, prepared)
    words, numbers = prepared.vocabularies, prepared.numbers
    cities, users = ["Oslo", None, "Atlantis"], ["u6", "nobody", None]
    age = numbers["age"]
    years = np.array([31.0, np.nan, 77.0])
    seen = [["002", "nothing"], [], ["-1"]]
    encoded = {
        "user_id": words["user_id"].encode(pa.array(users)),
        "city": words["city"].encode(pa.array(cities)),
        "shop": words["shop"].encode(pa.array(["web", None, "kiosk"])),
        "age": ((np.where(np.isnan(years), age.fill, years) - age.mean) / age.std).astype("f4"),
        "age_missing": np.isnan(years).astype(np.float32),
        "history_item_id": Ragged(
            words["item_id"].encode(pa.array([v for of in seen for v in of])),
            np.array([0, 2, 2, 3]),
        ),
    }
    expected = embed(model.query_encoder, encoded)
    loaded, encode = signature(folder, "query_tower_raw")
    assert set(encode.structured_input_signature[1]) == set(encoded) - {"age_missing"}
    found = encode(
        user_id=tf.constant(["u6", "nobody", ""]),
        city=tf.constant(["Oslo", "", "Atlantis"]),
        shop=tf.constant(["web", "", "kiosk"]),
        age=tf.constant(years, tf.float32),
        history_item_id=tf.constant([["002", "nothing"], ["", ""], ["-1", ""]]),
    )["embedding"].numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert np.abs(np.diff(expected, axis=0)).max() > 1e-3  # three different users
    assert loaded


TEXTS = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=12)


@settings(deadline=None, max_examples=60)
@given(st.lists(TEXTS, min_size=1, max_size=5))
def test_the_checksum_is_zlibs(texts):
    found = crc32(tf.constant([t.encode() for t in texts])).numpy().tolist()
    assert found == [zlib.crc32(text.encode()) for text in texts]


@pytest.mark.parametrize("oov_buckets", [1, 7])
@pytest.mark.parametrize("odd", [[], ["two\nlines", "\r", "a\r", "\n", " a\t", "ÿ0", "\0", "b\0"]])
def test_codes_are_those_of_the_vocabulary(tmp_path, oov_buckets, odd):
    known = vocabulary("b", "0108", "Ж", " ", *odd, oov_buckets=oov_buckets)
    asked = ["Ж", "b", "x", "0108", "108", " ", "y", "z", *odd]
    codes = VocabularyTable(known, tmp_path / "values.txt")
    found = codes(tf.constant([text.encode() for text in [*asked, ""]])).numpy()
    np.testing.assert_array_equal(found[:-1], known.encode(pa.array(asked)))
    assert found[-1] == NULL
    matrix = codes(tf.reshape(tf.constant(asked[:8]), [2, 4])).numpy()
    np.testing.assert_array_equal(matrix.ravel(), found[:8])
    assert len(set(found)) > 5


@settings(deadline=None, max_examples=25)
@given(st.lists(TEXTS.filter(bool), min_size=1, max_size=8, unique=True))
def test_any_text_has_the_code_of_the_vocabulary(tmp_path_factory, texts):
    known = vocabulary(*texts[::2])
    codes = VocabularyTable(known, tmp_path_factory.mktemp("codes") / "values.txt")
    found = codes(tf.constant([text.encode() for text in texts])).numpy()
    np.testing.assert_array_equal(found, known.encode(pa.array(texts, pa.string())))


def test_a_vocabulary_without_values_knows_nothing(tmp_path):
    codes = VocabularyTable(vocabulary(), tmp_path / "none.txt")
    assert codes(tf.constant(["a", ""])).numpy().tolist() == [UNSEEN, NULL]
    assert codes(tf.constant(["\0"])).numpy().tolist() == [UNSEEN]


#: What some reader takes for the end of a line, and blanks.
ODD = ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x1e", "\x85", "\u2028", "\u2029", " ", "\t"]


@pytest.mark.parametrize("odd", ODD)
def test_no_character_moves_the_codes(tmp_path, odd):
    values = [odd, f"a{odd}", f"{odd}a", f"a{odd}b", "a", "b", "ab"]
    known = vocabulary(*values)
    found = VocabularyTable(known, tmp_path / "values.txt")(tf.constant(values)).numpy()
    np.testing.assert_array_equal(found, known.encode(pa.array(values)))
    assert len(set(found)) == len(set(values)) == found.max() - known.first_code + 1


def test_an_empty_text_of_an_older_vocabulary_is_missing(tmp_path):
    known = vocabulary("a", "", "b")
    found = VocabularyTable(known, tmp_path / "values.txt")(tf.constant(["a", "", "b"])).numpy()
    assert found.tolist() == [known.first_code, NULL, known.first_code + 2]
