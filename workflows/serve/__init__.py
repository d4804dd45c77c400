"""Answer over HTTP from an export, and change to a newer one without dropping a question."""

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
from workflows.serve.connections import Connection, Deadlines, Seldom, quiet_loop, room
from workflows.serve.current import Current
from workflows.serve.limits import LIMITS
from workflows.serve.listening import KEY, bound, explained, names_of, shown, warn_if_open
from workflows.serve.served import Served, stamps
from workflows.stages.store import Store

log = logging.getLogger(__name__)

#: What uvicorn, asyncio and we complain through, when a stranger makes us.
_COMPLAINTS = ("uvicorn.error", "asyncio", "workflows.serve.connections")


@dataclass(frozen=True)
class ServeResult:
    """What was served.

    Attributes:
        address: the address that it listened on.
        reloads: newer exports that it changed to.
        seconds: in all.
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
    grace: float = LIMITS.grace,
) -> ServeResult:
    """Serve the export of a run until SIGTERM or SIGINT; SIGHUP loads a newer one.

    Args:
        recipe: names of columns, and the fallback.
        store: the run.
        device: chosen for this process; the raw towers run on it.
        host: to listen on; 127.0.0.1 hears this machine alone, 0.0.0.0 all.
        port: to listen on; 0 for any that is free.
        watch: seconds between looks for a newer export; 0 for never.
        allow_hosts: names that the server is asked by, beside its own; "*" for any.
        grace: seconds that running questions get to end once the server is told to stop.

    Raises:
        MissingStage, StaleInput, ArtifactError: there is nothing to serve.
        AddressError: the address cannot be listened on.
    """
    start = time.perf_counter()
    sockets = bound(host, port)  # before the export is read, which takes longer
    with contextlib.ExitStack() as close:
        for one in sockets:
            close.callback(one.close)
        current = Current(lambda: Served.open(store, recipe), lambda: stamps(store))
        key = os.environ.get(KEY, "")
        warn_if_open(host, key)
        app = build(current, key=key, watch=watch, hosts=names_of(host, allow_hosts))
        server = _Server(app, current, grace)
        with explained(host, port):
            _run(server, sockets)
    return ServeResult(server.address, current.reloads, time.perf_counter() - start)


def _run(server: _Server, sockets: list[socket.socket]) -> None:
    # questions run side by side: a product that takes all cores for one makes the others wait
    with threadpool_limits(1, "blas"), server.hears_signals(), _seldom():
        asyncio.run(server.serve(sockets))


@contextlib.contextmanager
def _seldom() -> Iterator[None]:
    """Keep strangers from filling the log."""
    loggers, few = [logging.getLogger(name) for name in _COMPLAINTS], Seldom()
    for logger in loggers:
        logger.addFilter(few)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(few)


class _Server(uvicorn.Server):
    """Says where it listens, hears SIGHUP, keeps its deadlines, and stops when it is told to.

    Args:
        app: the app that answers.
        current: what it answers from.
        grace: seconds that running questions get to end.
    """

    def __init__(self, app: object, current: Current, grace: float) -> None:
        Connection.most = room(LIMITS)
        super().__init__(
            uvicorn.Config(
                app,  # type: ignore[arg-type]
                http=Connection,
                ws="none",
                backlog=LIMITS.accepted,
                access_log=False,
                log_level="warning",
                server_header=False,
                # a little sooner than the process ends, so that it can end in order
                timeout_graceful_shutdown=max(0.1, grace - 1),  # type: ignore[arg-type]
            )
        )
        self.current, self.address, self._grace = current, "", grace
        self._deadlines = Deadlines(LIMITS)
        self._last_resort: threading.Timer | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        quiet_loop(loop)
        await super().startup(sockets)
        if self.should_exit:
            return
        for one in sockets or []:
            one.listen(LIMITS.backlog)  # asyncio takes as many in one go as it lets the kernel hold
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        self.address = f"http://{shown(host)}:{port}"
        loop.add_signal_handler(
            signal.SIGHUP, lambda: loop.run_in_executor(None, self.current.renew)
        )
        health = self.current.now.health
        log.info(
            "serving %s users and %s items of %s on %s",
            f"{health.users:,}",
            f"{health.items:,}",
            health.run,
            self.address,
        )

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:  # once a second
            self._deadlines.look(self.server_state.connections)
        return await super().on_tick(counter)

    @contextlib.contextmanager
    def hears_signals(self) -> Iterator[None]:
        """Stop in order at the first SIGTERM or SIGINT, within the grace, and at once at the next.

        The handlers stay when the event loop is closed, until the last thread has ended: Python
        would wait for it without a bound.
        """
        numbers, threads = (signal.SIGTERM, signal.SIGINT), set(threading.enumerate())
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            if self._last_resort:
                for thread in set(threading.enumerate()) - threads:
                    if not thread.daemon:
                        thread.join()
                self._last_resort.cancel()
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # uvicorn would forget them before the loop is closed, and raise them again

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            _end(f"stopped at once by a second {signal.Signals(sig).name}", 128 + sig)
        self.should_exit = True
        said = f"stopped: what was running did not end within {self._grace:g} s"
        self._last_resort = threading.Timer(self._grace, _end, (said, 1))
        self._last_resort.daemon = True
        self._last_resort.start()


def _end(why: str, code: int) -> None:
    """End the process, whatever its threads do."""
    log.warning(why)
    os._exit(code)
