"""Sections of lists to be read by somebody who knows the items: neighbours, and users' lists."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from models.core.retriever import Ints
from workflows.report import inside, numbers
from workflows.report.examples import Example, examples
from workflows.report.finished import Finished
from workflows.report.markup import Markup, data_text, element, joined, paragraph, table


def neighbours(finished: Finished) -> Iterator[Markup]:
    """Yield the nearest items of the most popular ones."""
    found = inside.neighbours(finished)
    if not found:
        return
    rows: list[list[str]] = []
    for near in found:
        names = finished.item_names(near.items)
        rows.append(
            [
                data_text(finished.item_names(np.array([near.item]))[0]),
                *(
                    joined([data_text(name), " ", element("small", f"{cosine:.2f}")])
                    for name, cosine in zip(names, near.cosines, strict=True)
                ),
            ]
        )
    longest = max(map(len, rows))
    rows = [[*row, *[""] * (longest - len(row))] for row in rows]
    caption = "The most popular items, and those nearest to them: cosine of the item embeddings"
    head = ("item", "nearest", "2nd", "3rd", *(f"{n}th" for n in range(4, longest)))[:longest]
    yield table(caption, head, rows)


def users(finished: Finished) -> Iterator[Markup]:
    """Yield users with the end of their history, their list and what was withheld."""
    found = examples(finished)
    if not found:
        return
    hit = sum(example.hits > 0 for example in found)
    yield paragraph(
        f"{numbers.counted(len(found), 'user')} of the test part, one drawn (seed "
        f"{finished.recipe.evaluate.seed}) from each of as many groups of equal size in order of "
        f"history length. {hit} of them {'has' if hit == 1 else 'have'} a withheld item in the "
        "list; it is marked.",
        kind="note",
    )
    cards = (_card(finished, example) for example in found)
    yield element("div", *cards, attributes={"class": "users"})


def _card(finished: Finished, example: Example) -> Markup:
    user = finished.user_ids(np.array([example.user]))[0]
    earlier = element("small", f" {numbers.counted(example.n_earlier, 'earlier interaction')}")
    return element(
        "article",
        element("h3", "User ", data_text(user), earlier),
        element(
            "div",
            element("div", *_latest(finished, example)),
            element("div", element("h4", "Recommended"), _recommended(finished, example)),
            attributes={"class": "lists"},
        ),
        paragraph(*_withheld(finished, example), kind="note"),
        attributes={"class": "user"},
    )


def _latest(finished: Finished, example: Example) -> Iterator[Markup]:
    yield element("h4", "Latest, the newest first")
    if len(example.latest):
        names = finished.item_names(example.latest)
        yield element("ul", *(element("li", data_text(name)) for name in names))
    else:
        yield paragraph("nothing", kind="note")


def _recommended(finished: Finished, example: Example) -> Markup:
    hits = np.isin(example.recommended, example.withheld)
    names = finished.item_names(example.recommended)
    return element(
        "ol",
        *(
            element(
                "li",
                data_text(name),
                " ✓ hit" if hit else "",
                attributes={"class": "hit"} if hit else None,
            )
            for name, hit in zip(names, hits, strict=True)
        ),
    )


def _withheld(finished: Finished, example: Example) -> Iterator[str]:
    """Yield what was to be found; of many, the first few."""
    few = example.withheld[:5]
    yield "Withheld: "
    for number, name in enumerate(_names(finished, few)):
        yield " · " if number else ""
        yield name
    more = len(example.withheld) - len(few)
    yield f" and {more:,} more" if more else ""
    if not example.hits:
        yield " (not in the list)" if len(example.withheld) == 1 else " (none in the list)"
    elif len(example.withheld) > 1:
        yield f" ({numbers.counted(example.hits, 'hit')})"


def _names(finished: Finished, rows: Ints) -> Iterator[str]:
    known = iter(finished.item_names(rows[rows >= 0]))
    for row in rows:
        yield data_text(next(known)) if row >= 0 else "an item of no table"
