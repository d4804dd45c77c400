"""Charts as inline SVG: lines, clouds and bars between two axes; means with their intervals.

Drawn by hand, so that a page needs no plotting package, its texts stay texts and the same numbers
give the same bytes. Series differ in shape as well as in colour (Okabe and Ito's, which the
colour-blind and a printer can tell apart).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from workflows.report.axes import Axis, Floats, Numbers
from workflows.report.markup import Markup, element, joined
from workflows.stages.evaluate import Figure

COLOURS = ("#0072b2", "#d55e00", "#5f6b73")
_GRID, _INK = "#dfe3e8", "#333b41"
#: Size of a chart of two axes and the room around its inside, in pixels.
_WIDTH, _HEIGHT = 344, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 10, 22, 40
#: Of a chart of rows: width of its inside, and height of a series.
_INSIDE, _PITCH = 370, 13
#: Mean width of a character of a label.
_CHARACTER = 6.4


@dataclass(frozen=True)
class Text:
    """What a chart says in words.

    Attributes:
        name: unlike that of any other chart of the page.
        title: what it shows.
        alt: what is to be seen, for those who cannot.
    """

    name: str
    title: str
    alt: str


class Mark(Protocol):
    """Something drawn between two axes."""

    def draw(self, x: Axis, y: Axis) -> Markup:
        """Return SVG."""
        ...


@dataclass(frozen=True)
class Line:
    """Points joined by a line, float [n] each, with a shape on each if `marked`."""

    xs: Numbers
    ys: Numbers
    series: int = 0
    marked: bool = False

    def draw(self, x: Axis, y: Axis) -> Markup:
        """Return a polyline."""
        points = list(zip(_across(x, self.xs), _down(y, self.ys), strict=True))
        line = {
            "points": " ".join(f"{a:.1f},{b:.1f}" for a, b in points),
            "fill": "none",
            "stroke": COLOURS[self.series],
            "stroke-width": 2,
            "stroke-linejoin": "round",
        }
        shapes = [_shape(a, b, self.series) for a, b in points] if self.marked else []
        return joined([element("polyline", attributes=line), *shapes])


@dataclass(frozen=True)
class Cloud:
    """Points, float [n] each."""

    xs: Numbers
    ys: Numbers

    def draw(self, x: Axis, y: Axis) -> Markup:
        """Return one path of round caps, a tenth of the bytes of circles."""
        points = zip(_across(x, self.xs), _down(y, self.ys), strict=True)
        path = {
            "d": "".join(f"M{a:.1f} {b:.1f}h0" for a, b in points),
            "stroke": COLOURS[0],
            "stroke-width": 3,
            "stroke-linecap": "round",
            "stroke-opacity": 0.45,
        }
        return element("path", attributes=path)


@dataclass(frozen=True)
class Bars:
    """Bars from `lefts` to `rights` that stand on 0, float [n] each."""

    lefts: Numbers
    rights: Numbers
    heights: Numbers

    def draw(self, x: Axis, y: Axis) -> Markup:
        """Return rectangles with a gap between them."""
        edges = zip(_across(x, self.lefts), _across(x, self.rights), strict=True)
        bottom = _HEIGHT - _BOTTOM
        boxes = [
            {
                "x": f"{left + 0.5:.1f}",
                "y": f"{top:.1f}",
                "width": f"{max(right - left - 1, 0.5):.1f}",
                "height": f"{bottom - top:.1f}",
                "fill": COLOURS[0],
            }
            for (left, right), top in zip(edges, _down(y, self.heights), strict=True)
        ]
        return joined(element("rect", attributes=box) for box in boxes)


@dataclass(frozen=True)
class Flag:
    """A point that is pointed out by a line, with a text above the frame."""

    x: float
    y: float
    text: str

    def draw(self, x: Axis, y: Axis) -> Markup:
        """Return it, the text on the side that has room."""
        across, down = float(_across(x, [self.x])[0]), float(_down(y, [self.y])[0])
        to_right = across < _LEFT + (_WIDTH - _LEFT - _RIGHT) / 2
        return joined(
            [
                _line(across, _TOP - 6, across, _HEIGHT - _BOTTOM, COLOURS[1], dashes="4 3"),
                _shape(across, down, 1),
                _text(across, _TOP - 10, self.text, "start" if to_right else "end"),
            ]
        )


def plot(
    text: Text, marks: Sequence[Mark], *, x: Axis, y: Axis, legend: Sequence[str] = ()
) -> Markup:
    """Draw marks between two axes.

    Args:
        text: what the chart says in words.
        marks: drawn one over the other.
        x: the axis along the bottom.
        y: the axis up the left.
        legend: names of the series.
    """
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = []
    for value, down in zip(y.ticks(), _down(y, y.ticks()), strict=True):
        parts.append(_line(_LEFT, down, right, down, _GRID))
        parts.append(_text(_LEFT - 6, down + 4, _short(value), "end"))
    for value, across in zip(x.ticks(), _across(x, x.ticks()), strict=True):
        parts.append(_line(across, bottom, across, bottom + 4, _INK))
        parts.append(_text(across, bottom + 16, _short(value), "middle"))
    parts.append(_line(_LEFT, bottom, right, bottom, _INK))
    parts.append(_text((_LEFT + right) / 2, _HEIGHT - 6, x.label, "middle"))
    parts.append(_text(11, (_TOP + bottom) / 2, y.label, "middle", upright=True))
    parts += [mark.draw(x, y) for mark in marks]
    for series, name in enumerate(legend):
        parts.append(_shape(right - 8, _TOP + 10 + 17 * series, series))
        parts.append(_text(right - 18, _TOP + 14 + 17 * series, name, "end"))
    return _drawing(text, _WIDTH, _HEIGHT, parts)


class Range(NamedTuple):
    """A mean with the ends of its interval, if it has one."""

    mean: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, figure: Figure | None) -> Range | None:
        """Return the range of an evaluation's figure, None for none."""
        return None if figure is None else cls(figure.mean, figure.low, figure.high)


def ranges(
    text: Text,
    rows: Mapping[str, Sequence[Range | None]],
    *,
    label: str,
    legend: Sequence[str] = (),
) -> Markup:
    """Draw means with their intervals from 0, one row below the other.

    Args:
        text: what the chart says in words.
        rows: what a row is about → one range a series; None where there is none.
        label: what is measured.
        legend: names of the series.
    """
    left = 16 + int(_CHARACTER * max(map(len, rows)))
    top = 30 if legend else 8
    step = _PITCH * max(map(len, rows.values())) + 10
    width, height = left + _INSIDE, top + step * len(rows) + _BOTTOM
    values = [v for found in rows.values() for r in found if r for v in r if v is not None]
    axis = Axis.around(label, values or [0.0], zero=True)
    inside = width - left - _RIGHT - 10
    parts = []
    for value, at in zip(axis.ticks(), axis.place(axis.ticks()), strict=True):
        across = left + inside * at
        parts.append(_line(across, top, across, height - _BOTTOM, _GRID if value else _INK))
        parts.append(_text(across, height - _BOTTOM + 16, _short(value), "middle"))
    parts.append(_text(left + inside / 2, height - 6, label, "middle"))
    for number, (name, found) in enumerate(rows.items()):
        middle = top + step * (number + 0.5)
        parts.append(_text(left - 8, middle + 4, name, "end"))
        for series, its in enumerate(found):
            if its is not None:
                down = middle + _PITCH * (series - (len(found) - 1) / 2)
                parts.append(_range(axis, its, left, inside, down, series))
    across = float(left)
    for series, name in enumerate(legend):
        parts.append(_shape(across + 5, 12, series))
        parts.append(_text(across + 15, 16, name, "start"))
        across += 34 + _CHARACTER * len(name)
    return _drawing(text, width, height, parts)


def _range(
    axis: Axis, value: Range, left: float, inside: float, down: float, series: int
) -> Markup:
    parts = []
    if value.low is not None and value.high is not None:
        ends = left + inside * axis.place([value.low, value.high])
        parts.append(_line(ends[0], down, ends[1], down, COLOURS[series], thick=True))
    middle = left + inside * float(axis.place([value.mean])[0])
    return joined([*parts, _shape(middle, down, series)])


def _drawing(text: Text, width: int, height: int, parts: Sequence[Markup]) -> Markup:
    names = {part: f"{text.name}-{part}" for part in ("title", "desc")}
    return element(
        "svg",
        element("title", text.title, attributes={"id": names["title"]}),
        element("desc", text.alt, attributes={"id": names["desc"]}),
        *parts,
        attributes={
            "role": "img",
            "aria-labelledby": " ".join(names.values()),
            "viewBox": f"0 0 {width} {height}",
            "width": width,
            "height": height,
        },
    )


def _across(axis: Axis, values: Numbers) -> Floats:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * axis.place(values)


def _down(axis: Axis, values: Numbers) -> Floats:
    return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * axis.place(values)


def _line(
    x1: float,
    y1: float,
    x2: float,
    y2: float,
    colour: str,
    *,
    dashes: str = "",
    thick: bool = False,
) -> Markup:
    ends = {"x1": f"{x1:.1f}", "y1": f"{y1:.1f}", "x2": f"{x2:.1f}", "y2": f"{y2:.1f}"}
    style = {"stroke": colour, "stroke-width": 2 if thick else 1}
    return element(
        "line", attributes={**ends, **style, **({"stroke-dasharray": dashes} if dashes else {})}
    )


def _shape(x: float, y: float, series: int) -> Markup:
    """Return a disc, a square or a diamond around a point."""
    paths = (
        f"M{x - 4:.1f} {y:.1f}a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
        f"M{x - 3.5:.1f} {y - 3.5:.1f}h7v7h-7z",
        f"M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5z",
    )
    return element("path", attributes={"d": paths[series], "fill": COLOURS[series]})


def _text(x: float, y: float, text: str, anchor: str, *, upright: bool = False) -> Markup:
    place: dict[str, object] = {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor}
    if upright:
        place["transform"] = f"rotate(-90 {x:.1f} {y:.1f})"
    return element("text", text, attributes={**place, "fill": _INK})


def _short(value: float) -> str:
    """Return a tick's number: 0.25, 20, 5,000, 2M."""
    for size, letter in ((1e9, "G"), (1e6, "M")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{round(value, 10):g}"
