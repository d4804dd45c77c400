"""Verbs that query an export: index, recommend, similar-items, audience, similar-offers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from workflows.cli.call import Call
from workflows.cli.show import counts, show, show_list, show_rows

if TYPE_CHECKING:
    from workflows.recommend import RecommendResult

_Only = Annotated[
    list[str] | None, typer.Option(help="List only items with column=value. May be repeated.")
]
_Deny = Annotated[
    list[str] | None, typer.Option(help="An item id that lists must not contain. May be repeated.")
]
_K = Annotated[int, typer.Option("-k", min=1, help="Number of items in a list.")]


def index(
    call: Call,
    *,
    add: Annotated[
        str,
        typer.Option(
            help="A csv, JSON lines or parquet file of new items, which are embedded and added."
        ),
    ] = "",
) -> None:
    """Build a search index of the items, and measure its recall and latency."""
    device = call.device()
    recipe, store, _ = call.open(device)
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
    show(result, call, rows)


def recommend(
    call: Call,
    *,
    user: Annotated[
        list[str] | None,
        typer.Option(help="A user id. May be repeated. Default: all users; lists go into files."),
    ] = None,
    users: Annotated[
        str,
        typer.Option(
            help="A csv, JSON lines or parquet file of user ids, and of raw features if needed."
        ),
    ] = "",
    k: _K = 10,
    keep_seen: Annotated[
        bool, typer.Option("--keep-seen", help="Lists may contain items that the user has seen.")
    ] = False,
    only: _Only = None,
    deny: _Deny = None,
    deny_file: Annotated[
        str, typer.Option(help="A file of item ids that lists must not contain.")
    ] = "",
    allow_file: Annotated[
        str, typer.Option(help="A file of the only item ids that lists may contain.")
    ] = "",
    context: Annotated[
        list[str] | None,
        typer.Option(help="Value of a context feature: column=value, such as month=12."),
    ] = None,
    show_history: Annotated[
        bool, typer.Option("--show-history", help="Print the user's history before their list.")
    ] = False,
    file_format: Annotated[
        Literal["parquet", "jsonl"], typer.Option("--format", help="Format of the files.")
    ] = "parquet",
    ranker: Annotated[
        str, typer.Option(help="A function that re-ranks: module:function or file.py:function.")
    ] = "",
    candidates: Annotated[
        int, typer.Option(min=1, help="Number of items that the ranker gets.")
    ] = 500,
    shard: Annotated[
        str,
        typer.Option(
            help="Write only the share i/n of the lists, i from 0 to n - 1, as one of n processes. "
            "A last call without --shard puts all lists together."
        ),
    ] = "",
) -> None:
    """Recommend items to users; unknown users get the fallback of the recipe."""
    device = call.device()
    recipe, store, _ = call.open(device)
    from workflows.recommend import Ranker, RecommendRequest, Share, recommend
    from workflows.stages.recommender import ListOptions

    request = RecommendRequest(
        users=tuple(user) if user else None,
        file=Path(users) if users else None,
        context=tuple(context or ()),
        deny_file=Path(deny_file) if deny_file else None,
        allow_file=Path(allow_file) if allow_file else None,
        show_history=show_history,
        format=file_format,
    )
    options = ListOptions(k=k, keep_seen=keep_seen, only=tuple(only or ()), deny=tuple(deny or ()))
    chosen = Ranker.from_name(ranker, candidates=candidates) if ranker else None
    share = Share.parse(shard) if shard else None
    result = recommend(
        recipe, store, device, options=options, request=request, ranker=chosen, share=share
    )
    if not call.as_json:
        for name, seen in result.histories.items():
            show_rows([{"": f"{name} did", **row} for row in seen])
        if result.lists:
            show_rows(result.lists)
    rows = {
        "users": f"{result.users:,}",
        "answered by": counts(result.answered_by),
        **_lengths(result, k),
        **({"shards of others that are missing": f"{result.missing:,}"} if share else {}),
        "seconds": f"{result.seconds:.1f}",
    }
    show(result, call, {**rows, **({"folder": result.folder} if result.folder else {})})


def _lengths(result: RecommendResult, k: int) -> dict[str, str]:
    """Return table rows that count the users with empty lists, and with fewer than k items."""
    rows = {}
    if result.empty:
        named = f" ({', '.join(result.without_items[:5])})" if result.without_items else ""
        rows["no item is left for"] = f"{result.empty:,}{named}"
    if result.short:
        rows[f"fewer than {k} items for"] = f"{result.short:,}"
    return rows


def similar_items(
    call: Call,
    *,
    item: Annotated[str, typer.Option(help="Id of an item.")],
    k: _K = 10,
    only: _Only = None,
    deny: _Deny = None,
) -> None:
    """List the items that are most similar to an item: embeddings, without biases, are compared."""
    recipe, store, _ = call.open(call.device())
    from workflows.stages.dependencies import ANSWERING
    from workflows.stages.recommender import ListOptions, Recommender

    options = ListOptions(k=k, only=tuple(only or ()), deny=tuple(deny or ()))

    def answer() -> list[dict[str, Any]]:
        recommender = Recommender.open(store, recipe)
        recommender.catalogue.rules.refuse_unmatched(options.only)
        return recommender.similar(item, options)

    show_list(store.read_consistently(ANSWERING, answer), call)


_Offer = Annotated[str, typer.Option(help="Attributes of the offer: brand=x,category1=y.")]


def audience(call: Call, *, offer: _Offer, k: _K = 10) -> None:
    """List the users who are most likely to take an offer (only for runs of offer models)."""
    recipe, store, _ = call.open(call.device())
    from workflows.offers.audience import audience
    from workflows.stages.dependencies import ANSWERING

    result = store.read_consistently(ANSWERING, lambda: audience(recipe, store, offer, k=k))
    if not call.as_json:
        show_rows(result.users)
    rows = {"events of the offer": f"{result.events:,}", "seconds": f"{result.seconds:.1f}"}
    show(result, call, rows)


def similar_offers(call: Call, *, offer: _Offer, k: _K = 10) -> None:
    """List the offers that are most similar to an offer with a single attribute."""
    recipe, store, _ = call.open(call.device())
    from workflows.offers.audience import similar
    from workflows.stages.dependencies import ANSWERING

    rows = store.read_consistently(ANSWERING, lambda: similar(recipe, store, offer, k=k))
    show_list(rows, call)


#: The command-line verbs of this file, in the order of --help.
VERBS = (index, recommend, similar_items, audience, similar_offers)
