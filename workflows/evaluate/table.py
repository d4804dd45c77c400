"""A report as tables of 120 columns: figures never without their protocol."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table

from workflows.evaluate.report import Block, Figure, Protocol, Report


def tables(report: Report, ks: Sequence[int], *, ours: str) -> list[RenderableType]:
    """Return the comparison, what stands beside it, and the segments.

    Args:
        report: what to show.
        ks: list lengths; models are sorted by recall at the first.
        ours: the model that the others are compared with.
    """
    by = f"recall@{ks[0]}"
    figures = report.headline.metrics
    models = sorted(figures, key=lambda model: -figures[model][by].mean)
    return [
        Padding("\n".join(_head(report)), (1, 0, 0, 0)),
        _comparison(report, ks, models, ours),
        *(Padding(line, (0, 0, 0, 1)) for line in _beside(report, by, ours)),
        _segments(report, models, by),
    ]


def _head(report: Report) -> list[str]:
    counts = report.counts
    return [
        protocol_line(report.headline.protocol),
        f"{counts['users']:,} users ({counts['users_cold']:,} without a history), "
        f"{counts['targets']:,} targets ({counts['targets_cold']:,} never met in training, "
        f"{counts['targets_outside_candidates']:,} that are no candidates: misses for all)",
    ]


def protocol_line(protocol: Protocol) -> str:
    """Return a protocol as a sentence."""
    return (
        f"{protocol.part} of split {protocol.split}; {protocol.cut}; {protocol.candidates} of "
        f"{protocol.n_candidates:,} items, seen items "
        f"{'excluded' if protocol.exclude_seen else 'kept'}; "
        f"{'refitted on train and valid' if protocol.refit else 'fitted on train, no refit'}; hits "
        f"{protocol.hit}, ties: {protocol.ties}; means {protocol.averaged}, "
        f"{protocol.level:.0%} bootstrap intervals"
    )


def _comparison(report: Report, ks: Sequence[int], models: Sequence[str], ours: str) -> Table:
    first = ks[0]
    names = [f"ndcg@{first}", f"mrr@{first}", *(f"recall@{k}" for k in ks[1:])]
    table = Table(show_lines=False, pad_edge=False)
    table.add_column("model, parameters chosen on valid")
    table.add_column(f"recall@{first}", justify="right")
    table.add_column(f"{ours} minus it", justify="right")
    for name in (*names, f"coverage@{first}"):
        table.add_column(name, justify="right")
    for model in models:
        figures = report.headline.metrics[model]
        table.add_row(
            "\n".join([model, _parameters(report, model)]),
            _with_interval(figures[f"recall@{first}"]),
            "" if model == ours else _difference(report.differences, model, f"recall@{first}"),
            *(f"{figures[name].mean:.4f}" for name in names),
            f"{report.catalogue[model][f'coverage@{first}']:.3f}",
        )
    return table


def _parameters(report: Report, model: str) -> str:
    note = report.opponents.get(model)
    if note is None or not note.parameters:
        return ""
    chosen = ", ".join(f"{name} {value:g}" for name, value in note.parameters.items())
    return f"  {chosen}" + ("" if note.tried == 1 else f" (best of {note.tried})")


def _with_interval(figure: Figure) -> str:
    if figure.low is None or figure.high is None:
        return f"{figure.mean:.4f}"
    return f"{figure.mean:.4f}\n[{figure.low:.3f}, {figure.high:.3f}]"


def _difference(differences: Block, model: str, name: str) -> str:
    figure = differences.metrics[model][name]
    if figure.low is None or figure.high is None:
        return f"{figure.mean:+.4f}"
    return f"{figure.mean:+.4f}\n[{figure.low:+.3f}, {figure.high:+.3f}]"


def _beside(report: Report, by: str, ours: str) -> list[str]:
    """Return a line for each other protocol, and for each model that did not run."""
    lines = []
    for name, block in report.beside.items():
        shown = ", ".join(
            f"{model} {figures.get(by, next(iter(figures.values()))).mean:.4f}"
            for model, figures in _best(block, by, ours)
        )
        metric = by if by in block.metrics[ours] else next(iter(block.metrics[ours]))
        lines.append(f"{name}: {metric} {shown}")
    return lines + [f"{name} is left out: {why}" for name, why in report.left_out.items()]


def _best(block: Block, by: str, ours: str) -> list[tuple[str, dict[str, Figure]]]:
    """Return our figures, then those of the three best others."""
    others = [(m, f) for m, f in block.metrics.items() if m != ours]
    others.sort(key=lambda pair: -pair[1][by].mean)
    return [(ours, block.metrics[ours]), *others[:3]]


def _segments(report: Report, models: Sequence[str], by: str) -> Table:
    table = Table(title=f"{by} by segment", title_justify="left", title_style="", pad_edge=False)
    table.add_column("segment")
    for name in ("users", "targets", *models):
        table.add_column(name.replace("-", "-\n"), justify="right")
    for name, block in report.segments.items():
        values = [f"{block.metrics[model][by].mean:.4f}" for model in models]
        table.add_row(name, f"{block.users:,}", f"{block.targets:,}", *values)
    return table
