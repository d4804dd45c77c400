"""Steps that learn from train: vocabularies and statistics, and the tables of users and items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from workflows.derive.cells import as_float32
from workflows.etl.check import value_warnings
from workflows.etl.check.value_warnings import Weights
from workflows.etl.encode import graph
from workflows.etl.shape import split, tables
from workflows.etl.shape.column_counts import (
    NumberCounts,
    TextCounts,
    ValueCounts,
    count_columns,
)
from workflows.etl.shape.history import EventKinds
from workflows.etl.shape.tables import LastRows, Table
from workflows.etl.steps.step import Known, Rows, Step
from workflows.etl.threads import map_threads
from workflows.ground import large_text
from workflows.recipe import Recipe


def feature_columns(recipe: Recipe, table: pa.Table) -> pa.Table:
    """Return the feature columns of a table of interactions, with numbers as float32."""
    names = [name for name in recipe.features if name in table.column_names]
    return pa.table({name: as_float32(table[name]) for name in names})


@dataclass
class TrainCounts:
    """Counts of the texts and sums of the numbers of training rows.

    Attributes:
        users: user ids of each partition, with their counts.
        texts: other text column → counts of its texts.
        numbers: number column → its sums.
    """

    users: list[TextCounts]
    texts: dict[str, TextCounts]
    numbers: dict[str, NumberCounts]


@dataclass(frozen=True)
class Learn(Step):
    """Learn the vocabularies of texts and the statistics of numbers from train."""

    recipe: Recipe

    def look(self, rows: Rows) -> TrainCounts:
        table = feature_columns(self.recipe, rows.parts["train"])
        texts, numbers = count_columns(self.recipe, table, is_whole=rows.only is None)
        users = texts.pop(self.recipe.user_id, None)
        return TrainCounts([users] if users else [], texts, numbers)

    def add(self, total: TrainCounts | None, facts: TrainCounts) -> TrainCounts:
        if total is None:
            return facts
        for column, of in facts.texts.items():
            total.texts[column] = total.texts[column].add(of)
        for column, sums in facts.numbers.items():
            total.numbers[column] = total.numbers[column].add(sums)
        return TrainCounts([*total.users, *facts.users], total.texts, total.numbers)

    def finish(self, total: TrainCounts, known: Known) -> None:
        texts = dict(total.texts)
        if total.users:
            texts[self.recipe.user_id] = _concatenate(total.users)
        ordered = {c: texts[c] for c in self.recipe.features if c in texts}
        known.fitted = graph.fit(self.recipe, ordered, total.numbers)


def _concatenate(users: list[TextCounts]) -> TextCounts:
    """Return the counts of the users of all partitions; no user is in two of them."""
    if len(users) == 1:
        return users[0]
    counts = [of.counts[:-1] for of in users]
    nulls = sum(of.counts[-1:] for of in users)
    texts = large_text.concatenate([of.texts for of in users])
    return TextCounts(texts, np.concatenate([*counts, nulls]))


@dataclass(frozen=True)
class CheckWeights(Step):
    """Check the weights of training rows."""

    recipe: Recipe

    def is_needed(self, known: Known) -> bool:
        return self.recipe.weight is not None

    def look(self, rows: Rows) -> tuple[int, ValueCounts]:
        weights = rows.parts["train"][self.recipe.weight].to_numpy()
        return len(weights), ValueCounts.of(weights[weights > 0])

    def add(self, total: Any, facts: tuple[int, ValueCounts]) -> tuple[int, ValueCounts]:
        return facts if total is None else (total[0] + facts[0], total[1].add(facts[1]))

    def finish(self, total: tuple[int, ValueCounts], known: Known) -> None:
        rows, counts = total
        highest = float(counts.values.max(initial=0))
        value_warnings.check_weights(self.recipe, Weights(rows, highest, counts.median))


@dataclass(frozen=True)
class BuildTables(Step):
    """Build the user table and the item table."""

    recipe: Recipe

    def look(self, rows: Rows) -> dict[str, Any]:
        own = rows.raw.tables[self.recipe.interactions].column_names
        train, recipe = rows.parts["train"], self.recipe

        def build(role: tables.Role) -> Table | LastRows:
            last = LastRows.of(recipe, own, train, role, rows.only)
            if rows.only is not None and role == "item":
                return last
            is_whole = rows.only is None
            return tables.build(recipe, rows.raw, last, role, has_unknown=is_whole)

        found = map_threads(tables.ROLES, build)
        return {"user": [found["user"]], "item": found["item"]}

    def add(self, total: Any, facts: dict[str, Any]) -> dict[str, Any]:
        if total is None:
            return facts
        return {
            "user": [*total["user"], *facts["user"]],
            "item": total["item"].merge(facts["item"]),
        }

    def finish(self, total: dict[str, Any], known: Known) -> None:
        if known.raw is None:
            [known.users], known.items = total["user"], total["item"]
        else:
            known.items = tables.build(self.recipe, known.raw, total["item"], "item")
            known.users = tables.merge_users(total["user"], self.recipe.user_id)


@dataclass(frozen=True)
class CountTargets(Step):
    """Count the interactions that are targets of the model, if only one kind of event is."""

    recipe: Recipe

    def look(self, rows: Rows) -> dict[split.Part, int]:
        kinds = event_kinds(self.recipe, rows.parts)
        return {part: int(of.targets.sum()) for part, of in kinds.items()}

    def add(self, total: Any, facts: dict[split.Part, int]) -> dict[split.Part, int]:
        return {part: n + (total[part] if total else 0) for part, n in facts.items()}

    def finish(self, total: dict[split.Part, int], known: Known) -> None:
        known.targets = {**known.sizes, **total}
        events = self.recipe.history.events if self.recipe.history else None
        if events is None:
            return
        split.refuse_empty(
            {part: n for part, n in total.items() if known.sizes[part]},
            f"Rows whose {events.column!r} is not {events.target!r} are only in histories.",
        )
        others = sum(known.sizes.values()) - sum(total.values())
        known.counts.add(f"no {events.target}: in histories only", others)


def event_kinds(recipe: Recipe, parts: dict[split.Part, pa.Table]) -> dict[split.Part, EventKinds]:
    """Return split → kind of event of its interactions, if only one kind is a target; else {}."""
    if recipe.history is None or recipe.history.events is None:
        return {}
    events = recipe.history.events
    return {part: EventKinds.of(table[events.column], events) for part, table in parts.items()}
