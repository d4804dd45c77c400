"""Example lists for the report: nearest neighbours of items, and users' recommendations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from workflows.report import numbers
from workflows.report.finished import Finished
from workflows.report.tables import Table
from workflows.stages.evaluate import Example

#: The HTML tag `bdi` isolates a name, perhaps written right to left, from the text around it.
_NAME = Markup("<bdi>{}</bdi>")
_NEIGHBOUR = Markup("<bdi>{}</bdi> <small>{:.2f}</small>")


@dataclass(frozen=True)
class User:
    """An example user of the test part, in the form that report.html shows.

    Attributes:
        id: the user's raw id.
        n_earlier: number of the user's interactions before the test part.
        latest: names of the items of the user's last interactions before the test part, the latest
            first.
        recommended: name of each recommended item, and whether it is a withheld item.
        withheld: names of the first items withheld for the test (targets); None for an item that is
            not in the item table.
        targets_note: a text on further withheld items and on hits, shown after `withheld`.
    """

    id: str
    n_earlier: int
    latest: list[str]
    recommended: list[tuple[str, bool]]
    withheld: list[str | None]
    targets_note: str

    @property
    def is_hit(self) -> bool:
        """Whether a recommended item is a target, an item withheld for the test."""
        return any(hit for _, hit in self.recommended)


def neighbours(finished: Finished) -> Table:
    """Return a table of the most popular items and their nearest neighbours by embedding."""
    rows: list[list[str]] = []
    for near in finished.inside.neighbours:
        names = finished.item_names(near.items)
        item = _NAME.format(finished.item_names([near.item])[0])
        rows.append([item, *map(_NEIGHBOUR.format, names, near.cosines)])
    longest = max(map(len, rows), default=0)
    head = ("item", "nearest", "2nd", "3rd", *(f"{n}th" for n in range(4, longest)))[:longest]
    caption = "The most popular items, and those nearest to them: cosine of the item embeddings"
    return Table(caption, head, [[*row, *[""] * (longest - len(row))] for row in rows])


def users(finished: Finished) -> Iterator[User]:
    """Yield example users of the test part with their last, recommended and withheld items."""
    for example in finished.inside.examples:
        names = finished.item_names(example.recommended)
        hits = [row in example.withheld for row in example.recommended]
        yield User(
            id=finished.user_ids([example.user])[0],
            n_earlier=example.n_earlier,
            latest=finished.item_names(example.latest),
            recommended=list(zip(names, hits, strict=True)),
            withheld=_known(finished, example.withheld[:5]),
            targets_note=_targets_note(example, len(example.withheld) - 5),
        )


def _known(finished: Finished, rows: Sequence[int]) -> list[str | None]:
    names = iter(finished.item_names([row for row in rows if row >= 0]))
    return [next(names) if row >= 0 else None for row in rows]


def _targets_note(example: Example, more: int) -> str:
    """Return a text on a user's further targets and the number of targets that were found."""
    text = f" and {more:,} more" if more > 0 else ""
    if not example.hits:
        return text + (
            " (not in the list)" if len(example.withheld) == 1 else " (none in the list)"
        )
    return text + f" ({numbers.counted(example.hits, 'hit')})" * (len(example.withheld) > 1)
