from __future__ import annotations

from threading import Barrier, current_thread

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from models.core import blas


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 7, 5), (40, 1003, 64), (0, 4, 2), (4, 0, 2)])
def test_a_product_is_that_of_all_rows(shape):
    n, m, d = shape
    draw = np.random.default_rng(0)
    # whole numbers: their sums are exact in any order
    left, right = (draw.integers(-9, 10, (rows, d)).astype(np.float32) for rows in (n, m))
    out = np.full((n, m), np.nan, np.float32)
    assert blas.product(left, right, out=out) is out
    expected = [
        [sum(float(a) * float(b) for a, b in zip(x, y, strict=True)) for y in right] for x in left
    ]
    np.testing.assert_array_equal(out, np.reshape(expected, (n, m)))


def test_rows_of_no_width_have_the_product_zero():
    out = np.full((2, 3), np.nan, np.float32)
    blas.product(np.zeros((2, 0), np.float32), np.zeros((3, 0), np.float32), out=out)
    np.testing.assert_array_equal(out, np.zeros((2, 3)))


def test_a_part_of_a_buffer_is_filled_and_no_more():
    buffer = np.full((4, 3), 7, np.float32)
    blas.product(np.ones((2, 5), np.float32), np.ones((3, 5), np.float32), out=buffer[:2])
    np.testing.assert_array_equal(buffer, [[5] * 3, [5] * 3, [7] * 3, [7] * 3])


def test_what_blas_would_read_or_write_elsewhere_is_refused():
    left, right, out = (np.ones(shape, np.float32) for shape in ((2, 4), (3, 4), (2, 3)))
    for wrong in (
        (left.astype(np.float64), right, out),
        (left, right[:, ::2].repeat(2, 1).T, out),
        (left, np.asfortranarray(right), out),
        (left, right[:, :3], out),
        (left, right[:2], out),
        (left, right, out[:, :2]),
    ):
        with pytest.raises(ValueError, match=r"Expected C-contiguous float32 \[n, d\], \[m, d\]"):
            blas.product(*wrong[:2], out=wrong[2])


def test_threads_work_at_once_and_each_product_in_one():
    before, meet, seen = blas.threads(), Barrier(3), []

    def work() -> None:
        meet.wait(timeout=30)  # who came first waits for the others
        seen.append((current_thread().name, blas.threads()))
        meet.wait(timeout=30)

    blas.run_in_threads(work, 3)
    assert len(dict(seen)) == 3
    assert {limit for _, limit in seen} == {1}
    assert blas.threads() == before


def test_one_thread_is_this_one():
    names = []
    blas.run_in_threads(lambda: names.append(current_thread().name), 1)
    assert names == [current_thread().name]


def test_a_failure_in_a_thread_is_one_here():
    before = blas.threads()

    def fail() -> None:
        raise KeyError("what went wrong")

    with pytest.raises(KeyError, match="what went wrong"):
        blas.run_in_threads(fail, 2)
    assert blas.threads() == before


def test_an_earlier_limit_of_threads_is_kept():
    with threadpool_limits(1, "blas"):
        assert blas.threads() == 1
