"""`two-tower VERB`: pick the device, then import the verb. No logic; the only place that prints."""

from __future__ import annotations

import dataclasses
import inspect
import json
import logging
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from workflows.errors import TwoTowerError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from workflows.device import Device
    from workflows.recipe import Recipe
    from workflows.store import Store

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Candidate retrieval with two-tower models on NVIDIA Merlin.",
)


@dataclasses.dataclass(frozen=True)
class Call:
    """The options that every verb has, and what they stand for."""

    recipe_name: Annotated[
        str,
        typer.Option(
            "--recipe", help="A name in recipes/ or a .yaml file; NAME:VARIANT for a variant."
        ),
    ] = "movielens-100k"
    run: Annotated[
        str, typer.Option("--run", help="Folder runs/<RUN>, or a path. Default: the recipe's name.")
    ] = ""
    device_name: Annotated[str, typer.Option("--device", help="auto, cpu or gpu.")] = "auto"
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a recipe field: train.epochs=3. May be repeated."),
    ] = None
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False

    def device(self) -> Device:
        """Decide the device of this process. Before anything heavy is imported."""
        from workflows import device

        return device.choose(None if self.device_name == "auto" else self.device_name)

    def open(self, *, offers: bool = False) -> tuple[Recipe, Store, Path]:
        """Return the recipe, the run, and the folder of raw data.

        Args:
            offers: whether the verb knows what to do with models of offers.
        """
        from workflows import recipe as recipes
        from workflows.errors import RecipeError

        name, _, variant = self.recipe_name.partition(":")
        path = recipes.find(name)
        recipe = recipes.load(path, self.settings or [], variant=variant)
        if recipe.offers and not offers:
            raise RecipeError(
                f"recipe {recipe.name} has models of offers, not two towers: ask `audience` and "
                "`similar-offers`."
            )
        return recipe, self.store(self.run or recipe.name), (path.parent / recipe.data).resolve()

    def store(self, run: str) -> Store:
        """Return a run by its name in runs/, or by its path."""
        from workflows.store import Store

        return Store(Path(run) if "/" in run else Path("runs") / run)


def verb(function: Callable[..., None]) -> Callable[..., None]:
    """Make a command of a function of a `Call`: the shared options are written once.

    Keyword-only parameters of the function, annotated for typer, are options of this verb alone.
    """
    shared, own = (
        get_type_hints(Call, include_extras=True),
        inspect.signature(function, eval_str=True),
    )
    names = [field.name for field in dataclasses.fields(Call)]

    def command(**options: Any) -> None:
        call = Call(**{name: options.pop(name) for name in names})
        function(call, **options)

    parameters = [
        inspect.Parameter(
            field.name, _KEYWORD, default=field.default, annotation=shared[field.name]
        )
        for field in dataclasses.fields(Call)
    ]
    parameters += [p for p in own.parameters.values() if p.kind is _KEYWORD]
    command.__doc__ = function.__doc__
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    app.command(name=function.__name__.replace("_", "-"))(command)
    return function


_KEYWORD = inspect.Parameter.KEYWORD_ONLY


@verb
def fetch(call: Call) -> None:
    """Download the raw files of a recipe, unless they are there."""
    from workflows.fetch import fetch

    recipe, _, data = call.open(offers=True)
    result = fetch(recipe, data=data)
    _show(result, call, {"folder": result.folder, "fetched": ", ".join(result.fetched) or "-"})


@verb
def sample(
    call: Call,
    *,
    size: Annotated[str, typer.Option(help="tiny, small, or large as the real data.")] = "small",
    to: Annotated[str, typer.Option(help="Folder. Default: data/<recipe>.")] = "",
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bytes.")] = 1,
) -> None:
    """Write raw files like those of aliccp, babyshop, hm, hm-joined, rees46, and who likes what."""
    from workflows.sample import sample, size_named

    name = call.recipe_name.partition(":")[0]
    folder = Path(to) if to else Path("data") / name
    result = sample(name, size_named(size), folder, seed=seed)
    rows = {
        **{file.name: f"{file.rows:,} rows" for file in result.files},
        "seconds": f"{result.seconds:.1f}",
        "folder": result.folder,
    }
    _show(result, call, rows)


@verb
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
    recipe, store, data = call.open(offers=True)
    from workflows.etl import Engine, etl

    earlier = call.store(grow_from) if grow_from else None
    engine = Engine(dask=dask, workers=workers, memory=memory_limit, chunk=chunk)
    result = etl(recipe, store, device, data=data, grow_from=earlier, engine=engine)
    report = result.report
    rows = {
        "read": _counts(report.read),
        "dropped": _counts(report.dropped),
        "not in a joined table": _counts(report.unmatched),
        "interactions": _counts(report.rows),
        "users": _counts(report.users),
        "items": _counts(report.items),
        "seconds": f"{result.seconds:.1f}",
        "folder": result.folder,
    }
    _show(result, call, rows)


@verb
def train(
    call: Call,
    *,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on after the last epoch of an interrupted fit.")
    ] = False,
    warm_start: Annotated[
        str, typer.Option(help="Begin with the weights of this run (see etl --grow-from).")
    ] = "",
) -> None:
    """Fit the two towers, keeping the best epoch by a catalogue-wide metric."""
    device = call.device()
    recipe, store, _ = call.open(offers=True)
    if recipe.offers:
        _train_offers(call, recipe, store, device)
        return
    from workflows.train import train

    earlier = call.store(warm_start) if warm_start else None
    result = train(recipe, store, device, resume=resume, warm_start=earlier)
    shown = ("loss", "val_recall", "val_ndcg")
    rows = {
        "best epoch": f"{result.best.epoch + 1} of {result.epochs}",
        **{n: f"{v:.4f}" for n, v in result.best.metrics.items() if n.startswith(shown)},
        "rows a second": f"{result.rows_per_second:,.0f}",
        "seconds": f"{result.seconds:.1f}",
        "folder": result.folder,
    }
    _show(result, call, rows)


@verb
def evaluate(
    call: Call,
    *,
    min_lift: Annotated[
        list[str] | None,
        typer.Option(help="Exit with 3 below so many times a baseline: popularity:1.5."),
    ] = None,
) -> None:
    """Rank the test part with the two-tower and its baselines, and compare."""
    device = call.device()
    recipe, store, _ = call.open(offers=True)
    if recipe.offers:
        _evaluate_offers(call, recipe, store, device)
        return
    from workflows.evaluate import evaluate
    from workflows.evaluate.lift import Lift
    from workflows.evaluate.table import tables

    lifts = [Lift.parse(text) for text in min_lift or []]
    result = evaluate(recipe, store, device, min_lifts=lifts)
    if not call.as_json:
        for table in tables(result.report, recipe.evaluate.ks):
            _print(table)
    _show(result, call, {"seconds": f"{result.seconds:.1f}", "folder": result.folder})
    if result.missed:
        print(f"two-tower: missed lift: {'; '.join(result.missed)}", file=sys.stderr)
        raise typer.Exit(3)


@verb
def tune(call: Call) -> None:
    """Search hyper-parameters on the validation part; an interrupted search goes on."""
    device = call.device()
    recipe, store, _ = call.open()
    from workflows.tune import tune

    result = tune(recipe, store, device)
    rows = {
        "trials": str(result.trials),
        result.metric: f"{result.best.value:.4f}",
        "set": "\n".join(f"{name}={value}" for name, value in result.best.settings.items()),
        "seconds": f"{result.seconds:.1f}",
        "folder": result.folder,
    }
    _show(result, call, rows)


@verb
def export(
    call: Call,
    *,
    as_of: Annotated[
        str, typer.Option(help="What histories know of: test (as evaluated) or latest.")
    ] = "test",
) -> None:
    """Write towers, feature tables and embeddings, checked in a fresh process."""
    device = call.device()
    recipe, store, _ = call.open(offers=True)
    if recipe.offers:
        _export_offers(call, recipe, store, device)
        return
    from workflows.export import as_of_named, export

    result = export(recipe, store, device, as_of=as_of_named(as_of))
    rows = {
        "users": f"{result.users:,}",
        "items": f"{result.items:,}",
        "dimensions": str(result.dim),
        "seconds": f"{result.seconds:.1f}",
        "folder": result.folder,
        "files": "\n".join(sorted(p.name for p in result.folder.iterdir())),
    }
    _show(result, call, rows)


def _train_offers(call: Call, recipe: Recipe, store: Store, device: Device) -> None:
    from workflows.offers.train import train

    result = train(recipe, store, device)
    rows = {
        name: ", ".join(
            [
                f"epoch {epoch.epoch + 1}",
                *(f"{metric} {value:.4f}" for metric, value in epoch.metrics.items()),
                f"{result.rows_per_second[name]:,.0f} rows a second",
            ]
        )
        for name, epoch in result.best.items()
    }
    _show(result, call, {**rows, "seconds": f"{result.seconds:.1f}", "folder": result.folder})


def _evaluate_offers(call: Call, recipe: Recipe, store: Store, device: Device) -> None:
    from workflows.offers.evaluate import evaluate
    from workflows.offers.table import tables

    result = evaluate(recipe, store, device)
    if not call.as_json:
        for table in tables(result.report):
            _print(table)
    _show(result, call, {"seconds": f"{result.seconds:.1f}", "folder": result.folder})


def _export_offers(call: Call, recipe: Recipe, store: Store, device: Device) -> None:
    from workflows.offers.export import export

    result = export(recipe, store, device)
    rows = {
        "users": f"{result.users:,}",
        "offers": _counts(result.offers),
        "seconds": f"{result.seconds:.1f}",
        "folder": result.folder,
        "files": "\n".join(sorted(p.name for p in result.folder.iterdir())),
    }
    _show(result, call, rows)


@verb
def index(
    call: Call,
    *,
    add: Annotated[
        str, typer.Option(help="csv or parquet of new items: embed them, and add them.")
    ] = "",
) -> None:
    """Make the export's items searchable, and prove recall and latency."""
    device = call.device()
    recipe, store, _ = call.open()
    from workflows.index import index

    result = index(recipe, store, device, add=Path(add) if add else None)
    rows = {
        "kind": result.kind,
        "items": f"{result.items:,}, of which {result.added:,} added",
        f"recall@{result.at}": f"{result.measured.recall:.4f}",
        "ms a query": f"p50 {result.measured.p50_ms:.2f}, p99 {result.measured.p99_ms:.2f}",
        "seconds": f"{result.seconds:.1f}",
        "folder": result.folder,
    }
    _show(result, call, rows)


_Only = Annotated[
    list[str] | None, typer.Option(help="Only items with column=value. May be repeated.")
]
_Deny = Annotated[list[str] | None, typer.Option(help="An item id never to be shown.")]
_K = Annotated[int, typer.Option("-k", min=1, help="Length of a list.")]


@verb
def recommend(
    call: Call,
    *,
    user: Annotated[
        list[str] | None, typer.Option(help="A raw user id. Default: everybody, into files.")
    ] = None,
    users: Annotated[
        str, typer.Option(help="csv or parquet of user ids, and raw features if you like.")
    ] = "",
    k: _K = 10,
    keep_seen: Annotated[
        bool, typer.Option("--keep-seen", help="Show what the user had before, too.")
    ] = False,
    only: _Only = None,
    deny: _Deny = None,
    deny_file: Annotated[str, typer.Option(help="A file of item ids never to be shown.")] = "",
    allow_file: Annotated[str, typer.Option(help="A file of the only item ids to show.")] = "",
    context: Annotated[
        list[str] | None, typer.Option(help="Another occasion: column=value, such as month=12.")
    ] = None,
    show_history: Annotated[
        bool, typer.Option("--show-history", help="Show what the user did beside his list.")
    ] = False,
    file_format: Annotated[str, typer.Option("--format", help="parquet or jsonl.")] = "parquet",
    ranker: Annotated[
        str, typer.Option(help="A function that reorders: module:function or file.py:function.")
    ] = "",
    candidates: Annotated[int, typer.Option(min=1, help="Items that the ranker is given.")] = 500,
) -> None:
    """Rank items for users by the export; strangers get the recipe's fallback."""
    device = call.device()
    recipe, store, _ = call.open()
    from workflows.exported import Wish
    from workflows.recommend import Order, Ranker, format_named, recommend

    order = Order(
        users=tuple(user) if user else None,
        file=Path(users) if users else None,
        context=tuple(context or ()),
        deny_file=Path(deny_file) if deny_file else None,
        allow_file=Path(allow_file) if allow_file else None,
        show_history=show_history,
        format=format_named(file_format),
    )
    wish = Wish(k=k, keep_seen=keep_seen, only=tuple(only or ()), deny=tuple(deny or ()))
    chosen = Ranker.load(ranker, candidates=candidates) if ranker else None
    result = recommend(recipe, store, device, wish=wish, order=order, ranker=chosen)
    if not call.as_json:
        for name, seen in result.histories.items():
            _rows([{"what": f"{name} did", **row} for row in seen])
        if result.lists:
            _rows(result.lists)
    rows = {
        "users": f"{result.users:,}",
        "answered by": _counts(result.answered_by),
        "seconds": f"{result.seconds:.1f}",
    }
    _show(result, call, {**rows, **({"folder": result.folder} if result.folder else {})})


@verb
def similar_items(
    call: Call,
    *,
    item: Annotated[str, typer.Option(help="A raw item id.")],
    k: _K = 10,
    only: _Only = None,
    deny: _Deny = None,
) -> None:
    """List the items most like one, by the export's embeddings without the item bias."""
    recipe, store, _ = call.open()
    from workflows.exported import Export, Wish

    wish = Wish(k=k, only=tuple(only or ()), deny=tuple(deny or ()))
    lists = Export.open(store, recipe).similar(item, wish)
    if call.as_json:
        print(json.dumps(lists, indent=2))
    else:
        _rows(lists)


_Offer = Annotated[str, typer.Option(help="What defines it: brand=x,category1=y.")]


@verb
def audience(call: Call, *, offer: _Offer, k: _K = 10) -> None:
    """Rank users for an offer, by the export of a recipe with `offers`."""
    call.device()
    recipe, store, _ = call.open(offers=True)
    from workflows.offers.audience import audience

    result = audience(recipe, store, offer, k=k)
    if not call.as_json:
        _rows(result.users)
    rows = {"events of the offer": f"{result.events:,}", "seconds": f"{result.seconds:.1f}"}
    _show(result, call, rows)


@verb
def similar_offers(call: Call, *, offer: _Offer, k: _K = 10) -> None:
    """List the offers most like one that is defined by a single attribute."""
    call.device()
    recipe, store, _ = call.open(offers=True)
    from workflows.offers.audience import similar

    rows = similar(recipe, store, offer, k=k)
    if call.as_json:
        print(json.dumps(rows, indent=2))
    else:
        _rows(rows)


@verb
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
) -> None:
    """Answer over HTTP, with a page at /; a newer export takes over without a break."""
    device = call.device()
    recipe, store, _ = call.open()
    from workflows.serve import serve

    result = serve(recipe, store, device, host=host, port=port, watch=watch)
    _show(
        result,
        call,
        {
            "address": result.address,
            "reloads": str(result.reloads),
            "seconds": f"{result.seconds:.1f}",
        },
    )


@verb
def load(
    call: Call,
    *,
    to: Annotated[str, typer.Option(help="milvus or opensearch.")] = "milvus",
    place: Annotated[
        str,
        typer.Option(help="milvus: a file, or the URI of a cluster; opensearch: a folder."),
    ] = "",
    name: Annotated[str, typer.Option(help="Of the collection. Default: the recipe's.")] = "",
) -> None:
    """Load the items into a vector database, to be asked by users' embeddings."""
    recipe, store, _ = call.open()
    from workflows.load import database_named, load

    result = load(recipe, store, to=database_named(to), place=place, name=name)
    rows = {
        "place": result.place,
        "name": result.name,
        "items": f"{result.items:,}",
        "dimensions": str(result.dim),
        "seconds": f"{result.seconds:.1f}",
    }
    _show(result, call, rows)


@verb
def triton(
    call: Call,
    *,
    to: Annotated[str, typer.Option(help="Folder. Default: runs/<RUN>/triton.")] = "",
) -> None:
    """Write a model repository for Triton: raw values of users in, raw ids of items out."""
    call.device()
    recipe, store, _ = call.open()
    from workflows.triton import triton

    result = triton(recipe, store, to=Path(to) if to else store.root / "triton")
    rows = {
        "folder": result.folder,
        "takes": ", ".join(result.inputs),
        "items": f"{result.items:,}",
        "seconds": f"{result.seconds:.1f}",
    }
    _show(result, call, rows)


@verb
def report(call: Call) -> None:
    """Write one HTML page and a model card about the finished run."""
    device = call.device()
    recipe, store, _ = call.open()
    from workflows.report import report

    result = report(recipe, store, device)
    rows = {"page": result.page, "card": result.card, "seconds": f"{result.seconds:.1f}"}
    _show(result, call, rows)


@verb
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
    _show(diagnosis, call, rows)
    if diagnosis.faults:
        raise typer.Exit(2)


def _rows(rows: list[dict[str, Any]]) -> None:
    """Print rows of equal columns as a table."""
    from rich.table import Table

    table = Table(*rows[0]) if rows else Table()
    for row in rows:
        table.add_row(*(f"{v:.4f}" if isinstance(v, float) else str(v) for v in row.values()))
    _print(table)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n:,}" for name, n in counts.items() if n) or "none"


def _show(result: Any, call: Call, rows: Mapping[str, object]) -> None:
    if call.as_json:
        import msgspec

        print(json.dumps(msgspec.to_builtins(result, enc_hook=str), indent=2))
        return
    from rich.table import Table

    table = Table(show_header=False)
    for name, value in rows.items():
        table.add_row(name, str(value))
    _print(table)


def _print(what: RenderableType) -> None:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:  # a file or a pipe has no width of its own
        console = Console(width=160)
    console.print(what)


def main() -> None:
    """Run the command line: a fault of input or machine is one paragraph and exit code 2."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("workflows").setLevel(logging.INFO)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")  # Merlin's, TensorFlow's, Dask's; tests turn them to errors
    try:
        app(prog_name="two-tower")
    except TwoTowerError as error:
        print(f"two-tower: {error}", file=sys.stderr)
        sys.exit(2)
