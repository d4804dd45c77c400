"""Run the jobs of etl in threads of this process, or in the processes of a Dask cluster.

Threads and Dask processes run the same functions on the same jobs. A job may run twice, because
Dask repeats the job of a worker that died; so a job writes its output under a temporary name and
renames it. The raw files and the run folder must have the same paths on the workers as in this
process.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FuturesTimeoutError
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import distributed

from workflows.etl.memory import Memory
from workflows.ground.device import Device
from workflows.ground.errors import DeviceError, RecipeError

#: Address of the dashboard of a Dask cluster: any free port, on this machine only. Without an
#: address Dask listens on port 8787 of all interfaces, and a second cluster logs a warning.
LOOPBACK = "127.0.0.1:0"
#: Time within which a scheduler has to answer.
TIMEOUT = "10s"
#: Seconds within which a cluster has to start; on an idle machine it takes five.
STARTING = 120.0
#: Seconds within which a worker has to end; on an idle machine it takes one.
CLOSING = 30.0

Task = TypeVar("Task")
Result = TypeVar("Result")
Closable = TypeVar("Closable", bound=Any)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Workers:
    """The thread pool or Dask client that runs the jobs of etl, and the number of its workers.

    Attributes:
        executor: executor or Dask client to which jobs are submitted.
        number: number of jobs that run at the same time.
        are_elsewhere: whether jobs run in other processes.
        queued: number of further jobs that are submitted before a job has ended.
    """

    executor: Executor | distributed.Client
    number: int
    are_elsewhere: bool = False
    queued: int = 1

    def limited(self, number: int) -> Workers:
        """Return the same workers, of which fewer work at a time, to save memory."""
        return replace(self, number=min(self.number, number), queued=0)

    def map(self, function: Callable[[Task], Result], jobs: Iterable[Task]) -> Iterator[Result]:
        """Run a function on each job, and yield the results in the order of the jobs.

        Only a few jobs are submitted before the results of earlier jobs have been yielded.

        Raises:
            DeviceError: several worker processes died while they ran the same job.
        """
        options: dict[str, Any] = {"pure": False} if self.are_elsewhere else {}
        waiting: deque[Any] = deque()
        try:
            for job in jobs:
                waiting.append(self.executor.submit(function, job, **options))
                if len(waiting) >= self.number + self.queued:
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
            f"Workers died repeatedly while they ran the same job ({error}). The likely cause is "
            "too little memory: use fewer --workers or a lower --memory-limit, and read the "
            "workers' logs."
        ) from None


@contextmanager
def open_workers(dask: str, *, number: int, device: Device, memory: Memory) -> Iterator[Workers]:
    """Return a context with threads or Dask workers, which run the jobs of etl until its exit.

    Args:
        dask: where jobs run: "" in threads of this process, `local` in processes on this machine,
            `cuda` in one process per GPU, or the address of a Dask scheduler.
        number: number of threads or processes; 0 for the number of cores, workers or GPUs.
        device: device (CPU or GPU) of this process.
        memory: memory limit of all workers together.

    Raises:
        RecipeError: `dask` is neither "", `local` or `cuda`, nor an address.
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
    """Yield the Dask cluster, or the address of its scheduler, to which a Dask client connects."""
    if dask == "local":
        n = number or os.cpu_count() or 1
        with local_cluster(n, memory_limit=memory.limit // n) as cluster:
            yield cluster
    elif dask == "cuda":
        if device.kind != "gpu":
            raise DeviceError(f"--dask cuda needs a GPU, and this process has none: {device.why}.")
        from dask_cuda import LocalCUDACluster  # not exercised on a GPU in CI

        with _closing(
            start_in_time(
                lambda: LocalCUDACluster(n_workers=number or None, dashboard_address=LOOPBACK)
            )
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
    """A Dask nanny that supervises a worker process, and gives it enough time to end.

    Dask's Nanny kills a worker after three seconds, which is too early on a busy machine, and fails
    if the process still exists one second later.
    """

    async def close(self, timeout: float = CLOSING, reason: str = "nanny-close") -> Any:
        return await super().close(timeout=max(timeout, CLOSING), reason=reason)


@contextmanager
def local_cluster(n: int, *, memory_limit: int) -> Iterator[distributed.LocalCluster]:
    """Start a Dask scheduler and worker processes on this machine, and yield their cluster.

    Args:
        n: number of workers.
        memory_limit: bytes that each worker may take.

    Raises:
        DeviceError: the workers do not start in time.
    """

    def start() -> distributed.LocalCluster:
        return distributed.LocalCluster(
            n_workers=n,
            threads_per_worker=1,
            memory_limit=memory_limit,
            host="127.0.0.1",
            dashboard_address=LOOPBACK,
            silence_logs=logging.CRITICAL,
            worker_class=_PatientNanny,
        )

    with _closing(start_in_time(start)) as cluster:
        yield cluster


def start_in_time(start: Callable[[], Result]) -> Result:
    """Call a function that starts a Dask cluster; end its processes if it takes too long.

    Dask waits without a limit for a worker process that does not answer.

    Raises:
        DeviceError: `start` takes too long.
    """
    others, found = set(multiprocessing.active_children()), Future[Result]()

    def run() -> None:
        try:
            found.set_result(start())
        except BaseException as error:
            found.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return found.result(STARTING)
    except FuturesTimeoutError:
        for process in set(multiprocessing.active_children()) - others:
            process.kill()
        raise DeviceError(
            f"The Dask workers did not start within {STARTING:.0f} s. Give fewer --workers, wait "
            "until the machine has less to do, or leave --dask out, which uses threads."
        ) from None


@contextmanager
def _client(cluster: Any) -> Iterator[distributed.Client]:
    try:
        client = distributed.Client(cluster, set_as_default=False, timeout=TIMEOUT)
    except OSError as error:
        raise DeviceError(
            f"No Dask scheduler answers at {cluster} ({error}). Start one with `dask scheduler`, "
            "or use --dask local."
        ) from None
    with _closing(client):
        yield client


@contextmanager
def _closing(resource: Closable) -> Iterator[Closable]:
    """Return a context that closes a Dask client or cluster; a timeout is only logged."""
    try:
        yield resource
    finally:
        try:
            resource.close(timeout=2 * CLOSING)
        except (asyncio.TimeoutError, OSError) as error:  # all results were received before
            log.warning("Dask did not stop in %s s: %r", 2 * CLOSING, error)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Dask's log about the start and end of its processes; errors of jobs are raised."""
    dask = logging.getLogger("distributed")
    level = dask.level
    dask.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        dask.setLevel(level)
