"""Runs `two-tower` in forked children of a process that has imported TensorFlow.

So a verb takes a fraction of a second, as nothing is imported again. The parent must not start
threads or run operations of TensorFlow: they do not work in a forked child.
"""

from __future__ import annotations

import importlib
import os
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

_VERBS = (
    "cli",
    "etl",
    "recipe",
    "recommend",
    "index",
    "load",
    "load.opensearch",
    "triton",
    "stages.store",
)
#: Modules that verbs import when they are called. Merlin models run operations when they are
#: imported, so only the children that need them import them.
_MODULES = ("faiss", "h5py", "pyarrow.dataset", "tensorflow", *(f"workflows.{v}" for v in _VERBS))


def preload() -> None:
    """Import the modules that verbs need, for a CPU."""
    warnings.filterwarnings("ignore")
    from workflows.ground import device

    device.choose("cpu")
    for name in _MODULES:
        importlib.import_module(name)
    from tensorflow.python.eager import context

    assert not context.context()._initialized, "a forked child would wait for ever"


@dataclass(frozen=True)
class Ended:
    """Result of a child process.

    Attributes:
        code: exit code, or the negative number of the signal that ended it.
        out: its stdout.
        err: its stderr.
        seconds: elapsed time.
        memory: peak memory, MiB.
        hung: whether it was killed because it took too long.
        killed: whether it was killed as planned (`kill_after`).
    """

    code: int
    out: str
    err: str
    seconds: float
    memory: int
    hung: bool
    killed: bool


def two_tower(words: Sequence[str], **options: object) -> Ended:
    """Call the command line in a child; see `child` for the options."""

    def call() -> None:
        from workflows import cli

        sys.argv = ["two-tower", *words]
        cli.main()

    return child(call, **options)  # type: ignore[arg-type]


def child(
    work: Callable[[], None],
    *,
    folder: Path,
    seconds: float = 30,
    kill_after: float | None = None,
    before: Callable[[], None] | None = None,
) -> Ended:
    """Run a function in a forked child with its own process group.

    Args:
        work: the function.
        folder: working folder; temporary files are in its folder `tmp`.
        seconds: seconds after which the child counts as hung and is killed.
        kill_after: seconds after which kill -9 ends the group; None for never.
        before: called first in the child, to set limits.
    """
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    (out_read, out_write), (err_read, err_write) = os.pipe(), os.pipe()
    start = time.monotonic()
    process = os.fork()
    if process == 0:
        os.close(out_read)
        os.close(err_read)
        _become(work, folder, out_write, err_write, before)
    os.close(out_write)
    os.close(err_write)
    deadline = start + (seconds if kill_after is None else kill_after)
    texts = {out_read: bytearray(), err_read: bytearray()}
    ended_in_time, status, usage = _wait(process, deadline, texts)
    took = time.monotonic() - start
    for descriptor in texts:
        os.close(descriptor)
    return Ended(
        code=os.waitstatus_to_exitcode(status),
        out=texts[out_read].decode("utf-8", "replace"),
        err=texts[err_read].decode("utf-8", "replace"),
        seconds=took,
        memory=usage.ru_maxrss // 1024,
        hung=not ended_in_time and kill_after is None,
        killed=not ended_in_time and kill_after is not None,
    )


def _become(
    work: Callable[[], None],
    folder: Path,
    out: int,
    err: int,
    before: Callable[[], None] | None,
) -> None:
    """Run in the child, and end the process with its exit code."""
    code = 1
    try:
        os.setsid()
        os.dup2(out, 1)
        os.dup2(err, 2)
        # the streams of the parent may be files, or hold text that it has not written yet
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
        os.chdir(folder)
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder / "tmp")
        if before is not None:
            before()
        try:
            work()
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def _wait(
    process: int, deadline: float, texts: dict[int, bytearray]
) -> tuple[bool, int, resource.struct_rusage]:
    """Read the output of a child until it ends, or until it is killed with its group.

    Returns:
        Whether it ended before the deadline, its status, and its resource usage.
    """
    pause = 0.002
    while time.monotonic() < deadline:
        _read(texts, pause)
        done, status, usage = os.wait4(process, os.WNOHANG)
        if done:
            _read(texts, 0)
            return True, status, usage
    try:
        os.killpg(process, signal.SIGKILL)
    except ProcessLookupError:  # the child has not made its group yet
        os.kill(process, signal.SIGKILL)
    _, status, usage = os.wait4(process, 0)
    _read(texts, 0)
    return False, status, usage


def _read(texts: dict[int, bytearray], seconds: float) -> None:
    ready, _, _ = select.select(list(texts), [], [], seconds)
    closed = 0
    while ready:
        for descriptor in ready:
            if piece := os.read(descriptor, 1 << 16):
                texts[descriptor] += piece
            else:
                closed += 1
        if closed:
            time.sleep(seconds)  # `select` does not wait if the other end is closed
            return
        ready, _, _ = select.select(list(texts), [], [], 0)


def file_limit(n_bytes: int) -> Callable[[], None]:
    """Return a function that limits the size of files in a child (ulimit -f)."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))


def memory_limit(gib: float) -> Callable[[], None]:
    """Return a function that limits the address space of a child (ulimit -v)."""
    n_bytes = int(gib * 2**30)
    return lambda: resource.setrlimit(resource.RLIMIT_AS, (n_bytes, n_bytes))
