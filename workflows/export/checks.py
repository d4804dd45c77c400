"""What an export must stand before it is signed: vectors that say something, and again outside."""

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


def refuse_broken(vectors: Floats, what: str, *, whose: str, learns: bool = True) -> None:
    """Refuse vectors that nobody could be ranked by.

    Args:
        vectors: float32 [n, …].
        what: they are, in the plural.
        whose: they are: a tower or a model.
        learns: whether it has weights to train; what has none may say the same to everybody.

    Raises:
        ArtifactError: NaN or infinity, or the same vector everywhere.
    """
    if not np.isfinite(vectors).all():
        raise ArtifactError(f"{what} hold NaN or infinity; train again.")
    if learns and len(vectors) > 1 and np.ptp(vectors, axis=0).max() == 0:
        raise ArtifactError(
            f"all {len(vectors)} {what} are the same: the {whose} learnt nothing. Give it inputs "
            "that differ, or train longer."
        )


def check_from_outside(script: str, folder: Path, what: str) -> None:
    """Let a fresh, isolated process load the towers of an export and compare what they give.

    Args:
        script: file to run; it ends with 1 and one line if something differs.
        folder: the folder of the export.
        what: the towers give.

    Raises:
        ArtifactError: something differs, or the towers cannot be loaded.
    """
    done = subprocess.run(
        [sys.executable, "-I", script, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
        preexec_fn=_die_with_the_parent,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ArtifactError(
            f"The exported towers, loaded in a fresh process, do not give the model's {what}: "
            f"{reason}. Nothing was exported."
        )


#: Asks Linux to send this process a signal when its parent ends (prctl, PR_SET_PDEATHSIG).
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)  # looked up before the fork


def _die_with_the_parent() -> None:
    """Let the kernel end the checking process when the exporting one is killed."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
