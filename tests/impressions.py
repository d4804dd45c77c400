"""A tiny Ali-CCP data set: impressions and common features, written in the format of Tianchi."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workflows import recipe as recipes
from workflows.recipe import Recipe

#: Field, id and value of a feature.
Feature = tuple[str, str, str]

RAW: dict[str, Any] = {
    "name": "impressions",
    "sources": {
        "log": {
            "format": "aliccp",
            "files": "skeleton*.csv",
            "common": "common*.csv",
        }
    },
    "interactions": "log",
    "split": {"kind": "random", "valid": 0.2, "test": 0.2},
    "features": {
        "user_id": {"role": "user", "id": True},
        "user_gender": {"role": "user"},
        "user_brands": {"role": "user", "kind": "categories"},
        "item_id": {"role": "item", "id": True},
        "item_category": {"role": "item"},
        "user_item_brands": {"role": "context"},
        "position": {"role": "context", "kind": "number", "fill": 0.0},
        "click": {"role": "context", "kind": "number"},
    },
}


@dataclass
class Line:
    """An impression; `count` is the stated number of features, if it should be wrong."""

    click: str
    conversion: str
    shared: str
    features: list[Feature]
    count: str | None = None


def _common(rng: random.Random) -> dict[str, list[Feature]]:
    """Return the common features of 12 users, and last a line without a user id."""
    lines = {}
    for n in range(13):
        brands = rng.sample(range(50), rng.choice([0, 1, 2, 5]))
        features = [("101", f"0{n}", "1.0")] if n < 12 else []
        features += [("127_14", f"{brand}", f"{1 + brand / 8}") for brand in brands]
        if n % 3:
            features.insert(n % 2, ("124", str(n % 2), "1.0"))
        lines[f"{n:x}bec0ffee"] = features
    return lines


def _log(rng: random.Random, names: list[str]) -> list[Line]:
    lines = []
    for n in range(1_003):
        item = rng.randrange(40)
        features = [("205", str(item), "1.0"), ("206", f"c{item % 5}", "1.0")]
        features += [("702", str(item % 7), "2.5")] * (rng.random() < 0.3)
        features += [("301", str(1 + n % 3), "1.0")]
        click = "1" if rng.random() < 0.4 else "0"
        bought = "1" if click == "1" and rng.random() < 0.2 else "0"
        lines.append(Line(click, bought, rng.choice(names), features))
    for n in (0, 17, 18, 500, 1_002):  # bought without a click
        lines[n].click, lines[n].conversion = "0", "1"
    return lines


@dataclass
class Impressions:
    """The raw lines and their recipe; a test changes them and calls `write`."""

    folder: Path
    rng: random.Random = field(default_factory=lambda: random.Random(5))
    common: dict[str, list[Feature]] = field(default_factory=dict)
    log: list[Line] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.common = self.common or _common(self.rng)
        self.log = self.log or _log(self.rng, list(self.common))

    def write(self, *, parts: int = 1) -> Impressions:
        """Write the skeleton and the common features, each in so many files."""
        self.folder.mkdir(exist_ok=True)
        common = [f"{name},{len(f)},{text(f)}" for name, f in self.common.items()]
        log = [
            f"{n},{row.click},{row.conversion},{row.shared},"
            f"{len(row.features) if row.count is None else row.count},{text(row.features)}"
            for n, row in enumerate(self.log, start=1)
        ]
        for part in range(parts):
            for stem, lines in (("common", common), ("skeleton", log)):
                some = lines[part * len(lines) // parts : (part + 1) * len(lines) // parts]
                path = self.folder / f"{stem}{part}.csv"
                path.write_text("".join(line + "\n" for line in some), encoding="utf-8")
        return self

    def recipe(self, **changes: Any) -> Recipe:
        """Return the recipe, with some of its fields replaced."""
        return recipes.parse({**RAW, **changes}, where="test")


def text(features: list[Feature]) -> str:
    return "\x01".join(f"{field}\x02{of}\x03{value}" for field, of, value in features)
