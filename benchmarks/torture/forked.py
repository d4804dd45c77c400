"""Runs `two-tower` in forked children of a process that has imported everything.

A verb costs a fraction of a second then, not the seconds that TensorFlow takes to be imported. The
parent starts no thread and runs no operation of TensorFlow: a forked child inherits neither.
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
#: What verbs import when they are called. Merlin's models run operations when they are imported:
#: the children of verbs that train import them themselves.
_MODULES = ("faiss", "h5py", "pyarrow.dataset", "tensorflow", *(f"workflows.{v}" for v in _VERBS))


def preload() -> None:
    """Import what verbs need, once, for a CPU."""
    warnings.filterwarnings("ignore")
    from workflows.ground import device

    device.choose("cpu")
    for name in _MODULES:
        importlib.import_module(name)
    from tensorflow.python.eager import context

    assert not context.context()._initialized, "a forked child would wait for ever"


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes:
        code: its exit code; the negative number of the signal that ended it.
        out: what it printed.
        err: what it complained of.
        seconds: that it took.
        memory: its peak, MiB.
        hung: whether it was ended because it took too long.
        killed: whether the campaign killed it, as it wanted to.
    """

    code: int
    out: str
    err: str
    seconds: float
    memory: int
    hung: bool
    killed: bool


def two_tower(words: Sequence[str], **options: object) -> Ended:
    """Call the command line in a child; options as of `child`."""

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
    """Do some work in a forked child, in a process group of its own.

    Args:
        work: what it does.
        folder: where it works; its temporary files go to `tmp` in it.
        seconds: after which it counts as hung and is ended.
        kill_after: seconds after which kill -9 ends the group; None for never.
        before: sets limits, in the child.
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
    """Be the child, and end with its exit code."""
    code = 1
    try:
        os.setsid()
        os.dup2(out, 1)
        os.dup2(err, 2)
        # the parent's hold what it has not yet written, and may be files
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
    """Read what a child says until it ends, or until it is ended with its group.

    Returns:
        Whether it ended before the deadline, its status, and what it used.
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
    except ProcessLookupError:  # it has not yet made its group
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
            time.sleep(seconds)  # the other end is closed, so `select` does not wait
            return
        ready, _, _ = select.select(list(texts), [], [], 0)


def file_limit(n_bytes: int) -> Callable[[], None]:
    """Return what limits the size of any file that a child writes (ulimit -f)."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))


def memory_limit(gib: float) -> Callable[[], None]:
    """Return what limits the address space of a child (ulimit -v)."""
    n_bytes = int(gib * 2**30)
    return lambda: resource.setrlimit(resource.RLIMIT_AS, (n_bytes, n_bytes))
