"""Starts the ranks of a training as processes of this machine, and watches them.

A rank that ends ends the others. A rank that waits for the others cannot run Python code, so each
rank is watched by a process that does nothing else: the one that was called.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from workflows.ground.errors import RankError
from workflows.ground.ranks import Cluster, Rank, unreachable

#: Exit code of a rank that ends because another rank ended; it prints nothing.
LOST = 76
#: Seconds in which all ranks must be connected: machines may start them minutes apart.
STARTING = 600.0
#: Seconds in which the other ranks end by themselves after one ended, before they are killed.
_ENDING = 12.0
_POLL = 0.05
#: The Linux signal to a process whose parent ended (prctl's PR_SET_PDEATHSIG).
_PARENT_ENDED = 1


@dataclass(frozen=True)
class Started:
    """A rank that runs as a process of this machine.

    Attributes:
        rank: the rank.
        process: its process.
        said: the file that holds what the rank wrote to stderr; None if it writes to ours.
    """

    rank: Rank
    process: subprocess.Popen[bytes]
    said: Path | None


@dataclass(frozen=True)
class Fault:
    """The end of a rank that ended the training.

    Attributes:
        sentence: what happened; empty if the rank explained itself.
        said: what the rank wrote to stderr, if it is not shown yet.
        code: the exit code for this process.
    """

    sentence: str
    said: str
    code: int


def end_with_parent(rank: Rank) -> None:
    """Have the system end this process when the process that started it as a rank ends."""
    ctypes.CDLL(None).prctl(_PARENT_ENDED, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != rank.parent:  # it ended before
        os._exit(LOST)


def run_ranks(cluster: Cluster, gpus: Sequence[str] = ()) -> Fault | None:
    """Run this command line as each of the ranks of this machine, and wait for their end.

    Args:
        cluster: all ranks, and those that run on this machine.
        gpus: the GPU of each rank of this machine, as CUDA_VISIBLE_DEVICES names it; empty for
            CPUs.

    Returns:
        What ended the training; None if all ranks finished it.

    Raises:
        RankError: the ranks do not reach each other in time.
    """
    with (
        tempfile.TemporaryDirectory(prefix="two-tower-ranks-") as folder,
        _started(cluster, gpus, folder) as ranks,
    ):
        failed = _first_end(ranks, cluster)
        if failed is None:
            return None
        _wait(ranks, _ENDING)
        return _explain(ranks, failed, len(cluster.addresses))


@contextlib.contextmanager
def _started(cluster: Cluster, gpus: Sequence[str], folder: str) -> Iterator[list[Started]]:
    """Return a context with the processes of the ranks; at its exit, those that run are killed."""
    ranks: list[Started] = []
    try:
        for n, number in enumerate(cluster.here):
            rank = Rank(number, cluster.addresses, folder, os.getpid())
            ranks.append(_start(rank, cluster, gpus[n] if gpus else None))
        yield ranks
    finally:
        for started in ranks:
            started.process.kill()
        for started in ranks:
            started.process.wait()


def _start(rank: Rank, cluster: Cluster, gpu: str | None) -> Started:
    """Start the process of a rank; what rank 0, or the only rank here, writes is shown."""
    environment = {**os.environ, **rank.environment()}
    environment["TF_CPP_MIN_LOG_LEVEL"] = "3"  # that a rank ended is said once, by this process
    if len(cluster.here) > 1:
        threads = str(max(1, len(os.sched_getaffinity(0)) // len(cluster.here)))
        environment.setdefault("TF_NUM_INTRAOP_THREADS", threads)
        environment.setdefault("OMP_NUM_THREADS", threads)
    if gpu is not None:
        environment["CUDA_VISIBLE_DEVICES"] = gpu
    # the same modules as in this process, whatever lies in the working folder
    code = f"import sys; sys.path[:] = {sys.path!r}; from workflows.cli import main; main()"
    said = None if rank.number == cluster.here[0] else Path(rank.folder) / f"{rank.number}.txt"
    with contextlib.ExitStack() as files:
        shown = None if said is None else files.enter_context(said.open("wb"))
        process = subprocess.Popen(
            [sys.executable, "-c", code, *sys.argv[1:]],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=shown,
            stderr=shown,
            start_new_session=True,  # Ctrl-C reaches this process alone
        )
    return Started(rank, process, said)


def _first_end(ranks: Sequence[Started], cluster: Cluster) -> Started | None:
    """Return the first rank that ended before its time; None if all finished.

    Raises:
        RankError: the ranks are not connected in time.
    """
    latest = time.monotonic() + STARTING
    while True:
        codes = [started.process.poll() for started in ranks]
        ended = [s for s, code in zip(ranks, codes, strict=True) if code]
        if ended:
            return min(ended, key=lambda started: started.process.returncode == LOST)
        if all(code == 0 for code in codes):
            return None
        if time.monotonic() > latest and not all(
            started.rank.connected.exists() for started in ranks
        ):
            raise _not_connected(cluster)
        time.sleep(_POLL)


def _not_connected(cluster: Cluster) -> RankError:
    silent = unreachable(cluster.addresses)
    where = f"nobody answers at {', '.join(silent)}" if silent else "all addresses answer"
    return RankError(
        f"The {len(cluster.addresses)} ranks of the training, which {cluster.source} names, were "
        f"not connected within {STARTING:.0f} s: {where}. Start `two-tower train` for every rank, "
        "with the same addresses, and check that the ports are open between the machines."
    )


def _wait(ranks: Sequence[Started], seconds: float) -> None:
    """Wait until all ranks have ended, but not longer than some seconds."""
    latest = time.monotonic() + seconds
    for started in ranks:
        with contextlib.suppress(subprocess.TimeoutExpired):
            started.process.wait(max(0.0, latest - time.monotonic()))


def _explain(ranks: Sequence[Started], failed: Started, size: int) -> Fault:
    """Return what ended a training: the first rank that did not end because of another one."""
    own = [s for s in ranks if s.process.returncode not in (None, 0, LOST)]
    shown = next((s for s in own if s.said is None and s.process.returncode > 0), None)
    if shown is not None:  # the ranks failed alike, or rank 0 alone
        return Fault("", "", shown.process.returncode)
    if failed not in own:
        failed = own[0] if own else failed
    code, who = failed.process.returncode, f"Rank {failed.rank.number} of {size}"
    if code == LOST:
        return Fault(
            f"Another of the {size} ranks of the training ended, or no longer answers", "", 2
        )
    if code < 0:
        name = signal.Signals(-code).name
        why = ", as the system does if memory is full" if name == "SIGKILL" else ""
        return Fault(f"{who} was ended by {name}{why}", "", 2)
    said = failed.said.read_text(errors="replace") if failed.said else ""
    return Fault("", said, code)
