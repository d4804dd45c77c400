"""Checks of an export before it is finished: finite embeddings that a fresh process reproduces."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

from models.core.retriever import Floats
from workflows.ground.errors import ArtifactError
from workflows.towers import selfcheck


class EmbeddingCheck:
    """Refuses embeddings that cannot rank, which come in blocks: NaN, infinite or all equal.

    Args:
        what: a plural noun for the message, such as "user embeddings".
        whose: the name, for the message, of the tower or model that computed the embeddings.
    """

    def __init__(self, what: str, *, whose: str) -> None:
        self._what, self._whose = what, whose
        self._first: Floats | None = None
        self._n, self._differ = 0, False

    def add(self, vectors: Floats) -> None:
        """Check a block of embeddings, float32 [n, …].

        Raises:
            ArtifactError: an embedding is NaN or infinite.
        """
        if not np.isfinite(vectors).all():
            raise ArtifactError(f"{self._what} hold NaN or infinity; train again.")
        if not len(vectors):
            return
        self._first = vectors[0] if self._first is None else self._first
        self._n += len(vectors)
        self._differ = self._differ or bool((vectors != self._first).any())

    def finish(self, *, learns: bool = True) -> None:
        """Check all embeddings together.

        Args:
            learns: whether the tower has trainable weights; without them all may be equal.

        Raises:
            ArtifactError: there are several embeddings, and all are equal.
        """
        if learns and self._n > 1 and not self._differ:
            raise ArtifactError(
                f"all {self._n} {self._what} are the same: the {self._whose} learnt nothing. Give "
                "it inputs that differ, or train longer."
            )


def refuse_broken(vectors: Floats, what: str, *, whose: str) -> None:
    """Refuse embeddings that cannot rank: NaN, infinite or all equal.

    Args:
        vectors: the embeddings, float32 [n, …].
        what, whose: see `EmbeddingCheck`.

    Raises:
        ArtifactError: an embedding is NaN or infinite, or all are equal.
    """
    check = EmbeddingCheck(what, whose=whose)
    check.add(vectors)
    check.finish()


def check_from_outside(folder: Path) -> None:
    """Check in a fresh, isolated process that an export's towers reproduce its embeddings.

    Args:
        folder: the folder of the export.

    Raises:
        ArtifactError: the towers cannot be loaded, or give other embeddings than those in the
            export.
    """
    done = subprocess.run(
        [sys.executable, "-I", selfcheck.__file__, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
        preexec_fn=_die_with_the_parent,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ArtifactError(
            f"The exported towers, loaded in a fresh process, do not give the model's embeddings: "
            f"{reason}. Nothing was exported."
        )


#: Asks Linux to send this process a signal when its parent ends (prctl, PR_SET_PDEATHSIG).
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)  # looked up before the fork


def _die_with_the_parent() -> None:
    """Ask the kernel to end the checking process if its parent is killed."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
