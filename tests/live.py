"""An app on a port of its own in a thread, and a client: tests include HTTP itself."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import uvicorn


class Client(httpx.Client):
    """A client that can stop its server."""

    def __init__(self, server: uvicorn.Server, **options: Any) -> None:
        super().__init__(**options)
        self._server = server

    def stop(self) -> None:
        """Tell the server to stop, as SIGTERM does, and return when it has stopped listening."""
        self._server.should_exit = True
        while any(server.is_serving() for server in self._server.servers):
            time.sleep(0.01)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, deadlines: Any) -> None:
        super().__init__(config)
        self.deadlines = deadlines

    async def on_tick(self, counter: int) -> bool:
        if self.deadlines:
            self.deadlines.enforce(self.server_state.connections)
        return await super().on_tick(counter)


@contextlib.contextmanager
def served(app: Any, http: Any = "auto", deadlines: Any = None) -> Iterator[Client]:
    """Serve an app while the block runs.

    Args:
        app: the ASGI app.
        http: the protocol class of uvicorn.
        deadlines: deadlines that are enforced ten times a second, or None.
    """
    config = uvicorn.Config(app, port=0, log_level="critical", server_header=False, http=http)
    server = _Server(config, deadlines)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            thread.join(0.005)
            assert thread.is_alive(), "the server did not start"
        port = server.servers[0].sockets[0].getsockname()[1]
        with Client(server, base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()
