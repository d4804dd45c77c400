"""A tiny world of raw files: 8 users, 12 films, and an example of each oddity of real logs."""

from __future__ import annotations

import csv
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workflows import recipe as recipes
from workflows.recipe import Recipe

Rows = list[dict[str, Any]]

#: Leading zeros, a negative 64-bit number, other alphabets, separators and quotes.
USERS = ["0108775015", "-8200171396217105230", "Ж", "a,b", 'say "hi"', "u6", "u7", "u8"]
ITEMS = [f"00{n}" for n in range(10)] + ["-1", "映画"]
#: A user and an item that are in no table, and a film without interactions.
UNKNOWN_USER, UNKNOWN_ITEM, UNSEEN = "stranger", "ghost", "unseen"

RECIPE = """\
name: tiny
data: .
sources:
  log: {files: log.csv}
  people: {files: people.csv}
  films: {files: films.csv}
interactions: log
join:
  - {table: people, key: user_id}
  - {table: films, key: item_id}
filter: [{kind: keep, column: rating, is: ">=", value: 3}]
split: {kind: leave_last, valid: 1, test: 1}
features:
  user_id: {role: user, id: true}
  age: {role: user, kind: number, fill: median, indicator: true}
  city: {role: user}
  item_id: {role: item, id: true}
  title: {role: item, kind: label}
  price: {role: item, kind: number, fill: mean}
  genres: {role: item, kind: categories, separator: "|"}
  shop: {role: context}
  when: {role: time}
"""


def _log() -> Rows:
    """Return 160 ratings in order of time, with ties, and three rows without an id or a time."""
    rng = random.Random(7)
    users = [*USERS, UNKNOWN_USER]
    items = [*ITEMS, UNKNOWN_ITEM]
    rows: Rows = [
        {
            "user_id": users[n % len(users)],
            "item_id": rng.choices(items, weights=[*range(13, 1, -1), 6])[0],
            "rating": rng.choice([1, 2, 3, 3, 4, 4, 5, 5]),
            "shop": rng.choice(["web", "app", None]),
            "when": 880_000_000 + n // 12,  # rows of a user can have equal times
        }
        for n in range(160)
    ]
    rows.insert(40, {**rows[40], "user_id": None})
    rows.insert(80, {**rows[80], "item_id": None})
    rows.insert(120, {**rows[120], "when": None})
    return rows


def _people() -> Rows:
    ages = [31, None, 24, 24, None, 57, 40, 19]
    cities = ["Köln", "Oslo", None, "Oslo", "Köln", "Oslo", None, "Rom"]
    return [
        {"user_id": user, "age": age, "city": city}
        for user, age, city in zip(USERS, ages, cities, strict=True)
    ]


def _films() -> Rows:
    genres = [None, "a", "a|b", "b||c", "", "c|a|b", "d", "a|b", "b", "c", None, "a"]
    films: Rows = [
        {"item_id": item, "title": f"Film {n}", "price": None if n == 3 else n / 4, "genres": of}
        for n, (item, of) in enumerate(zip(ITEMS, genres, strict=True))
    ]
    return [*films, {"item_id": UNSEEN, "title": "Unseen", "price": 2.0, "genres": "z|a"}]


@dataclass
class World:
    """Raw tables as lists of rows, and their recipe; a test changes them and calls `write`."""

    folder: Path
    log: Rows = field(default_factory=_log)
    people: Rows = field(default_factory=_people)
    films: Rows = field(default_factory=_films)
    text: str = RECIPE

    @property
    def recipe_file(self) -> Path:
        return self.folder / "tiny.yaml"

    def write(self) -> World:
        """Write log.csv, people.csv, films.csv and the recipe."""
        self.folder.mkdir(exist_ok=True)
        for name in ("log", "people", "films"):
            write_csv(self.folder / f"{name}.csv", getattr(self, name))
        self.recipe_file.write_text(self.text, encoding="utf-8")
        return self

    def recipe(self, *overrides: str) -> Recipe:
        """Parse the recipe with `--set` overrides."""
        return recipes.load(self.recipe_file, overrides)


def write_csv(path: Path, rows: Rows) -> None:
    """Write rows with a header; None becomes an empty cell."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
