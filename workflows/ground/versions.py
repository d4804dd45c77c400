"""Find the versions of the installed packages, without importing any of them."""

from __future__ import annotations

import contextlib
import sys
from importlib import metadata

_VERSIONS = ("merlin-two-tower", "nvtabular", "merlin-models", "merlin-core", "numpy", "pyarrow")
_TENSORFLOW = ("tensorflow", "tensorflow-cpu")


def versions() -> dict[str, str]:
    """Return the versions of Python, of this package and of its main dependencies."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in (*_VERSIONS, *_TENSORFLOW):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
