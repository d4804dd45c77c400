"""What the command line says: the only place that prints."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

    from workflows.cli.call import Call


def show(result: object, call: Call, rows: Mapping[str, object]) -> None:
    """Print what a verb returned: all of it as JSON, or these rows."""
    if call.as_json:
        show_json(result)
        return
    from rich.table import Table

    table = Table(show_header=False)
    for name, value in rows.items():
        table.add_row(name, str(value))
    show_text(table)


def show_json(result: object) -> None:
    """Print a result as JSON."""
    import msgspec

    print(json.dumps(msgspec.to_builtins(result, enc_hook=str), indent=2))


def show_list(rows: list[dict[str, Any]], call: Call) -> None:
    """Print rows of equal columns, as JSON or as a table."""
    if call.as_json:
        show_json(rows)
    else:
        show_rows(rows)


def show_rows(rows: list[dict[str, Any]]) -> None:
    """Print rows of equal columns as a table."""
    from rich.table import Table

    table = Table(*rows[0]) if rows else Table()
    for row in rows:
        table.add_row(*(f"{v:.4f}" if isinstance(v, float) else str(v) for v in row.values()))
    show_text(table)


def show_text(what: RenderableType) -> None:
    """Print to stdout."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:  # a file or a pipe has no width of its own
        console = Console(width=160)
    console.print(what)


def complain(what: object) -> None:
    """Print one paragraph to stderr."""
    print(f"two-tower: {what}", file=sys.stderr)


def counts(of: Mapping[str, int]) -> str:
    """Return counts as text, without those of nothing."""
    return ", ".join(f"{name} {n:,}" for name, n in of.items() if n) or "none"
