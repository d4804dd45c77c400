"""Verbs that deploy an export: serve, load, triton."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from workflows.cli.call import Call
from workflows.cli.show import show
from workflows.load import TARGETS, TargetName


def serve(
    call: Call,
    *,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0: other machines can connect, too.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free port.")
    ] = 8000,
    watch: Annotated[
        float,
        typer.Option(min=0, help="Seconds between two checks for a newer export; 0: no checks."),
    ] = 5.0,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            help="A host name that requests may give, besides localhost; '*': any name. May be "
            "repeated. If other machines can connect, all names are allowed unless this option "
            "is given."
        ),
    ] = None,
    grace: Annotated[
        float,
        typer.Option(min=0, help="Seconds that running requests may take after SIGTERM."),
    ] = 30.0,
) -> None:
    """Answer requests over HTTP, with a web page at /; a newer export is loaded when it appears.

    Serve only runs that you trust: a run holds TensorFlow graphs, which can read and write files of
    this machine. The hashes in a run detect damage, but not malicious changes.
    """
    device = call.device()
    recipe, store, _ = call.open(device)
    from workflows.serve import serve

    result = serve(
        recipe,
        store,
        device,
        host=host,
        port=port,
        watch=watch,
        allow_hosts=allow_host or (),
        grace=grace,
    )
    show(
        result,
        call,
        {
            "address": result.address,
            "reloads": str(result.reloads),
            "seconds": f"{result.seconds:.1f}",
        },
    )


def load(
    call: Call,
    *,
    to: Annotated[TargetName, typer.Option(help="Kind of database.")] = TARGETS[0],
    place: Annotated[
        str,
        typer.Option(help="For milvus, a file or the URI of a cluster; for opensearch, a folder."),
    ] = "",
    name: Annotated[
        str, typer.Option(help="Name of the collection. Default: the name of the recipe.")
    ] = "",
) -> None:
    """Load the items' embeddings into a vector database, to be searched by users' embeddings."""
    recipe, store, _ = call.open(call.device())
    from workflows.load import load

    result = load(recipe, store, to=to, place=place, name=name)
    rows = {
        "place": result.place,
        "name": result.name,
        "items": f"{result.items:,}",
        "dimensions": str(result.dim),
        "seconds": f"{result.seconds:.1f}",
    }
    show(result, call, rows)


def triton(
    call: Call,
    *,
    to: Annotated[
        str, typer.Option(help="Folder for the repository. Default: runs/<RUN>/triton.")
    ] = "",
) -> None:
    """Write a model repository for Triton that takes raw values of users and returns item ids."""
    device = call.device()
    recipe, store, _ = call.open(device)
    from workflows.triton import triton

    result = triton(recipe, store, to=Path(to) if to else store.folder("triton"))
    rows = {
        "folder": result.folder,
        "takes": ", ".join(result.inputs),
        "items": f"{result.items:,}",
        "seconds": f"{result.seconds:.1f}",
    }
    show(result, call, rows)


#: The command-line verbs of this file, in the order of --help.
VERBS = (serve, load, triton)
