"""What an export is asked: index, recommend, similar-items, audience, similar-offers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from workflows.cli.call import Call
from workflows.cli.show import counts, show, show_list, show_rows

if TYPE_CHECKING:
    from workflows.recommend import RecommendResult

_Only = Annotated[
    list[str] | None, typer.Option(help="Only items with column=value. May be repeated.")
]
_Deny = Annotated[list[str] | None, typer.Option(help="An item id never to be shown.")]
_K = Annotated[int, typer.Option("-k", min=1, help="Length of a list.")]


def index(
    call: Call,
    *,
    add: Annotated[
        str, typer.Option(help="csv or parquet of new items: embed them, and add them.")
    ] = "",
) -> None:
    """Make the export's items searchable, and prove recall and latency."""
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
        bool, typer.Option("--show-history", help="Show what the user did beside their list.")
    ] = False,
    file_format: Annotated[
        Literal["parquet", "jsonl"], typer.Option("--format", help="The format of the files.")
    ] = "parquet",
    ranker: Annotated[
        str, typer.Option(help="A function that reorders: module:function or file.py:function.")
    ] = "",
    candidates: Annotated[int, typer.Option(min=1, help="Items that the ranker is given.")] = 500,
) -> None:
    """Rank items for users by the export; strangers get the recipe's fallback."""
    device = call.device()
    recipe, store, _ = call.open(device)
    from workflows.recommend import Order, Ranker, recommend
    from workflows.stages.export import Wish

    order = Order(
        users=tuple(user) if user else None,
        file=Path(users) if users else None,
        context=tuple(context or ()),
        deny_file=Path(deny_file) if deny_file else None,
        allow_file=Path(allow_file) if allow_file else None,
        show_history=show_history,
        format=file_format,
    )
    wish = Wish(k=k, keep_seen=keep_seen, only=tuple(only or ()), deny=tuple(deny or ()))
    chosen = Ranker.load(ranker, candidates=candidates) if ranker else None
    result = recommend(recipe, store, device, wish=wish, order=order, ranker=chosen)
    if not call.as_json:
        for name, seen in result.histories.items():
            show_rows([{"": f"{name} did", **row} for row in seen])
        if result.lists:
            show_rows(result.lists)
    rows = {
        "users": f"{result.users:,}",
        "answered by": counts(result.answered_by),
        **_lengths(result, k),
        "seconds": f"{result.seconds:.1f}",
    }
    show(result, call, {**rows, **({"folder": result.folder} if result.folder else {})})


def _lengths(result: RecommendResult, k: int) -> dict[str, str]:
    """Return rows that say whose lists are empty, and how many are shorter than asked."""
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
    item: Annotated[str, typer.Option(help="A raw item id.")],
    k: _K = 10,
    only: _Only = None,
    deny: _Deny = None,
) -> None:
    """List the items most like one, by the export's embeddings without the item bias."""
    recipe, store, _ = call.open(call.device())
    from workflows.stages.export import Export, Wish
    from workflows.stages.store import ANSWERING

    wish = Wish(k=k, only=tuple(only or ()), deny=tuple(deny or ()))

    def answer() -> list[dict[str, Any]]:
        export = Export.open(store, recipe)
        export.catalogue.refuse_vain(wish.only)
        return export.similar(item, wish)

    show_list(store.steadily(ANSWERING, answer), call)


_Offer = Annotated[str, typer.Option(help="What defines it: brand=x,category1=y.")]


def audience(call: Call, *, offer: _Offer, k: _K = 10) -> None:
    """Rank users for an offer, by the export of a recipe with `offers`."""
    recipe, store, _ = call.open(call.device())
    from workflows.offers.audience import audience
    from workflows.stages.store import ANSWERING

    result = store.steadily(ANSWERING, lambda: audience(recipe, store, offer, k=k))
    if not call.as_json:
        show_rows(result.users)
    rows = {"events of the offer": f"{result.events:,}", "seconds": f"{result.seconds:.1f}"}
    show(result, call, rows)


def similar_offers(call: Call, *, offer: _Offer, k: _K = 10) -> None:
    """List the offers most like one that is defined by a single attribute."""
    recipe, store, _ = call.open(call.device())
    from workflows.offers.audience import similar
    from workflows.stages.store import ANSWERING

    rows = store.steadily(ANSWERING, lambda: similar(recipe, store, offer, k=k))
    show_list(rows, call)


#: In the order of --help.
VERBS = (index, recommend, similar_items, audience, similar_offers)
