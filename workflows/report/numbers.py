"""Format numbers as text, in the same way in report.html and in the model card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workflows.stages.evaluate import Figure, format_value, has_value


def score(value: float | None, *, form: str = ".4f") -> str:
    """Return a metric as text with four digits; a dash if there is none."""
    return format_value(value, form)


def share(value: float) -> str:
    """Return a share as text in percent; a small share keeps a digit that is not 0."""
    percent = 100 * value
    if percent and abs(percent) < 0.095:
        return f"{percent:.1g} %"
    return f"{percent:.1f} %" if percent % 1 else f"{percent:.0f} %"


def with_interval(figure: Figure) -> str:
    """Return a metric's mean and confidence interval, if it has one, as text."""
    if not (has_value(figure.mean) and has_value(figure.low) and has_value(figure.high)):
        return score(figure.mean)
    return f"{figure.mean:.4f} [{figure.low:.3f}, {figure.high:.3f}]"


def difference(figure: Figure) -> str:
    """Return a difference of metrics and its confidence interval as text with signs."""
    if not (has_value(figure.mean) and has_value(figure.low) and has_value(figure.high)):
        return score(figure.mean, form="+.4f")
    return f"{figure.mean:+.4f} [{figure.low:+.3f}, {figure.high:+.3f}]"


def counted(n: int, thing: str) -> str:
    """Return a number and its noun, such as `1 item` or `2,000 items`."""
    return f"{n:,} {thing}" + ("" if n == 1 else "s")


def counts(of: Mapping[str, int]) -> str:
    """Return named counts as text, such as `ratings 100,000, users 943`."""
    return ", ".join(f"{name} {n:,}" for name, n in of.items())


def settings(of: Mapping[str, Any]) -> str:
    """Return settings of a recipe or a model as text, such as `dim 64, dropout 0.2`."""
    return ", ".join(f"{name} {_value(value)}" for name, value in of.items())


def _value(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    return str(value)
