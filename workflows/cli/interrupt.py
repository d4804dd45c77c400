"""End a verb at Ctrl-C with one paragraph that says how to continue, and with exit code 130."""

from __future__ import annotations

import contextlib
import shlex
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer

from workflows.cli.show import print_error

if TYPE_CHECKING:
    from workflows.cli.call import Call

#: Exit code that shells use for a process that SIGINT ended.
INTERRUPTED = 128 + signal.SIGINT


@contextlib.contextmanager
def interruptible(call: Call) -> Iterator[None]:
    """Return a context in which Ctrl-C ends a verb without a traceback.

    After Ctrl-C, a library may raise an error of its own, for example because its workers were
    stopped as well. Therefore a signal handler records that Ctrl-C (SIGINT) came.
    """
    was_interrupted = False

    def note(number: int, frame: Any) -> None:
        nonlocal was_interrupted
        was_interrupted = True
        signal.default_int_handler(number, frame)

    is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_default:
        signal.signal(signal.SIGINT, note)
    try:
        yield
    except BaseException as error:
        if not was_interrupted and not isinstance(error, KeyboardInterrupt):
            raise
        if is_default:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C ends the process at once
        print_error(f"{_advice(call)}: `{_command(call)}`.")
        raise typer.Exit(INTERRUPTED) from None
    finally:
        if is_default and signal.getsignal(signal.SIGINT) is note:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def how_to_continue(call: Call) -> str:
    """Return a sentence with the command that continues a training whose process ended."""
    if _has_checkpoint(call):
        kept = "The finished epochs are kept. Continue after the last of them"
    else:
        kept = "No epoch was finished. Begin again"
    return f"{kept}: `{_command(call)}`."


def _advice(call: Call) -> str:
    """Return a text that says what an interrupted verb keeps, and how to continue."""
    if call.verb == "train" and _has_checkpoint(call):
        return "Stopped by Ctrl-C. The finished epochs are kept. Continue after the last of them"
    if call.verb == "tune":
        return "Stopped by Ctrl-C. The finished trials are kept. Continue with the same command"
    return "Stopped by Ctrl-C. Earlier results are kept; no incomplete result is left. Begin again"


def _command(call: Call) -> str:
    words = ["two-tower", *sys.argv[1:]]
    if call.verb == "train" and "--resume" not in words and _has_checkpoint(call):
        words.append("--resume")
    return shlex.join(words)


def _has_checkpoint(call: Call) -> bool:
    from workflows.ground.errors import TwoTowerError
    from workflows.stages.store import CHECKPOINT

    with contextlib.suppress(TwoTowerError):
        return any((call.root() / CHECKPOINT).glob("*/state.json"))
    return False
