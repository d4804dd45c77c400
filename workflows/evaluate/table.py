"""A report as tables of 120 columns: figures never without their protocol."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from workflows.evaluate.report import Block, Figure, Protocol, Report

#: How many of the other models stand in a line of another protocol.
_OTHERS = 3
#: Blocks of other protocols that every report has (of seen items kept or excluded, one).
_ALWAYS = ("per_row", "seen_kept", "seen_excluded", "tfrs_compat")


def tables(report: Report, ks: Sequence[int]) -> list[RenderableType]:
    """Return the comparison, what stands beside it, and the segments.

    Args:
        report: what to show.
        ks: list lengths; models are sorted by recall at the first.
    """
    ours = report.ours
    by = f"recall@{ks[0]}"
    figures = report.headline.metrics
    models = sorted(figures, key=lambda model: -figures[model][by].mean)
    return [
        Padding(Text("\n".join(_head(report))), (1, 0, 0, 0)),
        _comparison(report, ks, models, ours),
        *(Padding(Text(line), (0, 0, 0, 1)) for line in _beside(report, ks[0], ours)),
        *([_rows(report, ks)] if _asked_by_row(report) else []),
        _segments(report, models, by),
    ]


def _head(report: Report) -> list[str]:
    counts, averaged = report.counts, report.headline.protocol.averaged
    asked = "users" if averaged == "per user" else "pairs of a user and a context"
    return [
        protocol_line(report.headline.protocol),
        f"{counts['users']:,} {asked} ({counts['users_cold']:,} without a history, "
        f"{counts['strangers']:,} of them in no table: answered by {report.fallback}), "
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
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("model, parameters chosen on valid")
    table.add_column(f"recall@{first}", justify="right")
    table.add_column(f"{ours} minus it", justify="right")
    for name in (*names, f"coverage@{first}"):
        table.add_column(name.replace("@", "\n@"), justify="right")
    for model in models:
        figures = report.headline.metrics[model]
        table.add_row(
            _name(report, model),
            _with_interval(figures[f"recall@{first}"], ".4f", ".3f"),
            ""
            if model == ours
            else _with_interval(
                report.differences.metrics[model][f"recall@{first}"], "+.4f", "+.3f"
            ),
            *(f"{figures[name].mean:.4f}" for name in names),
            f"{report.catalogue[model][f'coverage@{first}']:.3f}",
        )
    return table


def _name(report: Report, model: str) -> str:
    """Return the model, and below it what was chosen among how many."""
    note = report.opponents.get(model)
    if note is None or note.tried == 1:
        return model
    shown = [f"{name} {value:g}" for name, value in note.parameters.items() if name != "seed"]
    return f"{model} (best of {note.tried})\n  {', '.join(shown)}"


def _with_interval(figure: Figure, mean: str, end: str) -> str:
    """Return a mean, and below it its interval; formats are those of `format`."""
    if figure.low is None or figure.high is None:
        return format(figure.mean, mean)
    return f"{figure.mean:{mean}}\n[{figure.low:{end}}, {figure.high:{end}}]"


def _beside(report: Report, first: int, ours: str) -> list[str]:
    """Return a line for each other protocol, and for each model that did not run."""
    lines = []
    for name in _ALWAYS:
        block = report.beside.get(name)
        if block is None:
            continue
        metric = next(n for n in block.metrics[ours] if n.endswith(f"@{first}"))
        others = [model for model in block.metrics if model != ours]
        others.sort(key=lambda model: -block.metrics[model][metric].mean)
        shown = [f"{m} {block.metrics[m][metric].mean:.4f}" for m in (ours, *others[:_OTHERS])]
        lines.append(f"{name}: {metric} {', '.join(shown)}")
    return lines + [f"{name} is left out: {why}" for name, why in report.left_out.items()]


def _asked_by_row(report: Report) -> list[Block]:
    """Return the blocks that the recipe asked for, of shares of rows."""
    return [block for name, block in report.beside.items() if name not in _ALWAYS]


def _rows(report: Report, ks: Sequence[int]) -> Table:
    """Return the top-k accuracy of each model in the rows of test and train, side by side."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("share of rows ± standard error")
    table.add_column("model")
    for k in ks:
        table.add_column(f"top {k}", justify="right")
    for block in (report.beside["per_row"], *_asked_by_row(report)):
        protocol = block.protocol
        seen = "without seen ones" if protocol.exclude_seen else "seen ones, too"
        told = f"{protocol.part} rows among {protocol.n_candidates:,} items, {seen}"
        for model, figures in block.metrics.items():
            cells = [_with_error(figures[f"recall@{k}"]) for k in ks]
            table.add_row(told, model, *cells)
            told = ""
    return table


def _with_error(figure: Figure) -> str:
    error = figure.standard_error
    return f"{figure.mean:.4f}" + (f" ± {error:.4f}" if error is not None else "")


def _segments(report: Report, models: Sequence[str], by: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(f"{by}\nby segment", no_wrap=True)
    for name in ("users", "targets", *models):
        table.add_column(name.replace("-", "-\n"), justify="right")
    for name, block in report.segments.items():
        values = [f"{block.metrics[model][by].mean:.4f}" for model in models]
        table.add_row(name, f"{block.users:,}", f"{block.targets:,}", *values)
    return table
