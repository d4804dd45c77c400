"""Raw user ids → lists of raw item ids: a few users' are returned, many become a stage."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from models.core import atomic
from workflows.ground.device import Device
from workflows.ground.errors import DataError
from workflows.recipe import Recipe
from workflows.recommend import shards
from workflows.recommend.order import Order, asked, with_files
from workflows.recommend.ranker import Ranker
from workflows.recommend.shards import Counts, Listed, Shards
from workflows.stages.export import Export, Wish
from workflows.stages.store import ANSWERING, Store

__all__ = ["Order", "Ranker", "RecommendResult", "recommend"]

#: Folder of the stage with a file a shard.
LISTS = "lists"
#: What the user did that is shown beside a list.
SHOWN = 20


@dataclass(frozen=True)
class RecommendResult:
    """What was recommended.

    Attributes:
        folder: the folder of the stage; None where only some users were asked for.
        users: how many users.
        answered_by: `two-tower`, `raw features` or the fallback → how many lists, empty ones, too.
        empty: users for whom no item is left.
        short: other users whose lists are shorter than asked.
        lists: the rows of the asked users' lists; empty where all were written.
        without_items: asked users for whom no item is left.
        histories: asked user → what they did, newest first; empty where that was not asked.
        seconds: in all.
    """

    folder: Path | None
    users: int
    answered_by: dict[str, int]
    empty: int
    short: int
    lists: list[dict[str, Any]]
    without_items: list[str]
    histories: dict[str, list[dict[str, Any]]]
    seconds: float


def recommend(
    recipe: Recipe,
    store: Store,
    device: Device,
    *,
    wish: Wish | None = None,
    order: Order | None = None,
    ranker: Ranker | None = None,
) -> RecommendResult:
    """Rank items for users by the exported embeddings.

    An interrupted run goes on where it stopped, if it is asked the same again.

    Args:
        recipe: names of columns, and the fallback.
        store: the run.
        device: chosen for this process.
        wish: what lists may hold.
        order: for whom; everybody of the user table by default, and then, or for a file,
            runs/<name>/recommend/ is written.
        ranker: puts what was retrieved into another order.

    Raises:
        DataError: a rule, an id or a file that fits nothing.
    """
    start = time.perf_counter()
    order, given = order or Order(), wish or Wish()
    if order.users is not None:
        return store.steadily(
            ANSWERING,
            lambda: _returned(_lists(recipe, store, order, given, ranker), order, start),
        )
    if order.show_history and order.format != "jsonl":
        raise DataError("--show-history goes with --user, or with --format jsonl.")
    with store.write("recommend", recipe, device) as draft:
        lists = _lists(recipe, store, order, given, ranker)
        export, wish, users = lists.export, lists.wish, lists.users
        history = partial(_history, export) if order.show_history else None
        save: Callable[[Listed, Path], None] = shards.write_parquet
        if order.format == "jsonl":
            save = partial(shards.write_jsonl, key=recipe.user_id, history=history)
        candidates = ranker.candidates if ranker else 0
        size = shards.shard_size(min(max(wish.k, candidates), len(export.items)))
        identity = _identity(store, recipe, wish, order, ranker, size)
        kept = Shards(store.root / ".recommend.shards", identity, size=size)
        facts = list(kept.write(len(users), lists, save, order.format))
        kept.link(draft.folder / LISTS, order.format)
        all_of_it = Counts.summed(fact.counts for fact in facts)
        draft.rows = {
            "users": len(users),
            "recommendations": all_of_it.rows,
            "users_without_items": all_of_it.empty,
            "short_lists": all_of_it.short,
        }
        draft.options = _options(export, given, order, ranker)
    kept.remove()
    seconds = time.perf_counter() - start
    return _result(store.folder("recommend"), all_of_it, seconds)


@dataclass(frozen=True)
class _Lists:
    """Makes the lists of a slice of the users."""

    export: Export
    wish: Wish
    users: np.ndarray[Any, Any]
    told: pa.Table | None
    ranker: Ranker | None

    def __call__(self, rows: slice) -> Listed:
        users = self.users[rows]
        told = None if self.told is None else self.told.slice(rows.start or 0, len(users))
        if self.ranker:
            return self.ranker.lists(self.export, users, self.wish, told)
        answers = self.export.ask(users, self.wish, told)
        return Listed.of(answers, self.export.table(answers), self.wish.k)


def _lists(recipe: Recipe, store: Store, order: Order, wish: Wish, ranker: Ranker | None) -> _Lists:
    """Open the export, and what was ordered of it."""
    export = Export.open(store, recipe)
    users, told = asked(order, export)
    return _Lists(export, with_files(wish, order, export), users, told, ranker)


def _returned(lists: _Lists, order: Order, start: float) -> RecommendResult:
    listed = lists(slice(0, len(lists.users)))
    histories = {user: _history(lists.export, user) for user in order.users or ()}
    return replace(
        _result(None, listed.counts(), time.perf_counter() - start),
        lists=listed.rows.to_pylist(),
        without_items=list(dict.fromkeys(listed.users[listed.lengths == 0].tolist())),
        histories=histories if order.show_history else {},
    )


def _result(folder: Path | None, counts: Counts, seconds: float) -> RecommendResult:
    users = sum(counts.answered_by.values())
    return RecommendResult(
        folder, users, counts.answered_by, counts.empty, counts.short, [], [], {}, seconds
    )


def _history(export: Export, user: str) -> list[dict[str, Any]]:
    return export.history(user).slice(0, SHOWN).to_pylist()


def _identity(
    store: Store, recipe: Recipe, wish: Wish, order: Order, ranker: Ranker | None, size: int
) -> str:
    """Return what the same shards are known by."""
    stages = [s for s in ("etl", "export", "index") if store.folder(s).is_dir()]
    question = {
        "stages": [store.digest(stage) for stage in stages],
        "recipe": recipe.to_dict(),
        "wish": asdict(wish),
        "order": asdict(order),
        "file": atomic.sha256(order.file) if order.file else "",
        "ranker": [ranker.name, ranker.digest, ranker.candidates] if ranker else [],
        "shard": size,
    }
    text = msgspec.json.encode(question, enc_hook=str, order="sorted")
    return hashlib.sha256(text).hexdigest()


def _options(export: Export, wish: Wish, order: Order, ranker: Ranker | None) -> dict[str, str]:
    return {
        "as_of": export.as_of,
        "k": str(wish.k),
        "keep_seen": str(wish.keep_seen),
        "only": ", ".join(wish.only),
        "deny": ", ".join(wish.deny),
        "deny_file": order.deny_file.name if order.deny_file else "",
        "allow_file": order.allow_file.name if order.allow_file else "",
        "users": order.file.name if order.file else "",
        "context": ", ".join(order.context),
        "ranker": ranker.name if ranker else "",
        "search": export.catalogue.kind,
        "added_items": str(len(export.items) - export.catalogue.n_exported),
    }
