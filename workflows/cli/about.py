"""What is known of a run and of the machine: report, doctor."""

from __future__ import annotations

import typer

from workflows.cli.call import Call
from workflows.cli.show import show


def report(call: Call) -> None:
    """Write one HTML page and a model card about the finished run."""
    device = call.device()
    recipe, store, _ = call.open()
    from workflows.report import report

    result = report(recipe, store, device)
    rows = {"page": result.page, "card": result.card, "seconds": f"{result.seconds:.1f}"}
    show(result, call, rows)


def doctor(call: Call) -> None:
    """Print versions, the device and why, and what is wrong."""
    from workflows.doctor import doctor

    diagnosis = doctor(requested=None if call.device_name == "auto" else call.device_name)
    found = diagnosis.device
    rows = {
        **diagnosis.versions,
        **diagnosis.facts,
        "device": f"{found.kind} ({found.why})" if found else "none",
        "wrong": "\n".join(diagnosis.faults) or "nothing",
    }
    show(diagnosis, call, rows)
    if diagnosis.faults:
        raise typer.Exit(2)
