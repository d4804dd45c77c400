"""Where an export goes: serve, load, triton."""

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
        str, typer.Option(help="To listen on; 0.0.0.0 for other machines, too.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any free one.")] = 8000,
    watch: Annotated[
        float, typer.Option(min=0, help="Seconds between looks for a newer export; 0: never.")
    ] = 5.0,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            help="A name that requests may give as Host, beside localhost; '*' for any. May be "
            "repeated. Where --host is not of this machine alone, any name may be given until "
            "one is allowed here."
        ),
    ] = None,
    grace: Annotated[
        float,
        typer.Option(min=0, help="Seconds that running questions get to end after SIGTERM."),
    ] = 30.0,
) -> None:
    """Answer over HTTP, with a page at /; a newer export takes over without a break.

    A run folder is a program: it holds TensorFlow graphs, and whoever can write it can have them
    read and write files of this machine. Serve only runs that you trust. The hashes in a run
    detect damage, not malice.
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
    to: Annotated[TargetName, typer.Option(help="The target.")] = TARGETS[0],
    place: Annotated[
        str,
        typer.Option(help="milvus: a file, or the URI of a cluster; opensearch: a folder."),
    ] = "",
    name: Annotated[
        str, typer.Option(help="The name of the collection. Default: that of the recipe.")
    ] = "",
) -> None:
    """Load the items into a vector database, to be asked by users' embeddings."""
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
    to: Annotated[str, typer.Option(help="Folder. Default: runs/<RUN>/triton.")] = "",
) -> None:
    """Write a model repository for Triton: raw values of users in, raw ids of items out."""
    device = call.device()
    recipe, store, _ = call.open(device)
    from workflows.triton import triton

    result = triton(recipe, store, to=Path(to) if to else store.root / "triton")
    rows = {
        "folder": result.folder,
        "takes": ", ".join(result.inputs),
        "items": f"{result.items:,}",
        "seconds": f"{result.seconds:.1f}",
    }
    show(result, call, rows)


#: In the order of --help.
VERBS = (serve, load, triton)
