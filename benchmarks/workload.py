"""Generates an encoded log in the shape of Ali-CCP, the same for every peer.

It has sixteen categorical columns, twelve of the user and four of the item, and clicks whose items
follow Zipf's law. Only speed is measured, so clicks are random. The module needs only numpy,
because it also runs in the environments of the peers.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

#: Column of the user table → number of codes. Those of the item table depend on the catalogue.
USER = {
    "user_id": 200_000,
    "user_shops": 60_000,
    "user_brands": 40_000,
    "user_intentions": 30_000,
    "user_categories": 6_000,
    "user_profile": 99,
    "user_group": 15,
    "user_gender": 4,
    "user_age": 9,
    "user_consumption": 5,
    "user_is_occupied": 4,
    "user_geography": 6,
}


def item_columns(n_items: int) -> dict[str, int]:
    """Return the number of codes of each column of the item table."""
    return {
        "item_id": n_items,
        "item_shop": max(8, n_items // 5),
        "item_brand": max(8, n_items // 15),
        "item_category": max(8, n_items // 100),
    }


def make(folder: Path, *, n_rows: int, n_items: int, seed: int = 1) -> Path:
    """Write users.npz, items.npz and rows.npz (user, item of each click); return their folder."""
    place = folder / f"{n_rows}x{n_items}-{seed}"
    if (place / "facts.json").is_file():
        return place
    place.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    n_users = USER["user_id"]
    tables = {}
    for name, columns, size in (
        ("users", USER, n_users),
        ("items", item_columns(n_items), n_items),
    ):
        tables[name] = {
            column: np.arange(size) if codes == size else draw.integers(0, codes, size)
            for column, codes in columns.items()
        }
        np.savez(place / f"{name}.npz", **{c: v.astype(np.int32) for c, v in tables[name].items()})
    weight = 1.0 / np.arange(1, n_items + 1) ** 0.8
    items = draw.choice(n_items, n_rows, p=weight / weight.sum())
    users = draw.integers(0, n_users, n_rows)
    np.savez(place / "rows.npz", user=users.astype(np.int32), item=items.astype(np.int32))
    facts = {"n_rows": n_rows, "n_users": n_users, "n_items": n_items}
    (place / "facts.json").write_text(json.dumps(facts))
    return place


def load(place: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the user table, the item table and the clicks."""
    users, items, rows = (dict(np.load(place / f"{n}.npz")) for n in ("users", "items", "rows"))
    return users, items, rows


def columns(place: Path) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Return all sixteen columns of every click, int32 [n_rows], and their numbers of codes."""
    users, items, rows = load(place)
    by_click = {name: values[rows["user"]] for name, values in users.items()}
    by_click |= {name: values[rows["item"]] for name, values in items.items()}
    return by_click, {**USER, **item_columns(len(items["item_id"]))}


def width(codes: int) -> int:
    """Return the embedding size that Merlin infers: 2 · codes^¼, rounded up to a multiple of 8."""
    return int(-(-2 * codes**0.25 // 8) * 8)
