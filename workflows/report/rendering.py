"""Loads the Jinja templates of report.html and of the model card."""

from __future__ import annotations

from collections.abc import Callable

from jinja2 import Environment, PackageLoader, StrictUndefined, Template


def template(name: str, *, finalize: Callable[[object], object] | None = None) -> Template:
    """Return a Jinja template that escapes every text that is not of type Markup.

    Args:
        name: the template's file name in the folder templates/.
        finalize: the function that is called on each value before it is written.
    """
    return Environment(
        loader=PackageLoader("workflows.report"),
        autoescape=True,
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    ).get_template(name)
