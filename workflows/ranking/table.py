"""Shows the report of an evaluation as terminal tables that are readable at every width."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from workflows.ground.terminal_table import Column, TerminalTable
from workflows.stages.evaluate import Block, Figure, Report, format_value, has_value

#: How many of the other models a table line of a further evaluation protocol shows.
_OTHERS = 3
#: Hyper-parameters of baselines that no search changes.
_FIXED = ("seed", "iterations")
#: Blocks of other protocols that every report has (of seen items kept or excluded, one).
_ALWAYS = ("per_row", "seen_kept", "seen_excluded", "tfrs_compat")


def tables(report: Report, ks: Sequence[int]) -> list[RenderableType]:
    """Return the terminal tables of a report: all models, further protocols, and segments.

    Args:
        report: the report of an evaluation.
        ks: list lengths; models are sorted by recall at the first length.
    """
    ours = report.ours
    by = f"recall@{ks[0]}"
    figures = report.headline.metrics
    models = _sorted(list(figures), figures, by)
    return [
        Padding(Text("\n".join(_head(report))), (1, 0, 0, 0)),
        _comparison(report, ks, models, ours),
        *(Padding(Text(line), (0, 0, 0, 1)) for line in _beside(report, ks[0], ours)),
        *([_rows(report, ks)] if _requested_per_row(report) else []),
        _segments(report, models, by),
    ]


def _head(report: Report) -> list[str]:
    counts, averaged = report.counts, report.headline.protocol.averaged
    asked = "users" if averaged == "per user" else "pairs of a user and a context"
    return [
        report.headline.protocol.sentence,
        f"{counts['users']:,} {asked} ({counts['users_cold']:,} without a history, "
        f"{counts['users_unknown']:,} of them unknown: answered by {report.fallback}), "
        f"{counts['targets']:,} targets ({counts['targets_cold']:,} without training interactions, "
        f"{counts['targets_outside_candidates']:,} that are not candidates: always misses)",
    ]


def _sorted(
    models: Sequence[str], figures: Mapping[str, Mapping[str, Figure]], metric: str
) -> list[str]:
    """Return models sorted by a metric, best first; models without the metric come last."""
    means = {model: figures[model][metric].mean for model in models}
    return sorted(models, key=lambda model: -means[model] if has_value(means[model]) else math.inf)


def _comparison(
    report: Report, ks: Sequence[int], models: Sequence[str], ours: str
) -> TerminalTable:
    first = ks[0]
    by = f"recall@{first}"
    figures, pairs = report.headline.metrics, report.differences.metrics
    columns = [
        Column(by, [_with_interval(figures[model][by], ".4f", ".3f") for model in models]),
        Column(
            f"{ours} minus it",
            [
                "" if model == ours else _with_interval(pairs[model][by], "+.4f", "+.3f")
                for model in models
            ],
        ),
    ]
    for name in (f"ndcg@{first}", f"mrr@{first}", *(f"recall@{k}" for k in ks[1:])):
        cells = [format_value(figures[model][name].mean, ".4f") for model in models]
        columns.append(Column(name.replace("@", "\n@"), cells))
    shares = [
        format_value(report.catalogue[model].get(f"coverage@{first}"), ".3f") for model in models
    ]
    columns.append(Column(f"coverage\n@{first}", shares))
    names = [_name(report, model) for model in models]
    return TerminalTable("model, parameters chosen on valid", names, columns)


def _name(report: Report, model: str) -> str:
    """Return the label of a model in tables: name, number of tried settings, chosen parameters."""
    note = report.baselines.get(model)
    if note is None or note.tried == 1:
        return model
    chosen = [f"{name}={value:g}" for name, value in note.parameters.items() if name not in _FIXED]
    return f"{model} (best of {note.tried}, {note.place})\n  {' '.join(chosen)}"


def _with_interval(figure: Figure, mean: str, end: str) -> str:
    """Return a mean as text, with its bootstrap interval in the next line.

    The arguments `mean` and `end` are the number formats of the mean and of the interval's ends.
    """
    if not (has_value(figure.mean) and has_value(figure.low) and has_value(figure.high)):
        return format_value(figure.mean, mean)
    return f"{figure.mean:{mean}}\n[{figure.low:{end}}, {figure.high:{end}}]"


def _beside(report: Report, first: int, ours: str) -> list[str]:
    """Return a line for each further evaluation protocol, and for each model that did not run."""
    lines = []
    for name in _ALWAYS:
        block = report.beside.get(name)
        if block is None:
            continue
        metric = next(n for n in block.metrics[ours] if n.endswith(f"@{first}"))
        others = [model for model in block.metrics if model != ours]
        others = _sorted(others, block.metrics, metric)
        texts = [
            f"{model} {format_value(block.metrics[model][metric].mean, '.4f')}"
            for model in (ours, *others[:_OTHERS])
        ]
        lines.append(f"{name}: {metric} {', '.join(texts)}")
    return lines + [f"{name} is left out: {why}" for name, why in report.left_out.items()]


def _requested_per_row(report: Report) -> list[Block]:
    """Return the report's figures under the further protocols that the recipe names."""
    return [block for name, block in report.beside.items() if name not in _ALWAYS]


def _rows(report: Report, ks: Sequence[int]) -> TerminalTable:
    """Return a table of each model's recall@k, means over rows of test or train."""
    names: list[str] = []
    figures: list[Mapping[str, Figure] | None] = []
    for block in (report.beside["per_row"], *_requested_per_row(report)):
        protocol = block.protocol
        seen = "without seen ones" if protocol.exclude_seen else "seen ones, too"
        kind = "cold items" if protocol.candidates == "cold" else "items"
        names.append(f"{protocol.part} rows among {protocol.n_candidates:,} {kind}, {seen}")
        chance = {name: Figure(share) for name, share in block.chance.items()}
        names.extend(f"  {model}" for model in ("chance", *block.metrics))
        figures.extend((None, chance, *block.metrics.values()))
    columns = [
        Column(f"top {k}", [_with_error(f[f"recall@{k}"]) if f else "" for f in figures])
        for k in ks
    ]
    return TerminalTable("share of rows ± standard error", names, columns)


def _with_error(figure: Figure) -> str:
    error = figure.standard_error
    return format_value(figure.mean, ".4f") + (f" ± {error:.4f}" if has_value(error) else "")


def _segments(report: Report, models: Sequence[str], by: str) -> TerminalTable:
    blocks = report.segments.values()
    columns = [
        Column("users", [f"{block.users:,}" for block in blocks]),
        Column("targets", [f"{block.targets:,}" for block in blocks]),
    ]
    for model in models:
        cells = [format_value(block.metrics[model][by].mean, ".4f") for block in blocks]
        columns.append(Column(model.replace("-", "-\n"), cells))
    return TerminalTable(f"{by}\nby segment", list(report.segments), columns)
