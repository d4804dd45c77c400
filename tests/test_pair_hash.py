"""Pair hash: the numbers of the published generator, independent of the order of rows."""

from __future__ import annotations

import numpy as np

from workflows.ground.pair_hash import pair_hash


def splitmix64(state: int) -> int:
    """Return the next number of the generator by Python's integers (Steele, Lea, Flood 2014)."""
    mask = (1 << 64) - 1
    z = (state + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def test_numbers_are_those_of_splitmix64() -> None:
    assert splitmix64(0) == 0xE220A8397B1DCDAF  # published: the first number of seed 0
    users, items = np.array([0, 5, -2], np.int32), np.array([7, -1, 3], np.int32)
    found = pair_hash(users, items, seed=4)
    mask = (1 << 64) - 1
    expected = [
        splitmix64(splitmix64(splitmix64(4) ^ (int(u) & mask)) ^ (int(i) & mask)) >> 1
        for u, i in zip(users, items, strict=True)
    ]
    assert found.tolist() == expected


def test_each_pair_has_its_own_number_whatever_stands_beside_it() -> None:
    users, items = np.repeat(np.arange(50), 40), np.tile(np.arange(40), 50)
    found = pair_hash(users, items, seed=1)
    assert len(set(found.tolist())) == 2000
    some = np.random.default_rng(1).permutation(2000)[:300]
    assert (pair_hash(users[some], items[some], seed=1) == found[some]).all()
    assert (pair_hash(users, items, seed=2) != found).all()
    assert not len(pair_hash(users[:0], items[:0], seed=1))
    # as many of each user's lowest half as chance says: items are not in one order for all
    low = found.reshape(50, 40) < np.median(found)
    assert 15 < low.sum(axis=0).min() <= low.sum(axis=0).max() < 35
