"""Holds the export from which the server answers, and replaces it by a newer one."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable

from workflows.ground.errors import ArtifactError, TwoTowerError
from workflows.serve.loaded_export import LoadedExport

log = logging.getLogger(__name__)


class CurrentExport:
    """Holds the export that answers requests.

    Each request uses one export from its start to its end.

    Args:
        open: the function that loads the export that is on disk.
        stamp: the function that returns a value that changes whenever the export on disk changes.
    """

    def __init__(self, open: Callable[[], LoadedExport], stamp: Callable[[], object]) -> None:
        self._open, self._stamp = open, stamp
        self._lock = threading.Lock()
        self._last_tried = stamp()
        self.served = open()
        self.reloads = 0
        self.refusals = 0

    def reload(self) -> LoadedExport:
        """Load the export on disk and switch to it; if that fails, keep the present one.

        Raises:
            TwoTowerError: the export on disk cannot be used.
        """
        with self._lock:
            self._last_tried = self._stamp()
            try:
                self.served = self._load()
            except Exception as error:
                self.refusals += 1
                log.warning("the new export was refused, %s stays: %s", self._name, error)
                if isinstance(error, TwoTowerError):
                    raise
                raise ArtifactError(f"The new export cannot be read: {error}") from error
            self.reloads += 1
            log.info("now serving %s", self._name)
            return self.served

    def try_reload(self) -> None:
        """Switch to the export on disk if possible, and log whether it succeeded."""
        with contextlib.suppress(TwoTowerError):
            self.reload()

    @property
    def is_reloading(self) -> bool:
        """Whether another export is being loaded."""
        return self._lock.locked()

    @property
    def has_changed_on_disk(self) -> bool:
        """Whether the export on disk differs from the one that was last loaded or tried."""
        return self._stamp() != self._last_tried

    def _load(self) -> LoadedExport:
        served = self._open()
        if self.served.has_towers:  # otherwise requests with raw values would wait for TensorFlow
            served.embed("users", [{}])
            served.embed("items", [{}])
        return served

    @property
    def _name(self) -> str:
        return f"export {self.served.health.export} of {self.served.health.exported}"
