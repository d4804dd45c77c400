"""Makes recommendation lists from an export: takes raw user ids, returns raw item ids.

The items of a list are ranked by the same method as in the evaluation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.baselines.fallback import Fallback, unknown_users
from models.baselines.popularity import Popularity
from models.core.exact import search
from models.core.retriever import NO_ITEM, Bools, Floats, Ints, Queries, Ragged, TopK
from workflows.ground.column_names import ANSWERED_BY, RANK, SCORE
from workflows.recipe import Recipe
from workflows.stages import user_features
from workflows.stages.export import Export
from workflows.stages.index import Catalogue
from workflows.stages.store import Store
from workflows.stages.user_features import Users

#: Number of masks of allowed items that are kept in memory, each with a byte per item.
_MASKS = 16


@dataclass(frozen=True)
class ListOptions:
    """The length of a recommendation list, and the items that it may contain.

    Attributes:
        k: length of the list; the list is shorter if fewer items remain.
        keep_seen: whether the list may contain items that the user interacted with before the cut.
        only: rules `column=value` that every item of the list matches.
        deny: raw item ids that are never returned; unknown ids are ignored.
        allow: the only raw item ids that are returned; None for all.
    """

    k: int = 10
    keep_seen: bool = False
    only: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    allow: tuple[str, ...] | None = None


class Answers(NamedTuple):
    """The recommendation lists of several users, one list for each.

    Attributes:
        users: raw user ids, text [n_users].
        answered_by: the method that ranked the items, text [n_users]: `two-tower`; `raw features`
            for an unknown user with given raw values; otherwise the fallback, `popularity` or
            `unknown-user tower`.
        top: row numbers in the catalogue of the recommended items, and their scores, [n_users, k].
        rows: row numbers of the users in the user table, int64 [n_users]; -1 for unknown users.
    """

    users: Users
    answered_by: Users
    top: TopK
    rows: Ints


@dataclass(frozen=True)
class Recommender:
    """Makes recommendation lists for users from the embeddings and tables of an export.

    Attributes:
        export: the export with the users and the query tower.
        catalogue: the items of the export, and those that the index stage added.
    """

    export: Export
    catalogue: Catalogue

    @classmethod
    def open(cls, store: Store, recipe: Recipe, *, kept: int | None = None) -> Recommender:
        """Check the export, and the index if there is one, and return a recommender that uses them.

        Args:
            store: the folder of the run, or a copied export.
            recipe: the recipe of the run.
            kept: number of row groups of users that stay in memory; None for all.

        Raises:
            MissingStage, StaleInput, ArtifactError: the export is missing, or the export or the
                index is stale or damaged.
        """
        export = Export.open(store, recipe, kept=kept)
        return cls(export, Catalogue.open(store, export))

    @property
    def recipe(self) -> Recipe:
        """The recipe of the run that the export belongs to."""
        return self.export.recipe

    def lists(self, users: Users, options: ListOptions, given: pa.Table | None = None) -> pa.Table:
        """Return the recommendation lists of users as a table, one row per user and rank.

        The columns are user id, rank, item id, score, answered_by (the method that ranked the
        items) and the labels of the items.

        Args:
            users: raw user ids, text [n_users].
            options: the length of the lists, and the items that they may hold.
            given: raw values of the query tower's inputs, n_users rows; a null is replaced by the
                value in the user table, and is a missing value for an unknown user.
        """
        return self.table(self.rank(users, options, given))

    def rank(
        self,
        users: Users,
        options: ListOptions,
        given: pa.Table | None = None,
        rows: Ints | None = None,
    ) -> Answers:
        """Return the recommendation lists of users as row numbers of items in the catalogue.

        Args:
            users, options, given: the arguments of `lists`.
            rows: row numbers of the users in the user table; None to look them up.

        Raises:
            DataError: a rule or an id matches no item, or the query tower does not take a value.
        """
        rows = self.user_rows(users) if rows is None else rows
        vectors, seen = self.export.user_vectors(rows), self.export.seen(rows)
        unknown = rows < 0
        if given is not None and given.num_columns:
            user_features.refuse_unknown(self.export, given)
            some = user_features.has_any(given)
            vectors[some] = user_features.embed_users(
                self.export, users[some], rows[some], given.filter(pa.array(some))
            )
            seen = self._with_history(seen, given)
            about_user = user_features.inputs_about_users(self.recipe)
            unknown &= ~user_features.has_any(
                given.select([c for c in given.column_names if c in about_user])
            )
        by = np.where(rows < 0, "raw features", "two-tower")
        fallback = self.recipe.fallback
        by = np.where(unknown, fallback if fallback != "tower" else "unknown-user tower", by)
        return Answers(users, by, self._top_k(vectors, unknown, seen, options), rows)

    def user_rows(self, users: Users | pa.StringArray) -> Ints:
        """Return the row numbers of users in the user table, int64 [n_users]; -1 if unknown."""
        ids = users if isinstance(users, pa.Array) else pa.array(users, pa.string())
        return self.export.user_lookup.rows(ids)

    def known_values(self, column: str) -> pa.StringArray:
        """Return the known texts of a column: those in a vocabulary, or in an exported table."""
        if column == self.recipe.user_id:
            return self.export.user_ids
        if column == self.recipe.item_id:
            return self.catalogue.ids
        return self.export.known_texts(column)

    def _with_history(self, seen: Ragged, given: pa.Table) -> Ragged:
        """Return users' seen items together with the items of histories that a request gives."""
        lists = user_features.item_history(given, self.recipe)
        if lists is None:
            return seen
        owners = pc.list_parent_indices(lists).to_numpy().astype(np.int64)
        items = self.catalogue.find(lists.flatten().cast(pa.string()))
        return Ragged.from_pairs(
            np.concatenate([seen.owners(), owners]),
            np.concatenate([seen.values, items]),
            n_lists=len(seen),
        )

    def _top_k(self, vectors: Floats, unknown: Bools, seen: Ragged, options: ListOptions) -> TopK:
        """Return the k best items for each user embedding, and the fallback for unknown users."""
        retriever = self.catalogue.retriever(
            np.concatenate([vectors, self.export.unknown_user[None]])
        )
        rows = np.arange(len(vectors))
        if self.recipe.fallback == "popularity":
            retriever = Fallback(retriever, self._popularity, unknown_users)
            rows = np.where(unknown, -1, rows)
        return retriever.top_k(
            Queries(rows, seen),
            min(options.k, len(self.catalogue.items)),
            exclude=None if options.keep_seen else seen,
            candidates=self.allowed(options),
        )

    @cached_property
    def _popularity(self) -> Popularity:
        """The fallback for unknown users: ranks items by number of interactions before the cut."""
        counts = np.zeros(len(self.catalogue.items))
        counts[: self.catalogue.n_exported] = self.export.item_counts
        return Popularity(counts=counts)

    def similar(self, item: str, options: ListOptions) -> list[dict[str, Any]]:
        """Return the items whose embeddings have the highest cosine similarity to that of an item.

        Raises:
            DataError: the catalogue has no item with this id.
        """
        row = self.catalogue.rows_of([item])
        top = search(
            self.catalogue.unit_vectors[row],
            self.catalogue.unit_vectors,
            min(options.k, len(self.catalogue.items)),
            exclude=Ragged(row, np.array([0, 1])),
            candidates=self.allowed(options),
            norm_bound=1.001,  # rounding
        )
        table = self.table(Answers(np.array([item]), np.array([""]), top, np.array([-1])))
        return table.drop([self.recipe.user_id, ANSWERED_BY]).to_pylist()

    def allowed(self, options: ListOptions) -> Bools | None:
        """Return, for each item, whether a list may contain it, bool [n_items]; None for all items.

        The returned array is read-only, because several calls share it.

        Raises:
            DataError: a rule or an id matches no item.
        """
        return self._allowed(ListOptions(only=options.only, deny=options.deny, allow=options.allow))

    @cached_property
    def _allowed(self) -> Callable[[ListOptions], Bools | None]:
        # a rule looks at the whole catalogue, and a server gets the same rules again
        return lru_cache(_MASKS)(self._mask)

    def _mask(self, options: ListOptions) -> Bools | None:
        mask = self.catalogue.offered.copy()
        for rule in options.only:
            mask &= self.catalogue.rules.matches(rule)
        if options.allow is not None:
            among = np.zeros_like(mask)
            among[self.catalogue.rows_of(options.allow)] = True
            mask &= among
        if options.deny:
            denied = self.catalogue.find(pa.array(options.deny, pa.string()))
            mask[denied[denied >= 0]] = False  # an unknown id need not be hidden
        mask.setflags(write=False)
        return None if mask.all() else mask

    def table(self, answers: Answers) -> pa.Table:
        """Return recommendation lists as a table with one row per user and rank."""
        top = answers.top
        owners, places = np.nonzero(top.items != NO_ITEM)
        rows = pa.array(top.items[owners, places])
        labels = self.catalogue.labels
        columns = {
            self.recipe.user_id: pa.array(answers.users, pa.string()).take(pa.array(owners)),
            RANK: pa.array((places + 1).astype(np.int32)),
            self.recipe.item_id: self.catalogue.ids.take(rows),
            SCORE: pa.array(top.scores[owners, places]),
            ANSWERED_BY: pa.array(answers.answered_by, pa.string()).take(pa.array(owners)),
        }
        columns |= {name: labels[name].combine_chunks().take(rows) for name in labels.column_names}
        return pa.table(columns)

    def history(self, user: str, k: int | None = None) -> pa.Table:
        """Return the ids and labels of the items in a user's history, newest first.

        Args:
            user: raw user id.
            k: number of newest items to return; None for all.
        """
        row = self.user_rows(np.array([user], object))
        items = self.export.histories(row).values[::-1][:k]
        columns = [self.recipe.item_id, *self.catalogue.labels.column_names]
        return self.catalogue.items.select(columns).take(pa.array(items))
