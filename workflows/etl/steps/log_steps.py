"""Steps from raw interactions to train, valid and test: prepare, split and filter them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from workflows.derive.fitted import write as write_states
from workflows.etl.shape import filters, fitted_columns, interactions, split
from workflows.etl.shape.interactions import LogFacts, SplitOrder
from workflows.etl.shape.seen import Seen
from workflows.etl.shape.split import LastFacts, SplitFacts, SplitPlan
from workflows.etl.shape.time_counts import TimeCounts
from workflows.etl.steps.step import Known, Rows, Step
from workflows.recipe import (
    Filter,
    GivenFiles,
    GlobalTime,
    Keep,
    LeaveLast,
    Recipe,
    TopUsers,
)
from workflows.recipe.filters import Stage

#: Greatest number of times that a partition keeps apart, in a log of several partitions.
_TIMES = 1 << 16


@dataclass(frozen=True)
class Prepare(Step):
    """Derive columns, join side tables, apply the filter rules of single rows, and sort by time."""

    recipe: Recipe

    def look(self, rows: Rows) -> dict[str, list[LogFacts]]:
        recipe = self.recipe
        raw = interactions.pivot_events(recipe, rows.raw, rows.counts)
        if rows.derived is None:
            raw = interactions.add_derived(recipe, raw)
        else:
            raw = interactions.derive_interactions(recipe, raw)
            raw = replace(raw, columns=rows.derived.columns, filled=rows.derived.filled)
        rows.dropped = {part: [] for part in split.PARTS}
        rows.logs, facts = interactions.join_and_filter(recipe, raw, rows.counts, rows.dropped)
        rows.raw = raw.without_rows(interactions.interaction_sources(recipe))
        if rows.keep is not None:
            rows.keep(rows)
        return {source: [of] for source, of in facts.items()}

    def add(self, total: Any, facts: dict[str, list[LogFacts]]) -> dict[str, list[LogFacts]]:
        return {source: [*(total[source] if total else ()), *of] for source, of in facts.items()}

    def finish(self, total: dict[str, list[LogFacts]], known: Known) -> None:
        for source, facts in total.items():
            interactions.check_facts(self.recipe, source, facts)
        sizes = {s: sum(of.rows for of in facts) for s, facts in total.items()}
        given = self.recipe.split if isinstance(self.recipe.split, GivenFiles) else None
        named: dict[split.Part, str | None] = {"train": self.recipe.interactions}
        if given:
            named |= {"valid": given.valid, "test": given.test}
        wanted = {part: sizes[source] for part, source in named.items() if source}
        known.sizes = wanted
        split.refuse_empty(wanted, known.counts.describe_drops())


def _plan_facts(recipe: Recipe, rows: Rows, most: int | None) -> SplitFacts:
    found = SplitOrder.of(recipe, rows.logs["train"])
    return SplitFacts.of(recipe.split, users=found.users, times=found.times, most=most)


@dataclass(frozen=True)
class SplitRows(Step):
    """Split the interactions into train, valid and test by the rule of the recipe."""

    recipe: Recipe

    @property
    def blocks(self) -> bool:  # type: ignore[override]
        """Whether the split depends on all interactions, and not only on those of one user."""
        return not isinstance(self.recipe.split, GivenFiles | LeaveLast)

    def look(self, rows: Rows) -> list[SplitFacts] | list[LastFacts]:
        rule = self.recipe.split
        if isinstance(rule, GivenFiles):
            return []
        if isinstance(rule, LeaveLast):
            found = SplitOrder.of(self.recipe, rows.logs["train"])
            labels, facts = split.leave_last(rule, found.users, found.times)
            rows.labels = found.by_row(labels)
            return [facts]
        return [_plan_facts(self.recipe, rows, None if rows.only is None else _TIMES)]

    def finish(self, total: Any, known: Known) -> SplitPlan | None:
        rule = self.recipe.split
        if isinstance(rule, GivenFiles):
            return None
        if isinstance(rule, LeaveLast):
            rows = sum(known.sizes.values())
            split.check_last(rule, total, rows, known.counts.describe_drops())
            return None
        known.plan = split.plan(rule, total)
        return known.plan

    def apply(self, rows: Rows, outcome: SplitPlan | None) -> None:
        rows.plan = outcome
        if rows.plan is None or not rows.plan.vague:
            _split(self.recipe, rows)


def _split(recipe: Recipe, rows: Rows) -> None:
    """Cut the interactions of a partition into parts."""
    if isinstance(recipe.split, GivenFiles):
        empty = rows.logs["train"].slice(0, 0)
        rows.parts = {part: rows.logs.get(part, empty) for part in split.PARTS}
    else:
        table, labels = rows.logs["train"], rows.labels
        if labels is None:
            found = SplitOrder.of(recipe, table)
            if isinstance(recipe.split, LeaveLast):
                labels, _ = split.leave_last(recipe.split, found.users, found.times)
            else:
                assert rows.plan is not None
                labels = rows.plan.labels(rows.number, users=found.users, times=found.times)
            labels = found.by_row(labels)
        rows.parts = interactions.cut_into_parts(table, labels)
    if any(isinstance(rule, Keep) and rule.still_seen for rule in recipe.filter):
        cuts = rows.plan.cuts if rows.plan else (None, None)
        rows.seen = Seen.of(recipe, rows.dropped, rows.parts, cuts)
    rows.logs, rows.dropped, rows.labels = {}, {}, None


@dataclass(frozen=True)
class CutFiner(Step):
    """Find the times at which valid and test begin, if they were counted in spans of time."""

    recipe: Recipe
    blocks = True

    def is_needed(self, known: Known) -> bool:
        return known.plan is not None and bool(known.plan.vague)

    def look(self, rows: Rows) -> list[tuple[SplitFacts, TimeCounts]]:
        assert rows.plan is not None
        facts = _plan_facts(self.recipe, rows, _TIMES)
        exact = _plan_facts(self.recipe, rows, None).times
        assert exact is not None
        return [(facts, exact.within(rows.plan.vague))]

    def finish(self, total: list[tuple[SplitFacts, TimeCounts]], known: Known) -> SplitPlan:
        facts, finer = [of for of, _ in total], [of for _, of in total]
        known.plan = split.plan(self.recipe.split, facts, finer=finer)
        return known.plan

    def apply(self, rows: Rows, outcome: SplitPlan) -> None:
        rows.plan = outcome
        _split(self.recipe, rows)


@dataclass(frozen=True)
class FilterRows(Step):
    """Apply a filter rule to interactions that are split."""

    recipe: Recipe
    rule: Filter

    @property
    def blocks(self) -> bool:  # type: ignore[override]
        """Whether the rule looks at the users of all partitions."""
        return isinstance(self.rule, TopUsers)

    def look(self, rows: Rows) -> pa.Table | None:
        if not isinstance(self.rule, TopUsers):
            return None
        counts = filters.count_values(rows.parts["train"][self.recipe.user_id])
        if rows.only is None:
            return counts
        chosen = filters.first_values(counts, self.rule.n)
        return counts.filter(pc.is_in(counts["value"], value_set=chosen))

    def add(self, total: pa.Table | None, facts: pa.Table | None) -> pa.Table | None:
        return facts if total is None or facts is None else pa.concat_tables([total, facts])

    def finish(self, total: pa.Table | None, known: Known) -> pa.StringArray | None:
        if not isinstance(self.rule, TopUsers):
            return None
        return filters.first_values(total, self.rule.n)

    def apply(self, rows: Rows, outcome: pa.StringArray | None) -> None:
        rows.parts = filters.filter_parts(self.recipe, self.rule, rows.parts, rows.counts, outcome)


@dataclass(frozen=True)
class CountParts(Step):
    """Count the interactions of train, valid and test, and refuse parts that are empty.

    Attributes:
        recipe: the recipe.
        is_split: whether the parts are those of the split, before any filter.
    """

    recipe: Recipe
    is_split: bool = False

    def look(self, rows: Rows) -> dict[split.Part, int]:
        return {part: len(table) for part, table in rows.parts.items()}

    def add(self, total: Any, facts: dict[split.Part, int]) -> dict[split.Part, int]:
        return {part: n + (total[part] if total else 0) for part, n in facts.items()}

    def finish(self, total: dict[split.Part, int], known: Known) -> None:
        known.sizes = total
        dropped = known.counts.describe_drops()
        if self.is_split:
            if known.plan is not None and not isinstance(self.recipe.split, GlobalTime):
                wanted = {part: total[part] for part in known.plan.wanted}
                split.refuse_empty(wanted, known.plan.why, dropped)
            return
        rule = self.recipe.split
        named = [p for p in split.PARTS if p == "train" or getattr(rule, p) not in (0, None)]
        split.refuse_empty({part: total[part] for part in named}, dropped)


@dataclass(frozen=True)
class FitColumns(Step):
    """Fit derived columns (clusters, frequent values) on train, and add them to all tables."""

    recipe: Recipe
    blocks = True

    def is_needed(self, known: Known) -> bool:
        return any(step.fitted for step in self.recipe.derive)

    def look(self, rows: Rows) -> list[Any]:
        return [fitted_columns.look(self.recipe, rows.parts["train"], partition=rows.only)]

    def finish(self, total: list[Any], known: Known) -> Any:
        states = fitted_columns.fit(self.recipe, total, older=known.older)
        write_states(states, known.folder)
        if known.raw is not None:
            known.raw = interactions.add_fitted(self.recipe, known.raw, states)
        return states

    def apply(self, rows: Rows, outcome: Any) -> None:
        rows.raw = interactions.add_fitted(self.recipe, rows.raw, outcome)
        rows.parts = {
            part: interactions.add_fitted_to_rows(self.recipe, table, outcome)
            for part, table in rows.parts.items()
        }


def filter_steps(recipe: Recipe, stage: Stage) -> Sequence[Step]:
    """Return the steps of the filter rules of a stage, and the check of what they leave."""
    rules = filters.rules_of_parts(recipe, stage)
    if stage == "after" and not rules:
        return []
    return [*(FilterRows(recipe, rule) for rule in rules), CountParts(recipe)]
