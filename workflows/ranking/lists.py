"""Evaluation protocols besides the main one: other candidates, seen items kept, or other rows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec

from models.core.config import ListRules
from models.core.evaluation_set import EvaluationSet
from models.core.user_sample import UserSample
from workflows.recipe import Recipe
from workflows.stages.etl import Prepared
from workflows.stages.evaluate import Protocol, Sample

_SEEN = {True: "seen_excluded", False: "seen_kept"}
TRAIN_ROWS = "train_rows"


@dataclass(frozen=True)
class FurtherProtocol:
    """An evaluation protocol besides the main one: queries, targets, and rules for their lists.

    Attributes:
        evaluation_set: the queries with their target items.
        part: the part of the split that has the target items.
        ranked: the rules for the lists: which items are candidates, and whether seen items are left
            out.
        sample: the sample of users who are measured.
        by_row: whether metrics are means over held-out rows, not over users.
    """

    evaluation_set: EvaluationSet
    part: str
    ranked: ListRules
    sample: UserSample
    by_row: bool = True

    def protocol(self, headline: Protocol) -> Protocol:
        """Describe this protocol for the report, given the description of the main protocol."""
        return msgspec.structs.replace(
            headline,
            part=self.part,
            candidates=self.ranked.candidates,
            n_candidates=int(self.evaluation_set.candidates.sum()),
            exclude_seen=self.ranked.exclude_seen,
            sample=sample_of(self.evaluation_set, self.sample),
            averaged="per row" if self.by_row else headline.averaged,
        )


def further_protocols(
    recipe: Recipe, prepared: Prepared, headline: EvaluationSet
) -> dict[str, FurtherProtocol]:
    """Return the evaluation protocols to measure besides the main one, by name.

    Args:
        recipe: the recipe, whose block `evaluate` names the protocols.
        prepared: the content of the run's etl stage.
        headline: the queries and target items of the main evaluation protocol.

    Returns:
        Name in the report → protocol. A protocol with `candidates: cold` has no queries if no
            held-out row has a cold-start item.
    """
    config = recipe.evaluate
    turned = ListRules(candidates=config.candidates, exclude_seen=not config.exclude_seen)
    exclude = headline.seen if turned.exclude_seen else None
    found = {
        _SEEN[turned.exclude_seen]: FurtherProtocol(
            replace(headline, exclude=exclude), "test", turned, config.sample, by_row=False
        )
    }
    asked = [(f"{r.candidates}_{_SEEN[r.exclude_seen]}", "test", r) for r in config.also]
    if config.train_rows:
        kept = ListRules(candidates=config.candidates, exclude_seen=False)
        asked.append((TRAIN_ROWS, "train", kept))
    for name, part, ranked in asked:
        evaluation_set = prepared.evaluation_set(part, ranked, config.sample)
        assert evaluation_set is not None  # test has rows, or there were no headline
        found[name] = FurtherProtocol(evaluation_set, part, ranked, config.sample)
    return found


def sample_of(evaluation_set: EvaluationSet, sample: UserSample) -> Sample | msgspec.UnsetType:
    """Return how many users were drawn, for the report; UNSET if all users are measured."""
    if evaluation_set.sampled_from is None or sample.max_users is None:
        return msgspec.UNSET
    return Sample(sample.max_users, evaluation_set.sampled_from, sample.seed)
