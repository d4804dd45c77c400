"""Draws the charts of report.html with matplotlib, as inline SVG, so that the page is one file.

Texts in a chart are SVG text, not outlines. The same numbers give the same bytes. Colours are
variables of the page's style sheet, so that a chart follows a dark page. Series differ in shape as
well as in colour (Okabe and Ito's palette, which colour-blind people and a printer can tell apart).
"""

from __future__ import annotations

import importlib.util
import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from workflows.stages.evaluate import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072b2", "#d55e00", "#5f6b73")
MARKERS = ("o", "s", "D")
_INK, _GRID = "#333b41", "#dfe3e8"
#: Colour that matplotlib draws → variable of the page's style sheet that replaces it.
_VARIABLES = {
    COLOURS[0]: "--first",
    COLOURS[1]: "--second",
    COLOURS[2]: "--third",
    _INK: "--ink",
    _GRID: "--rule",
}
#: Width and height of a chart, in points, which are the page's pixels.
SMALL = (344.0, 250.0)
_WIDE = 560.0
_STYLE: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 11,
    "text.parse_math": False,
    "text.color": _INK,
    "axes.titlesize": 11,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "figure.facecolor": "none",
    "grid.color": _GRID,
    "legend.frameon": False,
    "path.simplify": False,
    "svg.fonttype": "none",
    "xtick.color": _INK,
    "xtick.major.size": 0,
    "ytick.color": _INK,
    "ytick.major.size": 0,
}


#: Pattern in matplotlib's SVG → shorter text that replaces it in the page.
_SHORTER = (
    (r'="([\d.]+)pt"', r'="\1"'),  # a point of matplotlib is a pixel of the page
    (r"(?s)<defs>\s*<style.*?</defs>", ""),  # this style would change the whole page
    (r'<g id="[^"]*"', "<g"),  # these ids are the same in all pictures
    (r' transform="rotate\(-0 [^"]*"', ""),
    (r"M ([\d.]+ [\d.]+) \nL \1 \n", r"M\1h0"),  # a point
    (r"\n +", "\n"),
    ("'DejaVu Sans'", "var(--font)"),
)


@dataclass(frozen=True)
class Picture:
    """A chart of report.html.

    Attributes:
        title: what the chart shows.
        alt: the content of the chart in words, for people who cannot see it.
        svg: the drawing; empty where matplotlib is not installed.
        note: a text below the chart.
    """

    title: str
    alt: str
    svg: Markup
    note: str = ""


def can_draw() -> bool:
    """Return whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def picture(
    title: str,
    alt: str,
    draw: Callable[[Axes], None],
    *,
    note: str = "",
    size: tuple[float, float] = SMALL,
) -> Picture:
    """Draw a chart as SVG; without matplotlib return only its caption and its text alternative.

    Args:
        title: what the chart shows; different charts of a page have different titles.
        alt: the content of the chart in words.
        draw: the function that draws the chart on matplotlib axes.
        note: a text below the chart.
        size: width and height of the chart, in pixels.
    """
    if not can_draw():
        return Picture(title, alt, Markup(""), note)
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas

    file = io.StringIO()
    # ids within the SVG are hashes with this salt, so that they differ between pictures
    with rc_context(_STYLE | {"svg.hashsalt": title}), warnings.catch_warnings():
        # a reader's browser has fonts for letters that matplotlib's own font lacks
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        canvas = Canvas(figsize=(size[0] / 72, size[1] / 72), layout="constrained")
        FigureCanvasSVG(canvas)
        draw(canvas.subplots())
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        canvas.savefig(file, format="svg", metadata=nothing)
    return Picture(title, alt, _inline(file.getvalue()), note)


def _inline(svg: str) -> Markup:
    """Return matplotlib's SVG as an HTML element, shortened and with the page's colours."""
    svg = svg[svg.index("<svg") :]
    for pattern, replacement in _SHORTER:
        svg = re.sub(pattern, replacement, svg)
    svg = re.sub(r' (d|x|y)="[^"]*"', lambda found: re.sub(r"(\.\d)\d+", r"\1", found[0]), svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return Markup(svg)


def points(axes: Axes, xs: Sequence[float], ys: Sequence[float]) -> None:
    """Draw a scatter plot as one SVG path, which takes a fourth of the bytes of single markers."""
    gap = np.full(len(xs), np.nan)
    across, up = (np.column_stack([values, values, gap]).ravel() for values in (xs, ys))
    axes.plot(across, up, color=COLOURS[0], linewidth=3, solid_capstyle="round", alpha=0.45)


def label(axes: Axes, x: str, y: str, *, log_x: bool = False, log_y: bool = False) -> None:
    """Label the axes of a chart, and write round numbers at their ticks.

    Args:
        axes: the axes, on which the values have been drawn.
        x: the quantity on the horizontal axis.
        y: the quantity on the vertical axis.
        log_x, log_y: whether the horizontal and the vertical axis have logarithmic scales.
    """
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(axis="y")
    _scale(axes.xaxis, log=log_x)
    _scale(axes.yaxis, log=log_y)


def _scale(axis: Any, *, log: bool) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    if log:
        axis.axes.set(**{f"{axis.axis_name}scale": "log"})
        low, high = sorted(axis.get_view_interval())
        steps = (1.0,) if high > 100 * low else (1.0, 2.0, 5.0)
        axis.set_major_locator(LogLocator(subs=steps))
        axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))


def whole_ticks(axes: Axes) -> None:
    """Set the ticks of a chart's horizontal axis to whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))


def ranges(
    title: str,
    alt: str,
    rows: Mapping[str, Sequence[Figure | None]],
    *,
    metric: str,
    legend: Sequence[str] = (),
) -> Picture:
    """Return a chart of means with their confidence intervals, one row each, on an axis from 0.

    Args:
        title: what the chart shows.
        alt: the content of the chart in words.
        rows: name of a row → one mean with its interval for each series; None where a series has
            none.
        metric: the name of the quantity on the horizontal axis.
        legend: names of the series; without it there is one series, and no legend.
    """
    series = max(map(len, rows.values()))
    height = 62 + len(rows) * (10 + 13 * series) + 20 * bool(legend)

    def draw(axes: Axes) -> None:
        draw_ranges(axes, rows, metric=metric, legend=legend)

    return picture(title, alt, draw, size=(_WIDE, height))


def draw_ranges(
    axes: Axes,
    rows: Mapping[str, Sequence[Figure | None]],
    *,
    metric: str,
    legend: Sequence[str] = (),
) -> None:
    """Draw several series of means with intervals; the series are shifted so that none overlap."""
    series = max(map(len, rows.values()))
    for number in range(series):
        found = [(y, figures[number]) for y, figures in enumerate(rows.values())]
        here = [(y, figure) for y, figure in found if figure is not None]
        means = np.array([figure.mean for _, figure in here])
        ends = np.array([_ends(figure) for _, figure in here]).reshape(-1, 2).T
        axes.errorbar(
            means,
            [y + (number - (series - 1) / 2) * 0.7 / series for y, _ in here],
            xerr=np.abs(ends - means),
            fmt=MARKERS[number],
            color=COLOURS[number],
            markersize=5,
            elinewidth=2,
            clip_on=False,
            label=legend[number] if legend else None,
        )
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(left=min([0.0, *axes.dataLim.intervalx]))
    axes.set_xlabel(metric)
    axes.grid(axis="x")
    if legend:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(legend), borderpad=0)


def _ends(figure: Figure) -> tuple[float, float]:
    """Return both ends of a metric's confidence interval; without an interval, the mean twice."""
    if figure.low is None or figure.high is None:
        return figure.mean, figure.mean
    return figure.low, figure.high


def _short(value: float) -> str:
    """Return the number beside an axis tick as short text: 0.25, 20, 5,000, 2M."""
    for size, letter in ((1e9, "G"), (1e6, "M")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{round(value, 10):g}"
