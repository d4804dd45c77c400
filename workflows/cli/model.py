"""Verbs that make a model: train, evaluate, tune, export."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from workflows.cli.call import Call
from workflows.cli.show import print_error, show, show_text
from workflows.ground.ranks import Rank, find_cluster

if TYPE_CHECKING:
    from workflows.train import Fitted


def train(
    call: Call,
    *,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an interrupted fit after its last epoch.")
    ] = False,
    warm_start: Annotated[
        str, typer.Option(help="A run whose weights the fit begins with (see etl --grow-from).")
    ] = "",
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of processes on this machine, or of GPUs, that train the model together. "
            "Default: one, or those that TF_CONFIG or the variables of a SLURM step name.",
        ),
    ] = None,
) -> None:
    """Fit the models of the recipe, and keep each model's best epoch on the validation part."""
    rank = Rank.of_this_process()
    device = call.device()
    from workflows.cli.ranks import connected, run_as_rank, run_ranks
    from workflows.model_kinds import refuse_options

    if rank is None and (cluster := find_cluster(workers)):
        run_ranks(call, cluster, device)
        return
    with run_as_rank(rank):
        recipe, store, data = call.open(device)
        refuse_options(recipe, {"--workers": rank is not None})
        earlier = call.store(warm_start) if warm_start else None
        collectives = connected(rank)  # before TensorFlow runs anything
        from workflows.stages.etl import warn_of_changed_files
        from workflows.train import assist, train

        if collectives.share.rank > 0:
            assist(recipe, store, warm_start=earlier, collectives=collectives)
            return
        warn_of_changed_files(store, data)
        result = train(
            recipe, store, device, resume=resume, warm_start=earlier, collectives=collectives
        )
    rows = {"seconds": f"{result.seconds:.1f}", "folder": result.folder}
    several = {name: _in_one_line(fit) for name, fit in result.fits.items()}
    show(result, call, {**(several if len(several) > 1 else _row_by_row(result.first)), **rows})


#: Prefixes of the names of the metrics that `train` shows.
_SHOWN = ("loss", "l1", "val_auc", "val_recall", "val_ndcg")


def _row_by_row(fit: Fitted) -> dict[str, str]:
    shown = {n: f"{v:.4f}" for n, v in fit.best.metrics.items() if n.startswith(_SHOWN)}
    rate = {"rows a second": f"{fit.rows_per_second:,.0f}"}
    return {"best epoch": f"{fit.best.epoch + 1} of {fit.epochs}", **shown, **rate}


def _in_one_line(fit: Fitted) -> str:
    return ", ".join(f"{name} {value}" for name, value in _row_by_row(fit).items())


def evaluate(
    call: Call,
    *,
    min_lift: Annotated[
        list[str] | None,
        typer.Option(
            help="Exit with code 3 if the recall is below a multiple of a baseline's, such as "
            "popularity:1.5. May be repeated."
        ),
    ] = None,
) -> None:
    """Measure the models and the baselines on the test part, and compare them."""
    device = call.device()
    recipe, store, _ = call.open(device)
    from workflows.evaluate import evaluate, tables
    from workflows.ranking.lift import Lift

    lifts = [Lift.parse(text) for text in min_lift or []]
    result = evaluate(recipe, store, device, min_lifts=lifts)
    if not call.as_json:
        for table in tables(recipe, result.report):
            show_text(table)
    show(result, call, {"seconds": f"{result.seconds:.1f}", "folder": result.folder})
    if result.missed:
        print_error(f"missed lift: {'; '.join(result.missed)}")
        raise typer.Exit(3)


def tune(call: Call) -> None:
    """Search hyper-parameters on the validation part; an interrupted search is continued."""
    device = call.device()
    recipe, store, data = call.open(device)
    from workflows.stages.etl import warn_of_changed_files
    from workflows.tune import tune

    warn_of_changed_files(store, data)
    result = tune(recipe, store, device)
    rows = {
        "trials": str(result.trials),
        result.metric: f"{result.best.value:.4f}",
        "set": "\n".join(f"{name}={value}" for name, value in result.best.settings.items()),
        "seconds": f"{result.seconds:.1f}",
        "folder": result.folder,
    }
    show(result, call, rows)


def export(
    call: Call,
    *,
    as_of: Annotated[
        Literal["test", "latest"] | None,
        typer.Option(
            help="End of histories; test (default): before the test part, latest: after all rows."
        ),
    ] = None,
) -> None:
    """Write towers, feature tables and embeddings, and check them in a new process."""
    device = call.device()
    recipe, store, _ = call.open(device)
    from workflows.export import export

    result = export(recipe, store, device, as_of=as_of)
    rows = {
        **{name: f"{count:,}" for name, count in result.rows.items()},
        "seconds": f"{result.seconds:.1f}",
        "folder": result.folder,
        "files": "\n".join(sorted(p.name for p in result.folder.iterdir())),
    }
    show(result, call, rows)


#: The command-line verbs of this file, in the order of --help.
VERBS = (train, tune, evaluate, export)
