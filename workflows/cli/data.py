"""Verbs that make data: fetch, sample, etl."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer

from workflows.cli.call import Call
from workflows.cli.show import counts, show


def fetch(call: Call) -> None:
    """Download the raw files of a recipe, unless they exist."""
    from workflows.fetch import fetch

    recipe, _, data = call.open()
    result = fetch(recipe, data=data)
    show(result, call, {"folder": result.folder, "fetched": ", ".join(result.fetched) or "-"})


def sample(
    call: Call,
    *,
    size: Annotated[
        Literal["tiny", "small", "large"],
        typer.Option(help="Size of the data; large is as large as the real data."),
    ] = "small",
    to: Annotated[str, typer.Option(help="Folder for the files. Default: data/<recipe>.")] = "",
    seed: Annotated[
        int, typer.Option(min=0, help="Random seed; the same seed gives the same files.")
    ] = 1,
) -> None:
    """Write synthetic raw files in the format of aliccp, babyshop, hm, hm-joined or rees46."""
    from samples import sample

    name = call.recipe_name.partition(":")[0]
    folder = Path(to) if to else Path("data") / name
    result = sample(name, size, folder, seed=seed)
    rows = {
        **{file.name: f"{file.rows:,} rows" for file in result.files},
        "seconds": f"{result.seconds:.1f}",
        "folder": result.folder,
    }
    show(result, call, rows)


def etl(
    call: Call,
    *,
    grow_from: Annotated[
        str,
        typer.Option(help="A run whose vocabularies keep their codes; new values are appended."),
    ] = "",
    dask: Annotated[
        str,
        typer.Option(
            help="Dask: local, cuda (one worker per GPU), or a scheduler's address tcp://host:port."
        ),
    ] = "",
    workers: Annotated[
        int,
        typer.Option(
            min=0, help="Number of threads or Dask workers. Default: one per core or GPU."
        ),
    ] = 0,
    memory_limit: Annotated[
        str,
        typer.Option(help="Memory that may be used, such as 8GiB. Default: half of the machine's."),
    ] = "",
    chunk: Annotated[
        str, typer.Option(help="Amount of raw text that is read at a time. Default: 8MiB.")
    ] = "",
    spill: Annotated[
        str,
        typer.Option(
            help="Folder for the partitions of a large log, which are removed at the end. Default: "
            "in the folder of the run."
        ),
    ] = "",
) -> None:
    """Turn raw logs into encoded splits, vocabularies, and tables of users and items."""
    device = call.device()
    recipe, store, data = call.open(device)
    from workflows.etl import Engine, etl

    earlier = call.store(grow_from) if grow_from else None
    engine = Engine(dask=dask, workers=workers, memory=memory_limit, chunk=chunk, spill=spill)
    result = etl(recipe, store, device, data=data, grow_from=earlier, engine=engine)
    report = result.report
    rows = {
        "read": counts(report.read),
        "dropped": counts(report.dropped),
        "not in a joined table": counts(report.unmatched),
        "interactions": counts(report.rows),
        "unseen items": _unseen(report.unseen, recipe.item_id),
        "users": counts(report.users),
        "items": counts(report.items),
        "seconds": f"{result.seconds:.1f}",
        "folder": result.folder,
    }
    show(result, call, rows)


def _unseen(unseen: Mapping[str, Mapping[str, float]], item_id: str) -> str:
    """Return, as text, the share of held-out interactions whose item has no vocabulary code."""
    shares = {part: unseen[part].get(item_id, 0.0) for part in ("valid", "test")}
    return ", ".join(f"{share:.1%} of {part}" for part, share in shares.items() if share) or "none"


#: The command-line verbs of this file, in the order of --help.
VERBS = (fetch, sample, etl)
