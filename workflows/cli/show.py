"""Output of the command line: the only module that prints."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

    from workflows.cli.call import Call


def show(result: object, call: Call, rows: Mapping[str, object]) -> None:
    """Print the result of a verb as JSON if `--json` is given, else some of it as a table.

    Args:
        result: the result of the verb.
        call: the options of the command line.
        rows: the part of the result that is printed as a table if `--json` is not given.
    """
    if call.as_json:
        show_json(result)
        return
    from rich.table import Table

    table = Table(show_header=False)
    for name, value in rows.items():
        table.add_row(printable(name), printable(value, lines=True))
    show_text(table)


def show_json(result: object) -> None:
    """Print the result of a verb as JSON."""
    import msgspec

    print(json.dumps(msgspec.to_builtins(result, enc_hook=str), indent=2))


def show_list(rows: list[dict[str, Any]], call: Call) -> None:
    """Print a list of rows as JSON if `--json` is given, else as a terminal table."""
    if call.as_json:
        show_json(rows)
    else:
        show_rows(rows)


def show_rows(rows: list[dict[str, Any]]) -> None:
    """Print a list of rows that have the same columns as a terminal table."""
    if not rows:
        show_text("No rows match.")
        return
    from rich.table import Table

    table = Table(*map(printable, rows[0]))
    for row in rows:
        table.add_row(*map(_cell, row.values()))
    show_text(table)


def show_text(what: RenderableType) -> None:
    """Print a text or table to stdout; brackets and colons are not read as markup or emoji."""
    from rich.console import Console

    # files and pipes have no width
    width = None if Console().is_terminal else 160
    Console(width=width, markup=False, emoji=False).print(what)


def print_error(what: object) -> None:
    """Print an error, one paragraph, to stderr."""
    print(f"two-tower: {printable(what, lines=True)}", file=sys.stderr)


def printable(what: object, *, lines: bool = False) -> str:
    """Return a value as text that a terminal can print: control characters are escaped.

    Args:
        what: the value to print.
        lines: whether line breaks in the value are kept.
    """
    return "".join(
        letter.encode("unicode_escape").decode()
        if _is_command(letter) and not (lines and letter == "\n")
        else letter
        for letter in str(what)
    )


def _cell(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else printable(value)


def _is_command(letter: str) -> bool:
    """Return whether a terminal may execute a character instead of showing it."""
    return unicodedata.category(letter) in _CONTROL or letter in _DIRECTIONS


#: Control characters, halves of surrogate pairs, separators of lines and of paragraphs.
_CONTROL = ("Cc", "Cs", "Zl", "Zp")
#: Characters that change the direction of the text after them.
_DIRECTIONS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def counts(of: Mapping[str, int]) -> str:
    """Return named counts as text, without those that are zero."""
    return ", ".join(f"{name} {n:,}" for name, n in of.items() if n) or "none"
