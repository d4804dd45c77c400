"""The command line: `two-tower VERB` chooses the device, then imports and calls the verb."""

from __future__ import annotations

import io
import logging
import sys
import warnings

import typer

from workflows.cli import about, data, deployment, model, queries
from workflows.cli.call import Call, command
from workflows.cli.show import print_error, printable
from workflows.ground.errors import TwoTowerError

__all__ = ["Call", "app", "main"]

#: The verbs in the order of --help. A new verb is a function in one of these files and an element
#: of its VERBS.
VERBS = (*data.VERBS, *model.VERBS, *queries.VERBS, *deployment.VERBS, *about.VERBS)

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Candidate retrieval with two-tower models on NVIDIA Merlin.",
)
for verb in VERBS:
    app.command(name=verb.__name__.replace("_", "-"))(command(verb))


class _Printable(logging.Formatter):
    """Log formatter that writes a record's message with control characters escaped."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a log record's message with control characters escaped."""
        return printable(super().format(record), lines=True)


def main() -> None:
    """Run the command line.

    An error in the input, or of the machine, is printed as one paragraph; the exit code is 2.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Printable())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    if isinstance(
        sys.stdout, io.TextIOWrapper
    ):  # characters that the terminal cannot show are escaped
        sys.stdout.reconfigure(errors="backslashreplace")
    for ours in ("models", "workflows"):
        logging.getLogger(ours).setLevel(logging.INFO)
    for theirs in ("tensorflow", "absl"):
        logging.getLogger(theirs).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")  # of Merlin, TensorFlow and Dask; in tests they are errors
    try:
        app(prog_name="two-tower")
    except TwoTowerError as error:
        print_error(error)
        sys.exit(2)
