"""The verb `recommend`: return the lists of a few users, or write the lists of many users."""

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
from workflows.recommend.ranker import Ranker
from workflows.recommend.request import RecommendRequest, read_users, with_files
from workflows.recommend.shards import ListBatch, ListCounts, Shards, Share
from workflows.stages.dependencies import ANSWERING
from workflows.stages.export import AS_OF
from workflows.stages.recommender import ListOptions, Recommender
from workflows.stages.store import Store

__all__ = ["Ranker", "RecommendRequest", "RecommendResult", "Share", "recommend"]

#: Folder, within the recommend stage, with one file of lists per shard of users.
LISTS = "lists"
#: Folder beside the stages that holds the shards while lists are being written.
SHARDS = ".recommend.shards"
#: Number of row groups of users (65,536 users each) that stay in memory.
_KEPT = 4
#: Greatest number of history items that are shown beside a user's list.
SHOWN = 20


@dataclass(frozen=True)
class RecommendResult:
    """The recommendation lists that were made, and their counts.

    Attributes:
        folder: the folder of the recommend stage; None where the lists are returned.
        users: number of users who got a list.
        answered_by: ranking method (`two-tower`, `raw features` or the fallback) → number of lists,
            empty lists included.
        empty: number of users whose list is empty, because the filters leave no item.
        short: number of users whose lists are shorter than `k`, but not empty.
        missing: number of shards that other processes have not written yet; 0 without `share`.
        lists: the rows of the returned lists; empty if the lists were written as a stage.
        without_items: ids of users whose lists are empty; always empty if lists were written.
        histories: id of a user → items of the user's history, newest first; empty if the request
            does not ask for histories.
        seconds: duration of the whole verb.
    """

    folder: Path | None
    users: int
    answered_by: dict[str, int]
    empty: int
    short: int
    missing: int
    lists: list[dict[str, Any]]
    without_items: list[str]
    histories: dict[str, list[dict[str, Any]]]
    seconds: float


def recommend(
    recipe: Recipe,
    store: Store,
    device: Device,
    *,
    options: ListOptions | None = None,
    request: RecommendRequest | None = None,
    ranker: Ranker | None = None,
    share: Share | None = None,
) -> RecommendResult:
    """Rank items for users by the exported embeddings.

    An interrupted call continues where it stopped, if it is repeated with the same arguments.

    Args:
        recipe: the recipe of the run.
        store: the folder of the run, or a copied export.
        device: the device of this process.
        options: the length of the lists, and the items that they may hold.
        request: the users who get lists; by default all of the user table. Lists of all users, and
            of the users of a file, are written as the recommend stage.
        ranker: the function that re-ranks the retrieved items; None for no re-ranking.
        share: the share of the lists that this process writes, beside the stage, while others
            write the others. A last call without a share puts all of them together.

    Raises:
        DataError: a rule, an id or a file does not fit the export, or lists that are returned are
            to be shared.
    """
    start = time.perf_counter()
    request, options = request or RecommendRequest(), options or ListOptions()
    if request.users is not None:
        if share:
            raise DataError("--shard goes with lists that are written, and not with --user.")
        return store.read_consistently(
            ANSWERING,
            lambda: _returned(_open(recipe, store, request, options, ranker), request, start),
        )
    if request.show_history and request.format != "jsonl":
        raise DataError("--show-history goes with --user, or with --format jsonl.")
    if share:
        return _write_share(recipe, store, options, request, ranker, share, start)
    counts = _write(recipe, store, device, options, request, ranker)
    return _result(store.folder("recommend"), counts, time.perf_counter() - start)


def _write_share(
    recipe: Recipe,
    store: Store,
    options: ListOptions,
    request: RecommendRequest,
    ranker: Ranker | None,
    share: Share,
    start: float,
) -> RecommendResult:
    """Write some of the shards beside the stage, as one of several processes."""
    lists = _open(recipe, store, request, options, ranker)
    kept, n_users = _shards(lists, recipe, store, request), len(lists.users)
    facts = list(kept.write(n_users, lists, lists.saver(request), request.format, share))
    counts = ListCounts.summed(fact.counts for fact in facts)
    missing = kept.count(n_users) - kept.n_finished()
    result = _result(store.folder(SHARDS), counts, time.perf_counter() - start)
    return replace(result, missing=missing)


def _write(
    recipe: Recipe,
    store: Store,
    device: Device,
    options: ListOptions,
    request: RecommendRequest,
    ranker: Ranker | None,
) -> ListCounts:
    """Write the lists of many users as the recommend stage, and count them."""
    with store.write("recommend", recipe, device) as draft:
        lists = _open(recipe, store, request, options, ranker)
        kept = _shards(lists, recipe, store, request)
        facts = list(kept.write(len(lists.users), lists, lists.saver(request), request.format))
        kept.link(draft.folder / LISTS, request.format)
        counts = ListCounts.summed(fact.counts for fact in facts)
        draft.rows = {
            "users": len(lists.users),
            "recommendations": counts.rows,
            "users_without_items": counts.empty,
            "short_lists": counts.short,
        }
        draft.options = _manifest_options(lists.recommender, options, request, ranker)
    kept.remove()
    return counts


def _shards(lists: _Lists, recipe: Recipe, store: Store, request: RecommendRequest) -> Shards:
    """Return the shards of the request's lists, which may have been written in part."""
    size = lists.shard_size()
    identity = _identity(store, recipe, lists.options, request, lists.ranker, size)
    return Shards(store.folder(SHARDS), identity, size=size)


@dataclass(frozen=True)
class _Lists:
    """A callable that makes the recommendation lists of a slice of the request's users.

    Attributes:
        recommender: the recommender that makes the lists.
        options: the length of the lists, and the items that they may hold.
        users: raw ids of all users of the request.
        given: raw values of the query tower's inputs, one row per user, if any were given.
        ranker: the function that re-ranks the retrieved items; None for no re-ranking.
        all_users: whether the users are those of the user table, in its order.
    """

    recommender: Recommender
    options: ListOptions
    users: pa.StringArray
    given: pa.Table | None
    ranker: Ranker | None
    all_users: bool

    def __call__(self, rows: slice) -> ListBatch:
        users = self.users[rows].to_numpy(zero_copy_only=False)
        start = rows.start or 0
        given = None if self.given is None else self.given.slice(start, len(users))
        # a look-up of ids would hash all ids of the table for each slice
        numbers = np.arange(start, start + len(users)) if self.all_users else None
        if self.ranker:
            return self.ranker.lists(self.recommender, users, self.options, given, numbers)
        answers = self.recommender.rank(users, self.options, given, numbers)
        return ListBatch.of(answers, self.recommender.table(answers), self.options.k)

    def saver(self, request: RecommendRequest) -> Callable[[ListBatch, Path], None]:
        """Return the function that writes lists in the format of the request."""
        if request.format == "parquet":
            return shards.write_parquet
        history = None
        if request.show_history:
            self.recommender.export.user_lookup.prepare()
            history = partial(_history, self.recommender)
        return partial(shards.write_jsonl, key=self.recommender.recipe.user_id, history=history)

    def shard_size(self) -> int:
        """Return the number of users whose lists go into one shard (file) of the stage."""
        retrieved = max(self.options.k, self.ranker.candidates if self.ranker else 0)
        return shards.shard_size(min(retrieved, len(self.recommender.catalogue.items)))


def _open(
    recipe: Recipe,
    store: Store,
    request: RecommendRequest,
    options: ListOptions,
    ranker: Ranker | None,
) -> _Lists:
    """Open the export, and read the files of user and item ids that a request names."""
    recommender = Recommender.open(store, recipe, kept=_KEPT)
    users, given = read_users(request, recommender)
    options = with_files(options, request, recommender)
    all_users = request.users is None and request.file is None
    return _Lists(recommender, options, users, given, ranker, all_users)


def _returned(lists: _Lists, request: RecommendRequest, start: float) -> RecommendResult:
    batch = lists(slice(0, len(lists.users)))
    histories = {user: _history(lists.recommender, user) for user in request.users or ()}
    return replace(
        _result(None, batch.counts(), time.perf_counter() - start),
        lists=batch.rows.to_pylist(),
        without_items=list(dict.fromkeys(batch.users[batch.lengths == 0].tolist())),
        histories=histories if request.show_history else {},
    )


def _result(folder: Path | None, counts: ListCounts, seconds: float) -> RecommendResult:
    users = sum(counts.answered_by.values())
    return RecommendResult(
        folder, users, counts.answered_by, counts.empty, counts.short, 0, [], [], {}, seconds
    )


def _history(recommender: Recommender, user: str) -> list[dict[str, Any]]:
    return recommender.history(user, SHOWN).to_pylist()


def _identity(
    store: Store,
    recipe: Recipe,
    options: ListOptions,
    request: RecommendRequest,
    ranker: Ranker | None,
    size: int,
) -> str:
    """Return a hash of all inputs of the written lists: run, request, options and ranker."""
    question = {
        "stages": [store.digest(stage) for stage in ANSWERING if store.folder(stage).is_dir()],
        "recipe": recipe.to_dict(),
        "options": asdict(options),
        "request": asdict(request),
        "file": atomic.sha256(request.file) if request.file else "",
        "ranker": [ranker.name, ranker.digest, ranker.candidates] if ranker else [],
        "shard": size,
    }
    text = msgspec.json.encode(question, enc_hook=str, order="sorted")
    return hashlib.sha256(text).hexdigest()


def _manifest_options(
    recommender: Recommender,
    options: ListOptions,
    request: RecommendRequest,
    ranker: Ranker | None,
) -> dict[str, str]:
    catalogue = recommender.catalogue
    return {
        AS_OF: recommender.export.as_of,
        "k": str(options.k),
        "keep_seen": str(options.keep_seen),
        "only": ", ".join(options.only),
        "deny": ", ".join(options.deny),
        "deny_file": request.deny_file.name if request.deny_file else "",
        "allow_file": request.allow_file.name if request.allow_file else "",
        "users": request.file.name if request.file else "",
        "context": ", ".join(request.context),
        "ranker": ranker.name if ranker else "",
        "search": catalogue.kind,
        "added_items": str(len(catalogue.items) - catalogue.n_exported),
    }
