"""The page of the command line: every verb with its options."""

from __future__ import annotations

import dataclasses
import inspect
import types
from collections.abc import Callable
from typing import Any, Literal, Union, get_args, get_origin

from typer.models import OptionInfo

from reference_pages.page import Entry, Page, Section
from workflows.cli import VERBS, Call
from workflows.cli.call import command

INTRODUCTION = """
`two-tower VERB [OPTIONS]` runs one verb of the pipeline; `make VERB` does the same in a checkout.
Results go to stdout, progress and errors to stderr.

| exit code | meaning |
|---|---|
| 0 | The verb is done. |
| 2 | The input, the machine or the installation is at fault; one paragraph says what to do. |
| 3 | `evaluate --min-lift`: the model does not beat a baseline by the asked factor. |
| 130 | Ctrl-C; the verb says how to go on. |
""".strip()
COLUMNS = ("option", "values", "default", "meaning")


def page() -> Page:
    """Return the page of the verbs and options."""
    shared = Section(
        "Options of all verbs",
        "Every verb has these options.",
        [entry for name, entry in options(command(VERBS[0])).items() if name in _SHARED],
        COLUMNS,
    )
    return Page("Command line", INTRODUCTION, [shared, *map(section_of, VERBS)])


def section_of(verb: Callable[..., None]) -> Section:
    """Return the section of one verb, with the options that only this verb has."""
    own = {n: entry for n, entry in options(command(verb)).items() if n not in _SHARED}
    text = inspect.getdoc(verb) or ""
    return Section(f"`{verb.__name__.replace('_', '-')}`", text, [*own.values()], COLUMNS)


_SHARED = {field.name for field in dataclasses.fields(Call)}


def options(called: Callable[..., None]) -> dict[str, Entry]:
    """Return the options of a command by the names of its parameters."""
    found = {}
    for name, parameter in inspect.signature(called).parameters.items():
        kind, *rest = get_args(parameter.annotation)
        option = next(one for one in rest if isinstance(one, OptionInfo))
        dashed = f"--{name.replace('_', '-')}"
        written = [option.default, *(option.param_decls or ())]  # typer takes the first as default
        flags = [one for one in written if isinstance(one, str) and one.startswith("-")]
        facts = (_values(kind, option), _default(parameter.default))
        found[name] = Entry(" ".join(flags) or dashed, option.help or "", facts)
    return found


def _values(kind: Any, option: OptionInfo) -> str:
    """Return the values that an option takes, in words."""
    if get_origin(kind) in (types.UnionType, Union):
        kind = next(one for one in get_args(kind) if one is not type(None))
    if get_origin(kind) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(kind))
    if get_origin(kind) is list:
        return f"{_values(get_args(kind)[0], option)}, several"
    words = {bool: "no value", int: "whole number", float: "number", str: "text"}[kind]
    bounds = [
        f"{word} {bound:g}"
        for word, bound in (("from", option.min), ("to", option.max))
        if bound is not None
    ]
    return " ".join([words, *bounds])


def _default(value: object) -> str:
    if value is inspect.Parameter.empty:
        return "required"
    return "" if value in ("", None, False) else f"`{value}`"
