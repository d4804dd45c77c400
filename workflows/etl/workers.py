"""Who does the work: threads of this process, or the worker processes of a Dask cluster.

The work is the same functions on the same jobs. A job may be done twice (a worker that dies loses
what it was at), so a job writes what it makes aside and renames it. A cluster's workers must see
the raw files and the run folder under the paths of this process.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import distributed

from workflows.device import Device
from workflows.errors import DeviceError, RecipeError
from workflows.etl.memory import Memory

#: Where a cluster answers about itself: this machine alone, any port. With no address at all it
#: takes port 8787 of every interface, and a second cluster complains.
LOOPBACK = "127.0.0.1:0"
#: How long a scheduler may take to answer.
TIMEOUT = "10s"

Job = TypeVar("Job")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Workers:
    """Somebody who does jobs.

    Attributes:
        executor: takes a function and its job.
        number: of jobs that are done at a time.
        are_elsewhere: whether jobs leave this process.
    """

    executor: Executor | distributed.Client
    number: int
    are_elsewhere: bool = False

    def map(self, function: Callable[[Job], Made], jobs: Iterable[Job]) -> Iterator[Made]:
        """Yield what a function makes of each job, in their order; few jobs wait at a time.

        Raises:
            DeviceError: workers died of one job again and again.
        """
        options: dict[str, Any] = {"pure": False} if self.are_elsewhere else {}
        waiting: deque[Any] = deque()
        try:
            for job in jobs:
                waiting.append(self.executor.submit(function, job, **options))
                if len(waiting) > self.number:
                    yield _result(waiting.popleft())
            while waiting:
                yield _result(waiting.popleft())
        finally:
            for future in waiting:
                future.cancel()


def _result(future: Any) -> Any:
    try:
        return future.result()
    except distributed.KilledWorker as error:
        raise DeviceError(
            f"Workers died of one job again and again ({error}). Look for too little memory: give "
            "fewer --workers or a lower --memory-limit, and see the workers' logs."
        ) from None


@contextmanager
def hired(dask: str, *, number: int, device: Device, memory: Memory) -> Iterator[Workers]:
    """Start workers, and let them go at the end.

    Args:
        dask: "" for threads of this process, `local` for processes on this machine, `cuda` for one
            process a GPU, or the address of a scheduler.
        number: of threads or processes; 0 for as many as there are cores, workers or GPUs.
        device: of this process.
        memory: what all of them together may take.

    Raises:
        RecipeError: an address that is none.
        DeviceError: no scheduler answers, or there is no GPU.
    """
    cores = number or os.cpu_count() or 1
    if not dask:
        with ThreadPoolExecutor(cores) as executor:
            yield Workers(executor, cores)
        return
    with _cluster(dask, number, device, memory) as cluster, _client(cluster) as client:
        there = client.scheduler_info()["workers"]
        yield Workers(client, max(1, number or len(there)), are_elsewhere=True)


@contextmanager
def _cluster(dask: str, number: int, device: Device, memory: Memory) -> Iterator[Any]:
    """Yield what a client connects to."""
    if dask == "local":
        n = number or os.cpu_count() or 1
        with distributed.LocalCluster(
            n_workers=n,
            threads_per_worker=1,
            memory_limit=memory.limit // n,
            host="127.0.0.1",
            dashboard_address=LOOPBACK,
            silence_logs=logging.ERROR,
        ) as cluster:
            yield cluster
    elif dask == "cuda":
        if device.kind != "gpu":
            raise DeviceError(f"--dask cuda needs a GPU, and this process has none: {device.why}.")
        from dask_cuda import LocalCUDACluster  # not exercised on a GPU in CI

        with LocalCUDACluster(n_workers=number or None, dashboard_address=LOOPBACK) as cluster:
            yield cluster
    elif "://" in dask:
        yield dask
    else:
        raise RecipeError(
            f"--dask is {dask!r}; expected local, cuda, or a scheduler such as "
            "tcp://127.0.0.1:8786."
        )


@contextmanager
def _client(cluster: Any) -> Iterator[distributed.Client]:
    try:
        client = distributed.Client(cluster, set_as_default=False, timeout=TIMEOUT)
    except OSError as error:
        raise DeviceError(
            f"No Dask scheduler answers at {cluster} ({error}). Start one with `dask scheduler`, "
            "or use --dask local."
        ) from None
    with client:
        yield client
