from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from models.core.retriever import Ragged
from models.towers.item_content import ItemCategories, ItemContent, by_item_code

#: Items with the codes 5, 3, 2 (unseen), 6, 6 (shared) and 4; their genres and their year.
ITEMS = np.array([5, 3, 2, 6, 6, 4])
GENRES = Ragged(np.array([4, 5, 3, 3, 4, 4, 5]), np.array([0, 2, 3, 4, 5, 6, 6]))
YEARS = np.array([3, 4, 3, 4, 4, 5])


def test_the_categories_of_an_item_code_are_those_of_its_item():
    lists = by_item_code(GENRES, ITEMS, 8)
    assert [lists[code].tolist() for code in range(8)] == [[], [], [], [3], [], [4, 5], [], []]
    single = by_item_code(YEARS, ITEMS, 8)
    assert [single[code].tolist() for code in range(8)] == [[], [], [], [4], [5], [3], [], []]


def test_an_item_gets_the_sum_of_the_mean_embeddings_of_its_features():
    rng = np.random.default_rng(0)
    tables = {name: tf.keras.layers.Embedding(8, 3) for name in ("genres", "release year")}
    for table in tables.values():
        table.build(None)
        table.set_weights([rng.normal(size=(8, 3)).astype(np.float32)])
    lists = {
        "genres": by_item_code(GENRES, ITEMS, 8),
        "release year": by_item_code(YEARS, ITEMS, 8),
    }
    layer = ItemContent([ItemCategories(tables, lists)])
    genres, years = (table.get_weights()[0] for table in tables.values())
    found = layer(tf.constant([5, 3, 5, 2, 4, 0])).numpy()
    both = genres[[4, 5]].mean(axis=0) + years[3]
    expected = [both, genres[3] + years[4], both, [0] * 3, years[5], [0] * 3]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert not any(weight.trainable for weight in layer.weights if weight.dtype == tf.int32)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(layer(tf.constant([5])))
    slope = tf.convert_to_tensor(tape.gradient(total, tables["genres"].embeddings)).numpy()
    assert slope[:, 0].tolist() == pytest.approx([0, 0, 0, 0, 0.5, 0.5, 0, 0])
