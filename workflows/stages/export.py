"""An export, ready to be asked: raw ids in, lists of raw ids out, in the ranking of evaluate.

Merlin is not needed, and TensorFlow only where raw values are told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from models.baselines.fallback import Fallback, strangers
from models.baselines.popularity import Popularity
from models.core.exact import search
from models.core.retriever import NO_ITEM, Bools, Floats, Ints, Queries, Ragged, TopK
from workflows.ground.errors import DataError
from workflows.ground.lookup import Lookup
from workflows.ground.stage_content import embeddings_of, reading, require
from workflows.recipe import Recipe
from workflows.stages.embedding import RawTower
from workflows.stages.etl import KNOWN, Prepared
from workflows.stages.index import Catalogue
from workflows.stages.store import Store

Users = np.ndarray[Any, Any]

#: File of the embedding of a user who is in no table.
UNKNOWN_USER = "unknown_user.npy"


#: Masks of what may be shown that are kept: a byte an item each.
_MASKS = 16
#: An id that nobody has; an empty text would be a missing one.
_NOBODY = "\0"


@dataclass(frozen=True)
class Wish:
    """What a list may hold.

    Attributes:
        k: list length; shorter where fewer items remain.
        keep_seen: show what the user had before the cut, too.
        only: rules `column=value` that every item meets; of a column of lists, one value of a cell.
        deny: raw item ids that nobody is shown; those of no item do not matter.
        allow: the only raw item ids that are shown; None for all.
    """

    k: int = 10
    keep_seen: bool = False
    only: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    allow: tuple[str, ...] | None = None


class Answers(NamedTuple):
    """Lists, one a question.

    Attributes:
        users: raw ids, text [n_questions].
        by: who answered, text [n_questions]: `two-tower`; `raw features` for a user of no table of
            whom some were told; else the fallback, `popularity` or `unknown-user tower`.
        top: item rows of the catalogue and scores, [n_questions, k].
    """

    users: Users
    by: np.ndarray[Any, Any]
    top: TopK


@dataclass(frozen=True)
class Export:
    """An export, ready to be asked.

    Attributes:
        folder: the folder of the export stage.
        prepared: the etl stage.
        recipe: names of columns, and the fallback.
        as_of: the cut that the export knows of.
        catalogue: the items, and those that the index stage added.
    """

    folder: Path
    prepared: Prepared
    recipe: Recipe
    as_of: str
    catalogue: Catalogue

    @classmethod
    def open(cls, store: Store, recipe: Recipe) -> Export:
        """Check the stages and return them.

        Raises:
            MissingStage, StaleInput, ArtifactError: they cannot be used.
        """
        manifest = store.read("export", recipe)
        prepared = Prepared.open(store, recipe)
        catalogue = Catalogue.open(store, recipe)
        return cls(store.folder("export"), prepared, recipe, manifest.options["as_of"], catalogue)

    @property
    def items(self) -> pa.Table:
        """Readable item columns, one row an item."""
        return self.catalogue.items

    @property
    def item_ids(self) -> pa.StringArray:
        """Raw ids in the order of item rows."""
        return self.catalogue.ids

    @property
    def item_vectors(self) -> Floats:
        """Embeddings, float32 [n_items, dim]."""
        return self.catalogue.vectors

    @cached_property
    def user_ids(self) -> pa.StringArray:
        """Raw ids in the order of user rows."""
        path = self.folder / "user_embeddings.parquet"
        with reading(path, "export"):
            table = pq.read_table(path, columns=[self.recipe.user_id])
            return table[self.recipe.user_id].combine_chunks()

    @cached_property
    def user_vectors(self) -> Floats:
        """Embeddings, float32 [n_users + 1, dim]; the last is a stranger's."""
        nobody = self._nobody
        path = self.folder / "user_embeddings.parquet"
        with reading(path, "export"):
            users = embeddings_of(pq.read_table(path, columns=["embedding"]), path, "export")
        width = self.item_vectors.shape[1]
        require(
            users.shape[1] == width, path, "export", f"users are not {width} numbers as items are"
        )
        return np.concatenate([users, nobody[None]])

    @property
    def _nobody(self) -> Floats:
        """A stranger's embedding, float32 [dim]."""
        path = self.folder / UNKNOWN_USER
        with reading(path, "export"):
            found: Floats = np.load(path, allow_pickle=False)
            width = self.item_vectors.shape[1]
            is_right = found.shape == (width,) and np.isfinite(found).all()
            require(bool(is_right), path, "export", f"expected {width} numbers")
        return found

    @cached_property
    def query_tower(self) -> RawTower:
        """What embeds users by their raw values."""
        return RawTower.open(self.folder / "query_tower_raw")

    @cached_property
    def item_tower(self) -> RawTower:
        """What embeds items by their raw values."""
        return RawTower.open(self.folder / "item_tower_raw")

    @cached_property
    def histories(self) -> Ragged:
        """What each user of the table did before the cut; one more list, empty, for strangers."""
        known = self.prepared.histories(*KNOWN[self.as_of])
        return Ragged(known.values, np.append(known.offsets, known.offsets[-1]))

    @cached_property
    def seen(self) -> Ragged:
        """What each user of the table saw before the cut: histories, and what a filter dropped."""
        known = self.prepared.seen(*KNOWN[self.as_of])
        return Ragged(known.values, np.append(known.offsets, known.offsets[-1]))

    @cached_property
    def popular(self) -> Popularity:
        """Items by how often they were met before the cut; never, for added ones."""
        known = self.prepared.interactions(*KNOWN[self.as_of])
        return Popularity().fit(replace(known, n_items=len(self.items)))

    def lists(self, users: Users, wish: Wish, told: pa.Table | None = None) -> pa.Table:
        """Return users' lists: user id, rank, item id, score, who answered, the items' labels.

        Args:
            users: raw ids, text [n_users].
            wish: what lists may hold.
            told: raw values of the query tower's inputs, n_users rows. A null is not told: the
                user's row says what it is, or it is missing.
        """
        return self.table(self.ask(users, wish, told))

    def ask(self, users: Users, wish: Wish, told: pa.Table | None = None) -> Answers:
        """Return users' lists as item rows.

        Args:
            users, wish, told: as of `lists`.

        Raises:
            DataError: a rule or an id that fits no item; what the query tower does not take.
        """
        rows = self.rows_of_users(users)
        vectors, seen = self.user_vectors[rows], self.seen.take(rows % len(self.seen))
        strange = rows < 0
        if told is not None and told.num_columns:
            about = self._told_of(told)
            given = told.filter(pa.array(about))
            vectors[about] = self._embedded(users[about], rows[about], given)
            seen = self._with_told(seen, told)
            context = set(self.recipe.columns("context"))
            strange &= ~_any_valid(told.drop([c for c in told.column_names if c in context]))
        by = np.where(rows < 0, "raw features", "two-tower")
        fallback = self.recipe.fallback
        by = np.where(strange, fallback if fallback != "tower" else "unknown-user tower", by)
        top = self._rank(vectors, strange, seen, wish)
        return Answers(users, by, top)

    def known(self, column: str) -> pa.StringArray:
        """Return the texts that training met in a column; of ids, those that can be asked for."""
        history = self.recipe.history.inputs if self.recipe.history else {}
        column = history.get(column, column)
        if column == self.recipe.user_id:
            return self.user_ids
        if column == self.recipe.item_id:
            return self.item_ids
        return self.prepared.vocabularies[column].values

    def rows_of_users(self, users: Users) -> Ints:
        """Return the rows of users, int64 [n_users]; -1 for those of no table."""
        return self.lookup.rows(pa.array(users, pa.string()))

    @cached_property
    def lookup(self) -> Lookup:
        """Where users stand."""
        return Lookup(self.user_ids)

    def _rank(self, vectors: Floats, strange: Bools, seen: Ragged, wish: Wish) -> TopK:
        """Rank items for embeddings; strangers get the recipe's fallback."""
        retriever = self.catalogue.retriever(np.concatenate([vectors, self.user_vectors[-1:]]))
        rows = np.arange(len(vectors))
        if self.recipe.fallback == "popularity":
            retriever = Fallback(retriever, self.popular, strangers)
            rows = np.where(strange, -1, rows)
        return retriever.top_k(
            Queries(rows, seen),
            min(wish.k, len(self.items)),
            exclude=None if wish.keep_seen else seen,
            candidates=self.allowed(wish),
        )

    def _told_of(self, told: pa.Table) -> Bools:
        """Return of whom something is told, bool [n_users]."""
        for name in told.column_names:
            if name not in self.query_tower.inputs:
                raise DataError(
                    f"The query tower takes no {name!r}. It takes "
                    f"{', '.join(self.query_tower.inputs)}."
                )
        return _any_valid(told)

    def _embedded(self, users: Users, rows: Ints, told: pa.Table) -> Floats:
        """Embed users by their rows of the table, overlaid with what is told."""
        table = self.about(rows, told, list(self.query_tower.inputs))
        key = self.recipe.user_id
        if key in table.column_names:  # who is in no table has an id that training has not met
            asked = pa.array([user or _NOBODY for user in users], pa.string())
            ids = pc.coalesce(table[key], pa.chunked_array([asked]))
            table = table.set_column(table.column_names.index(key), key, ids)
        return self.query_tower.embed(self.latest(table))

    def latest(self, told: pa.Table) -> pa.Table:
        """Cut the histories of raw values to as many of the last events as training looks at.

        Args:
            told: inputs of the query tower; a history that is not told has no column.
        """
        if history := self.recipe.history:
            for name in [n for n in history.inputs if n in told.column_names]:
                lists = _latest(told[name].combine_chunks(), history.max_len)
                told = told.set_column(told.column_names.index(name), name, lists)
        return told

    def about(self, rows: Ints, told: pa.Table | None, columns: Sequence[str]) -> pa.Table:
        """Return raw values of users: those of their rows, overlaid with what is told.

        Args:
            rows: the rows of the user table, int64 [n_users]; -1 for somebody of no table.
            told: of those users; a null is not told.
            columns: the columns of the user table.
        """
        table = self._raw_users.select(columns).take(pa.array(rows, mask=rows < 0))
        for number, name in enumerate(columns):
            if told is not None and name in told.column_names:
                column = pc.coalesce(told[name].cast(table[name].type), table[name])
                table = table.set_column(number, name, column)
        return table

    @cached_property
    def _raw_users(self) -> pa.Table:
        """Readable user columns and inputs of the query tower, one row a user."""
        history = self.recipe.history.inputs if self.recipe.history else {}
        columns = [*self.recipe.columns("user", "context"), *history]
        path = self.folder / "user_features.parquet"
        with reading(path, "export"):
            table = pq.read_table(path, columns=columns)
            require(len(table) == len(self.user_ids), path, "export", "it has other users")
        return table

    def _with_told(self, seen: Ragged, told: pa.Table) -> Ragged:
        """Add the items of told histories to what users have seen."""
        history = self.recipe.history.inputs if self.recipe.history else {}
        name = next((n for n, column in history.items() if column == self.recipe.item_id), None)
        if name not in told.column_names:
            return seen
        lists = told[name].combine_chunks()
        owners = pc.list_parent_indices(lists).to_numpy().astype(np.int64)
        items = self.catalogue.find(lists.flatten().cast(pa.string()))
        return Ragged.from_pairs(
            np.concatenate([seen.owners(), owners]),
            np.concatenate([seen.values, items]),
            n_lists=len(seen),
        )

    def similar(self, item: str, wish: Wish) -> list[dict[str, Any]]:
        """Return the items whose embeddings point most nearly where an item's does.

        The item bias is left out: it says how popular an item is, not what it is like.

        Raises:
            DataError: there is no such item.
        """
        row = self.catalogue.rows_of([item])
        top = search(
            self.catalogue.directions[row],
            self.catalogue.directions,
            min(wish.k, len(self.items)),
            exclude=Ragged(row, np.array([0, 1])),
            candidates=self.allowed(wish),
            longest=1.001,  # rounding
        )
        table = self.table(Answers(np.array([item]), np.array([""]), top))
        return table.drop([self.recipe.user_id, "answered_by"]).to_pylist()

    def allowed(self, wish: Wish) -> Bools | None:
        """Return which items may be shown, bool [n_items], not to be changed; None for all.

        Raises:
            DataError: a rule or an id that fits no item.
        """
        return self._allowed(Wish(only=wish.only, deny=wish.deny, allow=wish.allow))

    @cached_property
    def _allowed(self) -> Callable[[Wish], Bools | None]:
        # a rule looks at the whole catalogue, and a server is asked for the same rules again
        return lru_cache(_MASKS)(self._look_for_allowed)

    def _look_for_allowed(self, wish: Wish) -> Bools | None:
        mask = self.catalogue.offered.copy()
        for rule in wish.only:
            mask &= self.catalogue.meets(rule)
        if wish.allow is not None:
            among = np.zeros_like(mask)
            among[self.catalogue.rows_of(wish.allow)] = True
            mask &= among
        if wish.deny:
            denied = self.catalogue.find(pa.array(wish.deny, pa.string()))
            mask[denied[denied >= 0]] = False  # what is not there need not be hidden
        mask.setflags(write=False)
        return None if mask.all() else mask

    def table(self, answers: Answers) -> pa.Table:
        """Return answers as a table, a row a rank: as `lists`."""
        top = answers.top
        owners, places = np.nonzero(top.items != NO_ITEM)
        rows = pa.array(top.items[owners, places])
        labels = self.catalogue.labels
        columns = {
            self.recipe.user_id: pa.array(answers.users, pa.string()).take(pa.array(owners)),
            "rank": pa.array((places + 1).astype(np.int32)),
            self.recipe.item_id: self.item_ids.take(rows),
            "score": pa.array(top.scores[owners, places]),
            "answered_by": pa.array(answers.by, pa.string()).take(pa.array(owners)),
        }
        columns |= {name: labels[name].combine_chunks().take(rows) for name in labels.column_names}
        return pa.table(columns)

    def history(self, user: str, k: int | None = None) -> pa.Table:
        """Return what a user did before the cut, newest first: item id and labels.

        Args:
            user: raw id.
            k: how many of the newest; None for all.
        """
        row = self.rows_of_users(np.array([user], object))
        seen = self.histories.take(row % len(self.histories)).values[::-1][:k]
        columns = [self.recipe.item_id, *self.catalogue.labels.column_names]
        return self.items.select(columns).take(pa.array(seen))


def _any_valid(table: pa.Table) -> Bools:
    """Say which rows hold any value, bool [n_rows]."""
    found = np.zeros(len(table), bool)
    for column in table.columns:
        found |= column.is_valid().to_numpy()
    return found


def _latest(lists: pa.ListArray, n: int) -> pa.ListArray:
    """Return the last `n` values of each list, as many as a history has in training."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    kept = Ragged(np.arange(offsets[-1]), offsets).last(n)
    values = lists.flatten().take(pa.array(kept.values))
    return pa.ListArray.from_arrays(kept.offsets.astype(np.int32), values)
