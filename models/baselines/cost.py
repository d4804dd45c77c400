"""Estimates the time and memory of inverting a dense matrix, before the matrix is inverted."""

from __future__ import annotations

import os
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import scipy.linalg
from threadpoolctl import threadpool_limits

from models.baselines.errors import CannotFit
from models.core.retriever import Floats

#: Largest estimated time, in seconds, that all fits of one baseline may take.
MAX_SECONDS = 900.0
#: A matrix with fewer rows is inverted faster by one thread than by several on a busy machine.
SMALL = 4_000
#: Side of the matrix with which the machine's speed is measured.
_SAMPLE = 800
_GIB = 2**30


@dataclass(frozen=True)
class Cost:
    """Estimated time and memory of one fit of a baseline, and the number of fits.

    Attributes:
        n_rows: the number of rows of the matrix that is inverted.
        operations: floating-point operations of a fit and of scoring every user once.
        bytes: the largest amount of memory in use at one time.
        fits: the smallest number of fits that the search will need.
    """

    n_rows: int
    operations: float
    bytes: float
    fits: int

    def sentence(self, what: str) -> str:
        """Return a sentence for the log that names the estimated time and memory of a fit.

        Raises:
            CannotFit: the fit needs more memory than is free, or more time than `MAX_SECONDS`.
        """
        seconds = self.operations / speed(self.n_rows)
        took = f"about {_time(seconds)} a fit on an idle machine and {self.bytes / _GIB:.1f} GiB"
        free = available_memory()
        if free is not None and self.bytes > free:
            raise CannotFit(
                f"{what}: it would take {took}; {free / _GIB:.1f} GiB of memory are free"
            )
        if seconds * self.fits > MAX_SECONDS:
            raise CannotFit(
                f"{what}: it would take {took}, at least {_time(seconds * self.fits)} for its "
                f"{self.fits} fits; the limit is {_time(MAX_SECONDS)}"
            )
        return f"{what}: {took}"


def _time(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{max(seconds, 0.1):.1f} s"


def speed(n_rows: int) -> float:
    """Return this machine's estimated floating-point operations per second in an inversion."""
    return _speed_of_a_core() * (1 if n_rows < SMALL else len(os.sched_getaffinity(0)))


@cache
def _speed_of_a_core() -> float:
    """Measure one thread's floating-point operations per second by inverting a small matrix.

    Processor time is measured, not wall-clock time, because other work on the machine must not
    decide which baselines run.
    """
    best = np.inf
    for _ in range(3):
        matrix = np.eye(_SAMPLE) * _SAMPLE + 1.0
        start = time.thread_time()
        with limit_threads(1):
            _invert(matrix)
        best = min(best, time.thread_time() - start)
    return _SAMPLE**3 / max(best, 1e-9)


def inverse(matrix: Floats) -> Floats:
    """Return the inverse of a symmetric positive definite float64 matrix, and overwrite the matrix.

    Raises:
        LinAlgError: the matrix is not positive definite.
    """
    with limit_threads(len(matrix)):
        inverted = _invert(matrix)
    for i in range(len(inverted)):  # LAPACK gives the upper half
        inverted[i + 1 :, i] = inverted[i, i + 1 :]
    return inverted


def _invert(matrix: Floats) -> Floats:
    """Return the upper triangle of the inverse of a positive definite matrix, by Cholesky."""
    # the transpose of a symmetric matrix is itself, in the order that LAPACK wants
    factor, fault = scipy.linalg.lapack.dpotrf(matrix.T, overwrite_a=True, clean=False)
    if fault:
        raise np.linalg.LinAlgError("the matrix is not positive definite")
    inverted, _ = scipy.linalg.lapack.dpotri(factor, overwrite_c=True)
    return np.asarray(inverted)


def limit_threads(n_rows: int) -> AbstractContextManager[object]:
    """Return a context manager that limits BLAS to one thread if the matrix is small."""
    return threadpool_limits(1 if n_rows < SMALL else None, user_api="blas")


def available_memory() -> int | None:
    """Return the bytes that this process can still allocate; None if the system does not report it.

    The result respects the memory limit of the container as well as the machine's free memory.
    """
    found = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [int(x.split()[1]) * 1024 for x in lines if x.startswith("MemAvailable:")]
    except OSError:
        pass
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        (
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        ),
    ):
        try:
            found.append(int(Path(limit).read_text()) - int(Path(used).read_text()))
        except (OSError, ValueError):  # no such file, or `max`
            continue
    return min(found, default=None)
