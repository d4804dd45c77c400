"""What is ranked beside the headline's lists: by other rules, or of the training rows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec

from models.core.evaluation_set import EvaluationSet, ListRules
from workflows.recipe import Recipe
from workflows.stages.etl import Prepared
from workflows.stages.evaluate import Protocol

_SEEN = {True: "seen_excluded", False: "seen_kept"}
TRAIN_ROWS = "train_rows"


@dataclass(frozen=True)
class Lists:
    """Lists that are measured beside the headline's.

    Attributes:
        evaluation_set: who is asked for what.
        part: whose rows are wanted.
        ranked: what the lists are made of.
        by_row: figures are shares of rows, not means over users.
    """

    evaluation_set: EvaluationSet
    part: str
    ranked: ListRules
    by_row: bool = True

    def protocol(self, headline: Protocol) -> Protocol:
        """Return what the figures mean: what the headline's do, but for these rules."""
        return msgspec.structs.replace(
            headline,
            part=self.part,
            candidates=self.ranked.candidates,
            n_candidates=int(self.evaluation_set.candidates.sum()),
            exclude_seen=self.ranked.exclude_seen,
            averaged="per row" if self.by_row else headline.averaged,
        )


def lists(recipe: Recipe, prepared: Prepared, headline: EvaluationSet) -> dict[str, Lists]:
    """Return the lists to measure by the names of their blocks.

    Args:
        recipe: its `evaluate` says what is asked for.
        prepared: the etl stage.
        headline: the evaluation set of the test part.
    """
    config = recipe.evaluate
    turned = ListRules(candidates=config.candidates, exclude_seen=not config.exclude_seen)
    exclude = headline.seen if turned.exclude_seen else None
    found = {
        _SEEN[turned.exclude_seen]: Lists(
            replace(headline, exclude=exclude), "test", turned, by_row=False
        )
    }
    asked = [(f"{r.candidates}_{_SEEN[r.exclude_seen]}", "test", r) for r in config.also]
    if config.train_rows:
        kept = ListRules(candidates=config.candidates, exclude_seen=False)
        asked.append((TRAIN_ROWS, "train", kept))
    for name, part, ranked in asked:
        rules = msgspec.structs.replace(
            config, candidates=ranked.candidates, exclude_seen=ranked.exclude_seen
        )
        evaluation_set = prepared.evaluation_set(part, rules)
        assert evaluation_set is not None  # test has rows, or there were no headline
        found[name] = Lists(evaluation_set, part, ranked)
    return found
