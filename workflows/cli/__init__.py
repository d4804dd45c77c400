"""`two-tower VERB`: pick the device, then import the verb. No logic."""

from __future__ import annotations

import io
import logging
import sys
import warnings

import typer

from workflows.cli import about, data, hand_over, model, questions
from workflows.cli.call import Call, command
from workflows.cli.show import complain, printable
from workflows.ground.errors import TwoTowerError

__all__ = ["Call", "app", "main"]

#: In the order of --help. A new verb is a function in one of these files, and a part of its VERBS.
VERBS = (*data.VERBS, *model.VERBS, *questions.VERBS, *hand_over.VERBS, *about.VERBS)

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Candidate retrieval with two-tower models on NVIDIA Merlin.",
)
for verb in VERBS:
    app.command(name=verb.__name__.replace("_", "-"))(command(verb))


class _Printable(logging.Formatter):
    """The message alone, in which a terminal finds no command."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a message as it is shown."""
        return printable(super().format(record), lines=True)


def main() -> None:
    """Run the command line: a fault of input or machine is one paragraph and exit code 2."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Printable())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    if isinstance(sys.stdout, io.TextIOWrapper):  # letters that a terminal lacks are escaped there
        sys.stdout.reconfigure(errors="backslashreplace")
    for ours in ("models", "workflows"):
        logging.getLogger(ours).setLevel(logging.INFO)
    for theirs in ("tensorflow", "absl"):
        logging.getLogger(theirs).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")  # Merlin's, TensorFlow's, Dask's; tests turn them to errors
    try:
        app(prog_name="two-tower")
    except TwoTowerError as error:
        complain(error)
        sys.exit(2)
