"""Apply a function to several columns at once; NumPy and Arrow release Python's lock meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


def map_threads(keys: Iterable[Key], function: Callable[[Key], Value]) -> dict[Key, Value]:
    """Call a function for each key in threads, and return key → result in the order of the keys.

    Raises:
        Exception: the function raised it for the first of the keys that failed.
    """
    keys = list(keys)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return dict(zip(keys, threads.map(function, keys), strict=True))
