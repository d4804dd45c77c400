"""An app on a port of its own, in a thread, and a client: the wire is tested, too."""

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


@contextlib.contextmanager
def served(app: Any) -> Iterator[Client]:
    """Serve an app while the block runs."""
    config = uvicorn.Config(app, port=0, log_level="critical", server_header=False)
    server = uvicorn.Server(config)
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
