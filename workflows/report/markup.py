"""HTML from text: whatever is not markup yet is escaped on its way in, so nothing can forget to."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence


class Markup(str):
    """A text that is HTML already; any other text is not."""

    __slots__ = ()


def joined(parts: Iterable[str]) -> Markup:
    """Return parts one after the other, escaped where they are not markup."""
    return Markup("".join(p if isinstance(p, Markup) else html.escape(p) for p in parts))


def element(name: str, *parts: str, attributes: Mapping[str, object] | None = None) -> Markup:
    """Return an element.

    Args:
        name: the name of the element.
        parts: what it holds.
        attributes: name → value; escaped.
    """
    inside = "".join(f' {n}="{html.escape(str(v))}"' for n, v in (attributes or {}).items())
    return Markup(f"<{name}{inside}>{joined(parts)}</{name}>")


def paragraph(*parts: str, kind: str = "") -> Markup:
    """Return a paragraph, of a CSS class if one is named."""
    return element("p", *parts, attributes={"class": kind} if kind else None)


def listed(texts: Iterable[str]) -> Markup:
    """Return an unordered list."""
    return element("ul", *(element("li", text) for text in texts))


def data_text(text: str) -> Markup:
    """Return a text from the data, which may run from right to left."""
    return element("bdi", text)


def section(name: str, title: str, *parts: str) -> Markup:
    """Return a section that the list of contents can point to."""
    head = element("h2", title, attributes={"id": f"{name}-title"})
    attributes = {"id": name, "aria-labelledby": f"{name}-title"}
    return element("section", head, *parts, attributes=attributes)


def table(
    caption: str,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    numeric: bool = False,
    marked: str = "",
) -> Markup:
    """Return a table; the first cell of a row names it.

    Args:
        caption: what it shows.
        head: of the columns.
        rows: cells, as many as `head`.
        numeric: the cells beside the first are numbers.
        marked: first cell of a row to make stand out.
    """
    columns = (element("th", name, attributes={"scope": "col"}) for name in head)
    whole = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", *columns)),
        element("tbody", *(_row(cells, marked=cells[0] == marked) for cells in rows)),
        attributes={"class": "numbers"} if numeric else None,
    )
    return element("div", whole, attributes={"class": "scroll"})


def _row(cells: Sequence[str], *, marked: bool) -> Markup:
    name = element("th", cells[0], attributes={"scope": "row"})
    others = (element("td", cell) for cell in cells[1:])
    return element("tr", name, *others, attributes={"class": "ours"} if marked else None)


def figure(title: str, drawing: Markup, *caption: str) -> Markup:
    """Return a drawing between its title and what is to be seen in it."""
    return element(
        "figure",
        element("figcaption", element("strong", title)),
        drawing,
        paragraph(*caption, kind="note") if caption else "",
    )


def figures(*parts: Markup, wide: bool = False) -> Markup:
    """Return figures side by side where there is room, of one width or `wide` as they come."""
    return element("div", *parts, attributes={"class": "figures wide" if wide else "figures"})
