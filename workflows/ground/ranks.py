"""The ranks of a training: the processes that train one model together, and their addresses.

`train --workers N` starts N ranks on this machine. On several machines, the caller starts `train`
once for each rank, and the variable TF_CONFIG or the variables of a SLURM step name the others.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from workflows.ground.errors import RankError

#: Variable that tells a process which rank it is, for processes that this package starts.
ENVIRONMENT = "TWO_TOWER_RANK"
#: Variables in which Horovod and MPI tell a process how many there are.
_FOREIGN = {"HOROVOD_SIZE": "horovodrun", "OMPI_COMM_WORLD_SIZE": "horovodrun or mpirun"}
#: First port of the ranks of a SLURM step, and the number of steps with ports of their own.
_FIRST_PORT, _STEPS = 20_000, 10_000


@dataclass(frozen=True)
class Rank:
    """One of the processes that train a model together.

    Attributes:
        number: the number of the rank, from 0; rank 0 writes the files.
        addresses: `host:port` of each rank.
        folder: folder in which the rank says that it is connected, by an empty file.
        parent: id of the process that started this rank, and with which it ends.
    """

    number: int
    addresses: Sequence[str]
    folder: str
    parent: int

    def environment(self) -> dict[str, str]:
        """Return the variables by which the process of this rank knows who it is."""
        return {ENVIRONMENT: json.dumps(asdict(self))}

    @property
    def connected(self) -> Path:
        """The path of the file that this rank makes when it is connected with the others."""
        return Path(self.folder) / f"{self.number}.connected"

    @classmethod
    def of_this_process(cls) -> Rank | None:
        """Return the rank of this process; None if it is no rank that this package started."""
        text = os.environ.get(ENVIRONMENT)
        return cls(**json.loads(text)) if text else None


@dataclass(frozen=True)
class Cluster:
    """All ranks of a training.

    Attributes:
        addresses: `host:port` of each rank.
        here: the numbers of the ranks that this process starts.
        source: what named the ranks, such as `TF_CONFIG`.
    """

    addresses: tuple[str, ...]
    here: range
    source: str


def find_cluster(
    workers: int | None, environment: Mapping[str, str] = os.environ
) -> Cluster | None:
    """Return the ranks that train together; None for a training by one process.

    Args:
        workers: the number of processes that the command line asks for; None if it asks for none.
        environment: the environment variables of this process.

    Raises:
        RankError: the variables contradict each other or the command line, or are not complete.
    """
    for name, starter in _FOREIGN.items():
        if (size := environment.get(name, "1").strip()) not in ("", "0", "1"):
            raise RankError(
                f"{name} is {size}: {starter} started this process and others, and each of them "
                "would train the whole model by itself. Horovod is no backend of this package. "
                f"Start one process: `two-tower train --workers {size}`; on several machines, "
                "start `two-tower train` on each, with TF_CONFIG or by SLURM's srun."
            )
    found = _of_tf_config(environment.get("TF_CONFIG", "")) or _of_slurm(environment)
    if found and workers is not None and workers != 1:
        raise RankError(
            f"--workers is {workers}, but {found.source} already names {len(found.addresses)} "
            "processes. Leave --workers out, or unset the variables."
        )
    if workers is None:
        return found
    if workers == 1:
        return None
    return Cluster(_free_addresses(workers), range(workers), "--workers")


def _of_tf_config(text: str) -> Cluster | None:
    """Return the ranks that the variable TF_CONFIG names; None if it names no others.

    Raises:
        RankError: the variable is not as TensorFlow describes it.
    """
    if not text.strip():
        return None
    try:
        config = json.loads(text)
        cluster, task = config.get("cluster", {}), config.get("task", {})
        jobs = {job: [str(a) for a in cluster.get(job, [])] for job in ("chief", "worker")}
        addresses = tuple(jobs["chief"] + jobs["worker"])
        if len(addresses) < 2:
            return None
        kind, index = task["type"], int(task["index"])
        if not 0 <= index < len(jobs[kind]):
            raise ValueError(f"task {kind} {index} is not in its cluster")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise RankError(
            f"TF_CONFIG cannot be used ({type(error).__name__}: {error}). Expected JSON such as "
            '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", '
            '"index": 0}}, with another index for each process.'
        ) from None
    number = index + (len(jobs["chief"]) if kind == "worker" else 0)
    return _refuse_bad_addresses(Cluster(addresses, range(number, number + 1), "TF_CONFIG"))


def _refuse_bad_addresses(cluster: Cluster) -> Cluster:
    for address in cluster.addresses:
        if not re.fullmatch(r"\S+:[0-9]{1,5}", address):
            raise RankError(f"TF_CONFIG: {address!r} is no address; expected host:port.")
    if len(set(cluster.addresses)) < len(cluster.addresses):
        raise RankError(f"TF_CONFIG names an address twice: {', '.join(cluster.addresses)}.")
    return cluster


def _of_slurm(environment: Mapping[str, str]) -> Cluster | None:
    """Return the tasks of a SLURM step (`srun`) of several tasks; None outside of one.

    Raises:
        RankError: a variable is missing, or cannot be read.
    """
    if environment.get("SLURM_STEP_NUM_TASKS", "1") == "1":
        return None
    try:
        nodes = hosts(environment["SLURM_STEP_NODELIST"])
        counts = _counts(environment["SLURM_STEP_TASKS_PER_NODE"])
        rank = int(environment["SLURM_PROCID"])
        first = _FIRST_PORT + int(environment["SLURM_JOB_ID"]) % _STEPS
        places = [(node, n) for node, k in zip(nodes, counts, strict=True) for n in range(k)]
        addresses = tuple(f"{node}:{first + n}" for node, n in places)
        if len(addresses) != int(environment["SLURM_STEP_NUM_TASKS"]):
            raise ValueError("SLURM_STEP_NUM_TASKS differs from the sum of the tasks of all nodes")
    except (KeyError, ValueError) as error:
        raise RankError(
            f"The variables of the SLURM step cannot be used ({type(error).__name__}: {error}). "
            "Name the processes with TF_CONFIG, or train with --workers on one machine."
        ) from None
    return Cluster(addresses, range(rank, rank + 1), "SLURM")


def hosts(text: str) -> list[str]:
    """Return the names in a list of SLURM: `n[01-02,7],m` is n01, n02, n7 and m."""
    found = []
    for name in re.findall(r"[^,\[]+(?:\[[^\]]*\][^,\[]*)?", text):
        before, _, rest = name.partition("[")
        numbers, _, after = rest.partition("]")
        for part in numbers.split(",") if numbers else [""]:
            low, _, high = part.partition("-")
            every = range(int(low), int(high) + 1) if high else [low]
            found += [f"{before}{str(n).zfill(len(low))}{after}" for n in every]
    return found


def _counts(text: str) -> list[int]:
    """Return the numbers in a list of SLURM: `2(x3),1` is 2, 2, 2 and 1."""
    counts: list[int] = []
    for part in text.split(","):
        count, _, times = part.partition("(x")
        counts += [int(count)] * int(times.rstrip(")") or 1)
    return counts


def _free_addresses(n: int) -> tuple[str, ...]:
    """Return addresses on this machine, whose ports nobody uses."""
    sockets = [socket.socket() for _ in range(n)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return tuple(f"127.0.0.1:{each.getsockname()[1]}" for each in sockets)
    finally:
        for each in sockets:
            each.close()


def unreachable(addresses: Sequence[str]) -> list[str]:
    """Return the addresses at which no process answers."""
    return [address for address in addresses if not _answers(address)]


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=2):
            return True
    except OSError:
        return False
