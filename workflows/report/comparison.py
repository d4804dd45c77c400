"""The section that sets all models beside each other: protocol, figures, how rivals were chosen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from models.training.epoch import VAL_MEAN
from workflows.report import numbers
from workflows.report.charts import Range, Text, ranges
from workflows.report.finished import Finished
from workflows.report.markup import Markup, element, figure, joined, paragraph, table
from workflows.stages.evaluate import Block, Figure, Protocol


def comparison(finished: Finished) -> Iterator[Markup]:
    """Yield the protocol, the figures of all models, and how the baselines were chosen."""
    scores, models = finished.scores, finished.models
    yield paragraph(element("strong", "Protocol: "), scores.headline.protocol.sentence, ".")
    yield paragraph(population(finished))
    rows = {model: [Range.of(finished.headline(model))] for model in models}
    title = f"{finished.metric} with its interval"
    alt = "; ".join(f"{m} {numbers.with_interval(finished.headline(m))}" for m in models) + "."
    drawing = ranges(Text("models", title, alt), rows, label=finished.metric)
    yield figure(title, drawing)
    head, body = comparison_table(finished)
    caption = "All models, the best first"
    rows_of = [list(map(_two_lines, row)) for row in body]
    yield table(caption, head, rows_of, numeric=True, marked=finished.scores.ours)
    yield paragraph(
        "Differences are the two-tower's figure minus the model's, user by user: an interval above "
        "0 says that the two-tower is better. Coverage is the share of the catalogue that stands "
        "in anybody's list; popularity bias the mean popularity percentile of what is shown (0.5 "
        "for random lists, near 1 for the head alone).",
        kind="note",
    )
    yield from _opponents(finished)
    if scores.beside:
        yield table("The same lists under other rules", *_beside(finished))


def _two_lines(cell: str) -> Markup:
    """Put an interval below its mean."""
    mean, bracket, interval = cell.partition(" [")
    return joined([mean, *([element("small", f"[{interval}")] if bracket else [])])


def population(finished: Finished) -> str:
    """Return who was asked."""
    counts = finished.scores.counts
    users = numbers.counted(counts["users"], "user")
    rows = numbers.counted(counts["targets"], "held-out row")
    return (
        f"{users} ({counts['users_cold']:,} without a history, {counts['strangers']:,} of them in "
        f"no table: the two-tower's place is taken by {finished.scores.fallback}), {rows} "
        f"({counts['targets_cold']:,} of items that training never met, "
        f"{counts['targets_outside_candidates']:,} of items that are no candidates: misses for "
        "all)."
    )


def comparison_table(finished: Finished) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of the headline figures, the best model first."""
    scores, metric, k = finished.scores, finished.metric, finished.k
    others = [f"ndcg@{k}", f"mrr@{k}"]
    others += [f"recall@{n}" for n in finished.recipe.evaluate.ks if n != k]
    beyond = [f"coverage@{k}", f"popularity_bias@{k}"]
    rows = []
    for model in finished.models:
        figures_of = scores.headline.metrics[model]
        pairs = scores.differences.metrics.get(model)
        rows.append(
            [
                model,
                numbers.with_interval(figures_of[metric]),
                numbers.difference(pairs[metric]) if pairs else "",
                *(numbers.score(figures_of[name].mean) for name in others),
                *(numbers.score(scores.catalogue[model].get(name), form=".3f") for name in beyond),
            ]
        )
    named = [name.replace("_", " ") for name in beyond]
    return ["model", metric, f"{finished.scores.ours} minus it", *others, *named], rows


def _opponents(finished: Finished) -> Iterator[Markup]:
    scores = finished.scores
    if scores.opponents:
        head, rows = opponents_table(finished)
        yield table("Baselines: fitted on train, parameters chosen on valid", head, rows)
    if scores.left_out:
        rows = [[name, why] for name, why in scores.left_out.items()]
        yield table("Baselines left out", ("model", "why"), rows)


def opponents_table(finished: Finished) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of how the baselines came to their parameters."""
    rows = [
        [
            name,
            numbers.settings(note.parameters) or "none",
            f"{note.tried:,}",
            note.place if note.tried > 1 else "",
            "" if note.valid is None else numbers.score(note.valid),
            f"{note.seconds:,.1f}",
        ]
        for name, note in finished.scores.opponents.items()
    ]
    return [
        "model",
        "parameters",
        "tried",
        "where among them",
        f"{VAL_MEAN} of the chosen",
        "seconds",
    ], rows


def _beside(finished: Finished) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of the figures under other protocols: ours and the best others'."""
    models = [finished.scores.ours, *(m for m in finished.models if m != finished.scores.ours)][:4]
    rows = []
    for name, block in finished.scores.beside.items():
        found = (_usual(block, model, finished.k) for model in models)
        difference = _difference(block.protocol, finished.scores.headline.protocol)
        values = ["" if f is None else numbers.score(f.mean) for f in found]
        rows.append([name, difference, *values])
    return ["name", "what is different", *models], rows


def _usual(block: Block, model: str, k: int) -> Figure | None:
    """Return a model's figure at k: recall, or what stands in its place."""
    found = block.metrics.get(model, {})
    return next((f for n, f in found.items() if n in (f"recall@{k}", f"accuracy@{k}")), None)


def _difference(protocol: Protocol, usual: Protocol) -> str:
    now, before = (msgspec.to_builtins(p) for p in (protocol, usual))
    changed = {name: value for name, value in now.items() if value != before[name]}
    return ", ".join(_words(name, value) for name, value in changed.items())


def _words(name: str, value: Any) -> str:
    if name == "exclude_seen":
        return f"seen items {'excluded' if value else 'kept'}"
    return f"{name} {value}"
