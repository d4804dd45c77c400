"""Matrix products in several Python threads, by a direct call of SciPy's BLAS.

NumPy 1.23 contains a BLAS library of 2022, which uses old instructions on newer processors and is
then 4 times slower (benchmarks/NOTES.md). SciPy's wrapper of its newer BLAS holds Python's global
interpreter lock during a product; a call by ctypes releases the lock.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Lock

import numpy as np
import numpy.typing as npt
from scipy.linalg import cython_blas
from threadpoolctl import ThreadpoolController

Matrix = npt.NDArray[np.float32]


def _function(name: str, n_arguments: int) -> Callable[..., None]:
    """Return a C function of SciPy's BLAS for calls by ctypes; each argument is a pointer."""
    capsule = cython_blas.__pyx_capi__[name]
    library = ctypes.pythonapi
    name_of = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(("PyCapsule_GetName", library))
    address_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_GetPointer", library)
    )
    signature = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * n_arguments)
    return signature(address_of(capsule, name_of(capsule)))


_SGEMM = _function("sgemm", 13)


def product(left: Matrix, right: Matrix, *, out: Matrix) -> Matrix:
    """Write all dot products of the rows of two matrices into `out`, and return it.

    Args:
        left: the left matrix, float32 [n, d], C-contiguous.
        right: the matrix whose transpose is the right factor, float32 [m, d], C-contiguous.
        out: the matrix that takes the dot products, float32 [n, m], C-contiguous.

    Raises:
        ValueError: a matrix does not have the shape, type and memory order above.
    """
    matrices = (left, right, out)
    fit = out.shape == (len(left), len(right)) and left.shape[1:] == right.shape[1:]
    if not fit or any(m.dtype != np.float32 or not m.flags.c_contiguous for m in matrices):
        raise ValueError(  # BLAS would read or write other memory
            "Expected C-contiguous float32 [n, d], [m, d] and [n, m]. "
            f"Received: {[(str(m.dtype), m.shape, m.strides) for m in matrices]}."
        )
    n, (m, d) = len(left), right.shape
    if not out.size:
        return out
    # BLAS stores matrices by columns: for it, `right` is [d, m], `left` [d, n] and `out` [m, n]
    sizes = [ctypes.byref(ctypes.c_int(size)) for size in (m, n, d, max(1, d))]
    one, zero = (ctypes.byref(ctypes.c_float(x)) for x in (1.0, 0.0))
    transposed, as_is = (ctypes.byref(ctypes.c_char(c)) for c in (b"T", b"N"))
    a, b, c = (matrix.ctypes.data for matrix in (right, left, out))
    _SGEMM(transposed, as_is, *sizes[:3], one, a, sizes[3], b, sizes[3], zero, c, sizes[0])
    return out


@cache
def _libraries() -> ThreadpoolController:
    """Return handles of the BLAS libraries that this process has loaded (cached)."""
    return ThreadpoolController().select(user_api="blas")


def threads() -> int:
    """Return the number of threads that BLAS uses for a matrix product."""
    return min((library.num_threads for library in _libraries().lib_controllers), default=1)


#: Only one thread at a time may limit the threads of BLAS; its end would undo another's limit.
_LIMIT_LOCK = Lock()


def run_in_threads(work: Callable[[], None], n_threads: int) -> None:
    """Run a function in several threads at the same time; a matrix product in them uses one thread.

    The threads of BLAS wait for each other at the end of every matrix product, even if another
    process uses one of the cores. The Python threads of this function do not wait for each other.

    Args:
        work: the function to run, which takes tasks from a shared iterator until none is left.
        n_threads: number of Python threads; with 1, the function runs in the calling thread, and
            BLAS may use several threads.
    """
    if n_threads == 1:
        work()
        return
    with _LIMIT_LOCK, _libraries().limit(limits=1), ThreadPoolExecutor(n_threads) as pool:
        for done in [pool.submit(work) for _ in range(n_threads)]:
            done.result()
