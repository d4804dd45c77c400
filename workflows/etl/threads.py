"""Apply a function to several columns in parallel threads, as NumPy and Arrow release the GIL."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


def map_threads(keys: Iterable[Key], function: Callable[[Key], Value]) -> dict[Key, Value]:
    """Call a function for each key in threads; return a map from keys to results, in key order.

    Raises:
        Exception: the exception of the function for the first key (in their order) that failed.
    """
    keys = list(keys)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return dict(zip(keys, threads.map(function, keys), strict=True))
