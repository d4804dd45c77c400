"""The end of a verb by Ctrl-C: one paragraph that says how to go on, and exit code 130."""

from __future__ import annotations

import contextlib
import shlex
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer

from workflows.cli.show import complain

if TYPE_CHECKING:
    from workflows.cli.call import Call

#: Exit code of a process that SIGINT ended, by custom of shells.
INTERRUPTED = 128 + signal.SIGINT


@contextlib.contextmanager
def interruptible(call: Call) -> Iterator[None]:
    """Let a verb be ended by Ctrl-C without a traceback.

    Libraries turn the interruption into errors of their own now and then, and workers that got the
    signal, too, are missed; so it is noted when it comes.
    """
    came = False

    def note(number: int, frame: Any) -> None:
        nonlocal came
        came = True
        signal.default_int_handler(number, frame)

    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, note)
    try:
        yield
    except BaseException as error:
        if not came and not isinstance(error, KeyboardInterrupt):
            raise
        if ours:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # once more ends the process at once
        complain(f"{_left(call)}: `{_again(call)}`.")
        raise typer.Exit(INTERRUPTED) from None
    finally:
        if ours and signal.getsignal(signal.SIGINT) is note:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _left(call: Call) -> str:
    """Say what is left of the work, and begin to say how to go on."""
    if call.verb == "train" and _has_checkpoint(call):
        return "Stopped by Ctrl-C. The epochs that ended are kept; go on after the last of them"
    if call.verb == "tune":
        return "Stopped by Ctrl-C. The trials that ended are kept; the same command goes on"
    return "Stopped by Ctrl-C. Earlier results are kept, and nothing half-written; begin again"


def _again(call: Call) -> str:
    words = ["two-tower", *sys.argv[1:]]
    if call.verb == "train" and "--resume" not in words and _has_checkpoint(call):
        words.append("--resume")
    return shlex.join(words)


def _has_checkpoint(call: Call) -> bool:
    from workflows.ground.errors import TwoTowerError
    from workflows.stages.store import CHECKPOINT

    with contextlib.suppress(TwoTowerError):
        return (call.root() / CHECKPOINT / "state.json").is_file()
    return False
