"""SciPy's matrix product beside other threads, and the number of threads that there may be.

SciPy's BLAS, not NumPy's: NumPy 1.23 brings one of 2022, which does not know the processors made
since and then uses the instructions of 2004 (4 times slower, benchmarks/NOTES.md). SciPy's own
wrapper keeps the interpreter's lock while it multiplies; a call by ctypes of the same function lets
go of it.
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
    """Return a function of SciPy's BLAS; all of its arguments are addresses."""
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
        left: float32 [n, d], rows one after another.
        right: float32 [m, d], the same.
        out: float32 [n, m], the same.

    Raises:
        ValueError: for a matrix of another shape, type or order in memory.
    """
    matrices = (left, right, out)
    fit = out.shape == (len(left), len(right)) and left.shape[1:] == right.shape[1:]
    if not fit or any(m.dtype != np.float32 or not m.flags.c_contiguous for m in matrices):
        raise ValueError(  # what else BLAS read would be memory of somebody else
            "Expected float32 [n, d], [m, d] and [n, m], rows one after another. "
            f"Received: {[(str(m.dtype), m.shape, m.strides) for m in matrices]}."
        )
    n, (m, d) = len(left), right.shape
    if not out.size:
        return out
    # BLAS counts columns first: it sees [d, m] turned around, times [d, n], into [m, n]
    sizes = [ctypes.byref(ctypes.c_int(size)) for size in (m, n, d, max(1, d))]
    one, zero = (ctypes.byref(ctypes.c_float(x)) for x in (1.0, 0.0))
    turned, plain = (ctypes.byref(ctypes.c_char(c)) for c in (b"T", b"N"))
    a, b, c = (matrix.ctypes.data for matrix in (right, left, out))
    _SGEMM(turned, plain, *sizes[:3], one, a, sizes[3], b, sizes[3], zero, c, sizes[0])
    return out


@cache
def _libraries() -> ThreadpoolController:
    """Return the BLAS libraries of this process; looking for them takes milliseconds."""
    return ThreadpoolController().select(user_api="blas")


def threads() -> int:
    """Return how many threads a product would take here, by the environment or a limit."""
    return min((library.num_threads for library in _libraries().lib_controllers), default=1)


#: Who limits the threads of BLAS must be alone, or the first to end would undo the other's limit.
_ALONE = Lock()


def side_by_side(work: Callable[[], None], n_threads: int) -> None:
    """Run a function in several threads at once, each with products of one thread.

    The threads of a BLAS wait for one another at the end of every product, and for whichever core
    is taken by somebody else; these never do.

    Args:
        work: takes what is still to be done, until nothing is left.
        n_threads: that work; with one it is this thread, and a product takes what it likes.
    """
    if n_threads == 1:
        work()
        return
    with _ALONE, _libraries().limit(limits=1), ThreadPoolExecutor(n_threads) as pool:
        for done in [pool.submit(work) for _ in range(n_threads)]:
            done.result()
