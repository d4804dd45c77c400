"""Verbs that describe a run, the recipe or the machine: report, schema, doctor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from workflows.cli.call import Call
from workflows.cli.show import show, show_json

if TYPE_CHECKING:
    from workflows.ground.device import Device


def report(call: Call) -> None:
    """Write an HTML report and a model card of the finished run."""
    device = call.device()
    recipe, store, _ = call.open(device)
    from workflows.report import report

    result = report(recipe, store, device)
    rows = {"page": result.page, "card": result.card, "seconds": f"{result.seconds:.1f}"}
    show(result, call, rows)


def schema(call: Call) -> None:
    """Print the JSON Schema of recipe files, with which editors complete and check recipes."""
    from workflows.recipe.schema import schema

    show_json(schema())


def doctor(call: Call) -> None:
    """Print versions, the device with the reason for it, and faults of the installation."""
    from workflows.doctor import doctor

    diagnosis = doctor(requested=None if call.device_name == "auto" else call.device_name)
    rows = {
        **diagnosis.versions,
        **diagnosis.facts,
        **_devices(diagnosis.devices),
        "faults": "\n".join(diagnosis.faults) or "none",
    }
    show(diagnosis, call, rows)
    if diagnosis.faults:
        raise typer.Exit(2)


def _devices(found: dict[str, Device]) -> dict[str, str]:
    """Return a table row for each group of verbs that run on one device for the same reason."""
    shown: dict[str, list[str]] = {}
    for verb, device in found.items():
        why = device.why.replace(f" for {verb}:", ":")
        shown.setdefault(f"{device.kind} ({why})", []).append(verb)
    return {f"device of {', '.join(verbs)}": text for text, verbs in shown.items()} or {
        "device": "none"
    }


#: The command-line verbs of this file, in the order of --help.
VERBS = (report, schema, doctor)
