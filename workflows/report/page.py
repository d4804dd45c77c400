"""report.html: one page that needs nothing but itself. Sections whose matter is absent are left out."""

from __future__ import annotations

from collections.abc import Iterator

from workflows.evaluate import TWO_TOWER
from workflows.report import data, lists, numbers, results, run, towers
from workflows.report.finished import Finished
from workflows.report.markup import Markup, element, joined, paragraph, section
from workflows.report.style import STYLE

#: Were some text of the data not escaped, a browser would still run and load nothing.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(finished: Finished) -> str:
    """Return the whole page."""
    sections = [(name, title, joined(parts)) for name, title, parts in _sections(finished)]
    shown = [(name, title, body) for name, title, body in sections if body]
    links = (
        element("li", element("a", title, attributes={"href": f"#{name}"}))
        for name, title, _ in shown
    )
    name = finished.recipe.name
    head = element(
        "head",
        element("meta", attributes={"charset": "utf-8"}),
        element("meta", attributes={"http-equiv": "Content-Security-Policy", "content": _POLICY}),
    )
    return head + str(links)
