"""Answer over HTTP from an export, and change to a newer one without dropping a question."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass

import uvicorn
from threadpoolctl import threadpool_limits

from workflows.device import Device
from workflows.recipe import Recipe
from workflows.serve.app import build
from workflows.serve.current import Current
from workflows.serve.served import Served, stamps
from workflows.store import Store

log = logging.getLogger(__name__)

#: Where the key is told; an argument would be seen by everybody on the machine.
KEY = "TWO_TOWER_API_KEY"
#: Seconds that running questions get to end once the server is told to stop.
GRACE = 30


@dataclass(frozen=True)
class ServeResult:
    """What was served.

    Attributes:
        address: that it listened on.
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
) -> ServeResult:
    """Serve the export of a run until SIGTERM or SIGINT; SIGHUP loads a newer one.

    Args:
        recipe: names of columns, and the fallback.
        store: the run.
        device: chosen for this process; the raw towers run on it.
        host: to listen on; 127.0.0.1 hears this machine alone, 0.0.0.0 all.
        port: to listen on; 0 for any that is free.
        watch: seconds between looks for a newer export; 0 for never.

    Raises:
        MissingStage, StaleInput, ArtifactError: there is nothing to serve.
    """
    start = time.perf_counter()
    current = Current(lambda: Served.open(store, recipe), lambda: stamps(store))
    app = build(current, key=os.environ.get(KEY, ""), watch=watch)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=GRACE,
    )
    server = _Server(config, current)
    # questions run side by side: a product that takes all cores for one makes the others wait
    with threadpool_limits(1, "blas"), _calm():
        asyncio.run(server.serve())
    return ServeResult(server.address, current.reloads, time.perf_counter() - start)


@contextlib.contextmanager
def _calm() -> Iterator[None]:
    """Let the process live on after the signal that ended the server: uvicorn raises it again."""
    before = {n: signal.signal(n, lambda *_: None) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Server(uvicorn.Server):
    """Says where it listens, and hears SIGHUP."""

    def __init__(self, config: uvicorn.Config, current: Current) -> None:
        super().__init__(config)
        self.current = current
        self.address = ""

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        await super().startup(sockets)  # type: ignore[arg-type]
        if self.should_exit:
            return
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        self.address = f"http://{host}:{port}"
        loop = asyncio.get_running_loop()
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
