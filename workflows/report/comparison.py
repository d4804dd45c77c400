"""The report's comparison of all models: protocol, metrics, and the choice of the baselines."""

from __future__ import annotations

from typing import Any

import msgspec
from markupsafe import Markup

from models.training.epoch import VAL_MEAN
from workflows.report import charts, numbers
from workflows.report.charts import Picture
from workflows.report.finished import Finished
from workflows.report.tables import Table
from workflows.stages.evaluate import Block, Figure, Protocol


def population(finished: Finished) -> str:
    """Return a sentence with the numbers of users and interactions in the test part."""
    counts = finished.scores.counts
    users = numbers.counted(counts["users"], "user")
    rows = numbers.counted(counts["targets"], "held-out row")
    return (
        f"{users} ({counts['users_cold']:,} without a history, {counts['users_unknown']:,} of them "
        f"unknown: answered by {finished.scores.fallback}), {rows} "
        f"({counts['targets_cold']:,} of items without training interactions, "
        f"{counts['targets_outside_candidates']:,} of items that are not candidates: always "
        "misses)."
    )


def picture(finished: Finished) -> Picture:
    """Return a chart of all models' main metric (recall at the first k), with intervals."""
    figures = {model: finished.headline(model) for model in finished.models}
    text = "; ".join(f"{model} {numbers.with_interval(f)}" for model, f in figures.items())
    title = f"{finished.metric} with its interval"
    rows = {model: [figure] for model, figure in figures.items()}
    return charts.ranges(title, f"{text}.", rows, metric=finished.metric)


def table(finished: Finished) -> Table:
    """Return a table of all models' metrics under the main protocol, the best model first."""
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
    head = ["model", metric, f"{scores.ours} minus it", *others, *named]
    return Table("All models, the best first", head, rows, numeric=True, marked=scores.ours)


def narrow(table: Table) -> Table:
    """Return a copy of a metrics table with each confidence interval on a line below its mean."""
    rows = [list(map(_two_lines, row)) for row in table.rows]
    return Table(table.caption, table.head, rows, table.numeric, table.marked)


def _two_lines(cell: str) -> str:
    mean, bracket, interval = cell.partition(" [")
    return Markup("{}<small>[{}</small>").format(mean, interval) if bracket else cell


def baselines(finished: Finished) -> Table:
    """Return a table of the baselines' parameters and how they were chosen."""
    rows = [
        [
            name,
            numbers.settings(note.parameters) or "none",
            f"{note.tried:,}",
            note.place if note.tried > 1 else "",
            "" if note.valid is None else numbers.score(note.valid),
            f"{note.seconds:,.1f}",
        ]
        for name, note in finished.scores.baselines.items()
    ]
    head = ["model", "parameters", "tried", "where among them", f"{VAL_MEAN} of the chosen"]
    caption = "Baselines: fitted on train, parameters chosen on valid"
    return Table(caption, [*head, "seconds"], rows)


def skipped(finished: Finished) -> Table:
    """Return a table of baselines and protocols that were left out, with the reasons."""
    return Table("Left out", ("model", "why"), list(finished.scores.left_out.items()))


def other_protocols(finished: Finished) -> Table:
    """Return a table of the metrics under the further evaluation protocols of the recipe."""
    scores = finished.scores
    models = [scores.ours, *(m for m in finished.models if m != scores.ours)][:4]
    rows = []
    for name, block in scores.beside.items():
        found = (_usual(block, model, finished.k) for model in models)
        difference = _difference(block.protocol, scores.headline.protocol)
        chance = block.chance.get(f"recall@{finished.k}")
        cells = ["" if chance is None else numbers.score(chance)]
        cells += ["" if f is None else numbers.score(f.mean) for f in found]
        rows.append([name, difference, *cells])
    head = ["name", "what is different", "chance", *models]
    return Table("The same lists under other rules", head, rows)


def _usual(block: Block, model: str, k: int) -> Figure | None:
    """Return a model's recall@k, or its accuracy@k if the protocol measures accuracy."""
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
