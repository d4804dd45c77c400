"""report.html: one page that needs nothing but itself; sections without matter are left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from workflows.report import (
    comparison,
    dataset,
    learning,
    lists,
    numbers,
    origin,
    segments,
    towers,
)
from workflows.report.finished import Finished
from workflows.report.markup import Markup, element, joined, listed, paragraph, section
from workflows.report.style import STYLE

#: Were a text of the data not escaped, a browser would still run and load nothing.
_HEAD = Markup(
    '<meta charset="utf-8">'
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
)
_SECTIONS: dict[str, tuple[str, Callable[[Finished], Iterator[Markup]]]] = {
    "run": ("This run", origin.run),
    "data": ("The data", dataset.facts),
    "learning": ("How it learnt", learning.curves),
    "comparison": ("Beside other models", comparison.comparison),
    "segments": ("Whom it serves well", segments.segments),
    "towers": ("Inside the towers", towers.views),
    "neighbours": ("Neighbours of well-known items", lists.neighbours),
    "users": ("Users and their recommendations", lists.users),
    "files": ("Files and hashes", origin.files),
}


def render(finished: Finished) -> str:
    """Return the whole page."""
    bodies = {name: joined(parts(finished)) for name, (_, parts) in _SECTIONS.items()}
    titles = {name: _SECTIONS[name][0] for name, body in bodies.items() if body}
    links = listed(
        element("a", title, attributes={"href": f"#{name}"}) for name, title in titles.items()
    )
    title = f"{finished.recipe.name}: two-tower report"
    head = element("head", _HEAD, element("title", title), element("style", Markup(STYLE)))
    body = element(
        "body",
        element("header", *_opening(finished)),
        element("nav", links, attributes={"aria-label": "Contents"}),
        element("main", *(section(name, titles[name], bodies[name]) for name in titles)),
    )
    whole = element("html", head, body, attributes={"lang": "en"})
    # lines of their own, so that two pages can be compared
    return "<!DOCTYPE html>\n" + whole.replace("><", ">\n<") + "\n"


def _opening(finished: Finished) -> Iterator[Markup]:
    yield element("h1", finished.recipe.name)
    if finished.recipe.description:
        yield paragraph(finished.recipe.description, kind="lead")
    yield element("div", *_tiles(finished), attributes={"class": "tiles"})


def _tiles(finished: Finished) -> Iterator[Markup]:
    """Yield what a reader in a hurry should take along."""
    ours, metric = finished.headline(finished.scores.ours), finished.metric
    level = f"{finished.scores.headline.protocol.level:.0%} interval"
    low, high = ours.low, ours.high
    interval = "" if low is None or high is None else f"{low:.3f} to {high:.3f}, {level}"
    yield _tile(f"{metric} on the test part", numbers.score(ours.mean), interval)
    if rival := finished.rival:
        gain = finished.scores.differences.metrics[rival][metric]
        yield _tile(
            f"more than {rival}, the best baseline",
            f"{gain.mean:+.4f}",
            ""
            if gain.low is None or gain.high is None
            else f"{gain.low:+.3f} to {gain.high:+.3f}, {level}",
        )
    data = finished.data
    yield _tile(
        "interactions",
        f"{sum(data.rows.values()):,}",
        f"{numbers.counted(data.users['rows'], 'user')}, "
        f"{numbers.counted(data.items['rows'], 'item')}",
    )
    seconds = sum(epoch.seconds for epoch in finished.epochs)
    yield _tile(
        f"of fitting on the {finished.manifests['train'].device.upper()}",
        f"{seconds:,.0f} s",
        f"{numbers.counted(len(finished.epochs), 'epoch')}, the best is {finished.best.epoch + 1}",
    )


def _tile(what: str, value: str, more: str) -> Markup:
    parts = [element("b", value), element("span", what), *([element("span", more)] if more else [])]
    return element("div", *parts, attributes={"class": "tile"})
