"""Which export answers now, and how a newer one takes its place."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable

from workflows.ground.errors import ArtifactError, TwoTowerError
from workflows.serve.served import Served

log = logging.getLogger(__name__)


class Current:
    """The export that answers now. Questions that began with an older one end with it.

    Args:
        open: loads what lies on disk.
        stamp: returns what changes when that does.
    """

    def __init__(self, open: Callable[[], Served], stamp: Callable[[], object]) -> None:
        self._open, self._stamp = open, stamp
        self._lock = threading.Lock()
        self._tried = stamp()
        self.now = open()
        self.reloads = 0
        self.refusals = 0

    def reload(self) -> Served:
        """Load what lies on disk and switch to it; if that fails, the old one stays.

        Raises:
            TwoTowerError: what lies there cannot be used.
        """
        with self._lock:
            self._tried = self._stamp()
            try:
                self.now = self._newer()
            except Exception as error:
                self.refusals += 1
                log.warning("the new export was refused, %s stays: %s", self._name, error)
                if isinstance(error, TwoTowerError):
                    raise
                raise ArtifactError(f"The new export cannot be read: {error}") from error
            self.reloads += 1
            log.info("now serving %s", self._name)
            return self.now

    @property
    def is_reloading(self) -> bool:
        """Whether another export is being loaded."""
        return self._lock.locked()

    def renew(self) -> None:
        """Reload if that is possible; the log says how it went."""
        with contextlib.suppress(TwoTowerError):
            self.reload()

    @property
    def changed(self) -> bool:
        """Whether something else lies on disk than what was tried last."""
        return self._stamp() != self._tried

    def _newer(self) -> Served:
        newer = self._open()
        if self.now.has_towers:  # who tells raw values should not wait for TensorFlow again
            newer.embed("users", [{}])
            newer.embed("items", [{}])
        return newer

    @property
    def _name(self) -> str:
        return f"export {self.now.health.export} of {self.now.health.exported}"
