from __future__ import annotations

import numpy as np
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from models.losses.masks import known_positives, same_item

INTS = tf.TensorSpec([None], tf.int32)


@tf.function(input_signature=[INTS, INTS, INTS, INTS, tf.TensorSpec([None], tf.int64), INTS])
def liked_in_batch(users, own, items, values, offsets, bounds):
    mask = known_positives(users, own, values, offsets, items=items)
    return mask(bounds[0], bounds[1]).cells


@tf.function(input_signature=[INTS, INTS, INTS, tf.TensorSpec([None], tf.int64), INTS])
def liked_in_catalogue(users, own, values, offsets, bounds):
    return known_positives(users, own, values, offsets)(bounds[0], bounds[1]).cells


@tf.function(input_signature=[INTS, INTS, INTS])
def same_in_batch(items, own, bounds):
    return same_item(items, own)(bounds[0], bounds[1]).cells


@tf.function(input_signature=[INTS, INTS, INTS, INTS, tf.TensorSpec([None], tf.int64), INTS])
def liked_by_runs(users, own, items, values, offsets, bounds):
    mask = known_positives(users, own, values, offsets, items=items, by_runs=True)
    return mask(bounds[0], bounds[1])


@st.composite
def batches(draw):
    """Draw likes of users, the users and items of a batch with each row's own column, a block."""
    n_items = draw(st.integers(1, 8))
    item = st.integers(0, n_items - 1)
    liked = draw(st.lists(st.lists(item, max_size=6), min_size=1, max_size=5))
    items = draw(st.lists(item, min_size=1, max_size=8))
    users = draw(st.lists(st.integers(0, len(liked) - 1), min_size=1, max_size=6))
    column = st.integers(0, len(items) - 1)
    own = draw(st.lists(column, min_size=len(users), max_size=len(users)))
    bounds = sorted(draw(st.lists(st.integers(0, len(users)), min_size=2, max_size=2)))
    return n_items, liked, users, items, own, bounds


def as_int(*lists):
    return [np.array(values, np.int32) for values in lists]


def pairs(cells: tf.Tensor) -> set[tuple[int, int]]:
    assert cells.dtype == tf.int64
    return {tuple(cell) for cell in cells.numpy().tolist()}


@settings(deadline=None, max_examples=150)
@given(batches())
def test_the_cells_are_those_of_a_double_loop(world):
    n_items, liked, users, items, own, (start, stop) = world
    values = as_int([item for of_user in liked for item in of_user])[0]
    offsets = np.cumsum([0, *map(len, liked)])
    block = range(start, stop)
    found = liked_in_batch(*as_int(users, own, items), values, offsets, *as_int((start, stop)))
    assert pairs(found) == {
        (b - start, c)
        for b in block
        for c, item in enumerate(items)
        if item in liked[users[b]] and c != own[b]
    }
    found = liked_by_runs(*as_int(users, own, items), values, offsets, *as_int((start, stop)))
    groups, cells = found.groups.numpy().tolist(), pairs(found.cells)
    assert groups == [
        sum(users[i] != users[i - 1] for i in block[1 : n + 1]) for n in range(len(block))
    ]
    assert {(b, c) for b, g in enumerate(groups) for h, c in cells if g == h} == {
        (b - start, c) for b in block for c, item in enumerate(items) if item in liked[users[b]]
    }
    mine = [items[c] for c in own]  # where every item is a column, the own column is the item
    found = liked_in_catalogue(*as_int(users, mine), values, offsets, *as_int((start, stop)))
    assert pairs(found) == {
        (b - start, c)
        for b in block
        for c in range(n_items)
        if c in liked[users[b]] and c != mine[b]
    }
    found = same_in_batch(*as_int(items, own), *as_int((start, stop)))
    assert pairs(found) == {
        (b - start, c)
        for b in block
        for c, item in enumerate(items)
        if item == mine[b] and c != own[b]
    }


def test_users_who_like_nothing_mask_nothing():
    mask = known_positives(
        tf.constant([1, 0]),
        tf.constant([0, 2]),
        tf.zeros([0], tf.int32),
        tf.zeros([3], tf.int64),
        items=tf.constant([5, 5, 2]),
    )
    assert mask(tf.constant(0), tf.constant(2)).cells.shape == [0, 2]
