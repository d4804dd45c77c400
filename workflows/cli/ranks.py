"""The command line of a training by several ranks: the process that starts them, and each rank."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from models.core.collectives import ALONE, Collectives, RankLostError
from workflows.cli.interrupt import how_to_continue
from workflows.cli.show import print_error
from workflows.ground import launch
from workflows.ground.device import Device, visible_gpus
from workflows.ground.errors import DeviceError, RankError
from workflows.ground.ranks import Cluster, Rank

if TYPE_CHECKING:
    from workflows.cli.call import Call


def run_ranks(call: Call, cluster: Cluster, device: Device) -> None:
    """Run this command as the ranks of this machine; explain in one paragraph what ended them.

    Raises:
        DeviceError: there are fewer GPUs than ranks.
        RankError: the ranks do not reach each other.
    """
    fault = launch.run_ranks(cluster, _gpus(cluster, device))
    if fault is None:
        return
    if fault.sentence:
        print_error(f"{fault.sentence}. The training has stopped. {how_to_continue(call)}")
    sys.stderr.write(fault.said)
    raise typer.Exit(fault.code)


def _gpus(cluster: Cluster, device: Device) -> list[str]:
    """Return a GPU for each rank that this process starts; none for ranks on CPUs."""
    if device.kind == "cpu" or len(cluster.here) == 1:
        return []
    gpus = visible_gpus()
    if len(gpus) < len(cluster.here):
        raise DeviceError(
            f"--workers is {len(cluster.here)}, and each takes one GPU, but there are {len(gpus)}. "
            f"Use --workers {len(gpus)}, or --device cpu."
        )
    return gpus[: len(cluster.here)]


@contextlib.contextmanager
def run_as_rank(rank: Rank | None) -> Iterator[None]:
    """Return the context of a rank, which ends with its parent and, silently, with another rank.

    Only rank 0 writes to the log.
    """
    if rank is None:
        yield
        return
    launch.end_with_parent(rank)
    for theirs in ("tensorflow", "absl"):  # they say in their way that a rank ended
        logging.getLogger(theirs).setLevel(logging.CRITICAL)
    if rank.number > 0:
        for ours in ("models", "workflows"):
            logging.getLogger(ours).setLevel(logging.ERROR)
    try:
        yield
    except RankLostError:
        os._exit(launch.LOST)  # TensorFlow would wait for the rank that ended


def connected(rank: Rank | None) -> Collectives:
    """Connect this process with the other ranks; without a rank, it trains alone.

    Raises:
        RankError: the port of this rank is taken.
    """
    if rank is None:
        return ALONE
    import tensorflow as tf

    from models.training.collectives import LOST, connect

    try:
        collectives = connect(rank.addresses, rank.number)
    except LOST as error:
        raise RankLostError(str(error)) from error
    except tf.errors.OpError as error:
        raise RankError(
            f"Rank {rank.number} cannot use its address {rank.addresses[rank.number]} "
            f"({error.message}). Another process may use the port: choose another one."
        ) from None
    rank.connected.touch()
    return collectives
