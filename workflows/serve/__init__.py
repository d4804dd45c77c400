"""The verb `serve`: answer over HTTP from a run's export; load newer exports without downtime."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import FrameType

import uvicorn
from threadpoolctl import threadpool_limits

from workflows.ground.device import Device
from workflows.recipe import Recipe
from workflows.serve.app import build
from workflows.serve.connections import (
    Connection,
    Deadlines,
    RepeatFilter,
    log_loop_errors,
    reserve_files,
)
from workflows.serve.current_export import CurrentExport
from workflows.serve.limits import LIMITS
from workflows.serve.listening import (
    KEY,
    allowed_hosts,
    bind,
    explain_address_errors,
    host_in_url,
    warn_if_exposed,
)
from workflows.serve.loaded_export import LoadedExport, stamps
from workflows.stages.store import Store

log = logging.getLogger(__name__)

#: Names of loggers whose warnings clients of the server can cause.
_LOGGERS = ("uvicorn.error", "asyncio", "workflows.serve.connections")


@dataclass(frozen=True)
class ServeResult:
    """The facts that a server reports after it has stopped.

    Attributes:
        address: the address that the server listened on.
        reloads: number of times that the server switched to a newer export.
        seconds: how long the server ran.
    """

    address: str
    reloads: int
    seconds: float


def serve(
    recipe: Recipe,
    store: Store,
    device: Device,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    watch: float = 5.0,
    allow_hosts: Sequence[str] = (),
    grace: float = LIMITS.grace_seconds,
) -> ServeResult:
    """Serve the export of a run until SIGTERM or SIGINT; SIGHUP loads a newer export.

    Args:
        recipe: the recipe of the run, which names the columns and the fallback for unknown users.
        store: the folder of the run, with its finished stages.
        device: the device of this process; the towers that take raw values (text and numbers) run
            on it.
        host: address to listen on: 127.0.0.1 for this machine only, 0.0.0.0 for all machines.
        port: port to listen on; 0 for any free port.
        watch: seconds between two checks for a newer export; 0 for no checks.
        allow_hosts: further host names that requests may give; "*" for all.
        grace: seconds that running requests may take after the signal to stop.

    Raises:
        MissingStage, StaleInput, ArtifactError: the run has no export that can be served.
        AddressError: the server cannot listen on the address.
    """
    start = time.perf_counter()
    sockets = bind(host, port)  # first: an error shows before the export is read, which is slow
    with contextlib.ExitStack() as close:
        for one in sockets:
            close.callback(one.close)
        current = CurrentExport(lambda: LoadedExport.open(store, recipe), lambda: stamps(store))
        key = os.environ.get(KEY, "")
        warn_if_exposed(host, key)
        app = build(current, key=key, watch=watch, hosts=allowed_hosts(host, allow_hosts))
        server = _Server(app, current, grace)
        with explain_address_errors(host, port):
            _run(server, sockets)
    return ServeResult(server.address, current.reloads, time.perf_counter() - start)


def _run(server: _Server, sockets: list[socket.socket]) -> None:
    # requests run concurrently: a matrix product on all cores would make the other requests wait
    with threadpool_limits(1, "blas"), server.handle_signals(), _filter_repeated_warnings():
        asyncio.run(server.serve(sockets))


@contextlib.contextmanager
def _filter_repeated_warnings() -> Iterator[None]:
    """Drop repeated warnings from the log, so that clients cannot fill it."""
    loggers, repeat_filter = [logging.getLogger(name) for name in _LOGGERS], RepeatFilter()
    for logger in loggers:
        logger.addFilter(repeat_filter)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(repeat_filter)


class _Server(uvicorn.Server):
    """A uvicorn server that reloads the export on SIGHUP and closes late connections.

    Args:
        app: the ASGI app.
        current: the export from which requests are answered.
        grace: seconds that running requests may take after the signal to stop.
    """

    def __init__(self, app: object, current: CurrentExport, grace: float) -> None:
        Connection.max_connections = reserve_files(LIMITS)
        super().__init__(
            uvicorn.Config(
                app,  # type: ignore[arg-type]
                http=Connection,
                ws="none",
                backlog=LIMITS.accepted,
                access_log=False,
                log_level="warning",
                server_header=False,
                # a second less than the grace, so that the process can then end in order
                timeout_graceful_shutdown=max(0.1, grace - 1),  # type: ignore[arg-type]
            )
        )
        self.current, self.address, self._grace = current, "", grace
        self._deadlines = Deadlines(LIMITS)
        self._kill_timer: threading.Timer | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        log_loop_errors(loop)
        await super().startup(sockets)
        if self.should_exit:
            return
        for one in sockets or []:
            # asyncio accepts `backlog` connections at a time; the kernel may queue more than that
            one.listen(LIMITS.backlog)
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        self.address = f"http://{host_in_url(host)}:{port}"
        loop.add_signal_handler(
            signal.SIGHUP, lambda: loop.run_in_executor(None, self.current.try_reload)
        )
        health = self.current.served.health
        log.info(
            "serving %s users and %s items of %s on %s",
            f"{health.users:,}",
            f"{health.items:,}",
            health.run,
            self.address,
        )

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:  # once a second
            self._deadlines.enforce(self.server_state.connections)
        return await super().on_tick(counter)

    @contextlib.contextmanager
    def handle_signals(self) -> Iterator[None]:
        """Stop within the grace period at the first SIGTERM or SIGINT, and at once at the second.

        The signal handlers stay until all threads have ended, even after the event loop is closed:
        without them, Python would wait for the threads without a time limit.
        """
        numbers, threads = (signal.SIGTERM, signal.SIGINT), set(threading.enumerate())
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            if self._kill_timer:
                for thread in set(threading.enumerate()) - threads:
                    if not thread.daemon:
                        thread.join()
                self._kill_timer.cancel()
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # uvicorn would restore its handlers before the loop is closed, and raise the signal

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            _end_process(f"stopped at once by a second {signal.Signals(sig).name}", 128 + sig)
        self.should_exit = True
        reason = f"stopped: running requests did not end within {self._grace:g} s"
        self._kill_timer = threading.Timer(self._grace, _end_process, (reason, 1))
        self._kill_timer.daemon = True
        self._kill_timer.start()


def _end_process(reason: str, code: int) -> None:
    """End the server process, even if threads are still running."""
    log.warning(reason)
    os._exit(code)
