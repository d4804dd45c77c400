"""From raw logs to encoded splits: fetch, sample, etl."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer

from workflows.cli.call import Call
from workflows.cli.show import counts, show


def fetch(call: Call) -> None:
    """Download the raw files of a recipe, unless they are there."""
    from workflows.fetch import fetch

    recipe, _, data = call.open()
    result = fetch(recipe, data=data)
    show(result, call, {"folder": result.folder, "fetched": ", ".join(result.fetched) or "-"})


def sample(
    call: Call,
    *,
    size: Annotated[
        Literal["tiny", "small", "large"], typer.Option(help="large is as large as the real data.")
    ] = "small",
    to: Annotated[str, typer.Option(help="Folder. Default: data/<recipe>.")] = "",
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bytes.")] = 1,
) -> None:
    """Write raw files like those of aliccp, babyshop, hm, hm-joined, rees46, and who likes what."""
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
        str, typer.Option(help="Keep the codes of this run's vocabularies; append new values.")
    ] = "",
    dask: Annotated[
        str, typer.Option(help="local, cuda (one worker a GPU), or a scheduler: tcp://host:port.")
    ] = "",
    workers: Annotated[
        int, typer.Option(min=0, help="Threads, or Dask workers. Default: one a core or GPU.")
    ] = 0,
    memory_limit: Annotated[
        str, typer.Option(help="What may be taken, such as 8GiB. Default: half of the machine.")
    ] = "",
    chunk: Annotated[str, typer.Option(help="Raw text read at a time. Default: 8MiB.")] = "",
) -> None:
    """Raw interaction logs → encoded splits, vocabularies, user and item tables."""
    device = call.device()
    recipe, store, data = call.open(device)
    from workflows.etl import Engine, etl

    earlier = call.store(grow_from) if grow_from else None
    engine = Engine(dask=dask, workers=workers, memory=memory_limit, chunk=chunk)
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
    """Return the shares of held-out rows whose item has no code of its own."""
    shares = {part: unseen[part].get(item_id, 0.0) for part in ("valid", "test")}
    return ", ".join(f"{share:.1%} of {part}" for part, share in shares.items() if share) or "none"


#: In the order of --help.
VERBS = (fetch, sample, etl)
