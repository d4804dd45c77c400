"""Who does the work: threads of this process, or the worker processes of a Dask cluster.

The work is the same functions on the same jobs. A job may be done twice (a worker that dies loses
what it was at), so a job writes what it makes aside and renames it. A cluster's workers must see
the raw files and the run folder under the paths of this process.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import distributed

from workflows.etl.memory import Memory
from workflows.ground.device import Device
from workflows.ground.errors import DeviceError, RecipeError

#: Where a cluster answers about itself: this machine alone, any port. With no address at all it
#: takes port 8787 of every interface, and a second cluster complains.
LOOPBACK = "127.0.0.1:0"
#: How long a scheduler may take to answer.
TIMEOUT = "10s"
#: Seconds that a worker may take to end; it takes one where the machine is idle.
CLOSING = 30.0

Job = TypeVar("Job")
Made = TypeVar("Made")
Closed = TypeVar("Closed", bound=Any)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Workers:
    """Somebody who does jobs.

    Attributes:
        executor: takes a function and its job.
        number: the number of jobs that are done at a time.
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
        number: number of threads or processes; 0 for as many as there are cores, workers or GPUs.
        device: the device of this process.
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
    with (
        _quiet(),
        _cluster(dask, number, device, memory) as cluster,
        _client(cluster) as client,
    ):
        there = client.scheduler_info()["workers"]
        yield Workers(client, max(1, number or len(there)), are_elsewhere=True)


@contextmanager
def _cluster(dask: str, number: int, device: Device, memory: Memory) -> Iterator[Any]:
    """Yield what a client connects to."""
    if dask == "local":
        n = number or os.cpu_count() or 1
        with local_cluster(n, memory_limit=memory.limit // n) as cluster:
            yield cluster
    elif dask == "cuda":
        if device.kind != "gpu":
            raise DeviceError(f"--dask cuda needs a GPU, and this process has none: {device.why}.")
        from dask_cuda import LocalCUDACluster  # not exercised on a GPU in CI

        with _closed(
            LocalCUDACluster(n_workers=number or None, dashboard_address=LOOPBACK)
        ) as gpus:
            yield gpus
    elif "://" in dask:
        yield dask
    else:
        raise RecipeError(
            f"--dask is {dask!r}; expected local, cuda, or a scheduler such as "
            "tcp://127.0.0.1:8786."
        )


class _PatientNanny(distributed.Nanny):
    """Starts and ends a worker process, and lets it take its time to end.

    Dask's own kills a worker after three seconds, which a busy machine needs, and fails if the
    killed one is not gone within another one.
    """

    async def close(self, timeout: float = CLOSING, reason: str = "nanny-close") -> Any:
        return await super().close(timeout=max(timeout, CLOSING), reason=reason)


@contextmanager
def local_cluster(n: int, *, memory_limit: int) -> Iterator[distributed.LocalCluster]:
    """Yield a scheduler and worker processes on this machine.

    Args:
        n: how many workers.
        memory_limit: bytes that each may take.
    """
    cluster = distributed.LocalCluster(
        n_workers=n,
        threads_per_worker=1,
        memory_limit=memory_limit,
        host="127.0.0.1",
        dashboard_address=LOOPBACK,
        silence_logs=logging.CRITICAL,
        worker_class=_PatientNanny,
    )
    with _closed(cluster):
        yield cluster


@contextmanager
def _client(cluster: Any) -> Iterator[distributed.Client]:
    try:
        client = distributed.Client(cluster, set_as_default=False, timeout=TIMEOUT)
    except OSError as error:
        raise DeviceError(
            f"No Dask scheduler answers at {cluster} ({error}). Start one with `dask scheduler`, "
            "or use --dask local."
        ) from None
    with _closed(client):
        yield client


@contextmanager
def _closed(what: Closed) -> Iterator[Closed]:
    """Close a client or a cluster at the end; one that does not close in time fails nothing."""
    try:
        yield what
    finally:
        try:
            what.close(timeout=2 * CLOSING)
        except (asyncio.TimeoutError, OSError) as error:  # all results are there already
            log.warning("Dask did not stop in %s s: %r", 2 * CLOSING, error)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Dask from telling how its processes come and go; what fails a job is raised."""
    dask = logging.getLogger("distributed")
    level = dask.level
    dask.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        dask.setLevel(level)
