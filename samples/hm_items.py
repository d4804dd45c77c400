"""Writes H&M's articles.csv: the items, in 25 columns of numbers and of matching names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.random import Generator

from models.core.retriever import Bools, Ints
from samples.lines import RawFile, as_text, quote, write_csv
from samples.tastes import draw_mask
from samples.words import names

ITEMS = "articles.csv"

_HEAD = (
    *("article_id", "product_code", "prod_name", "product_type_no", "product_type_name"),
    *("product_group_name", "graphical_appearance_no", "graphical_appearance_name"),
    *("colour_group_code", "colour_group_name", "perceived_colour_value_id"),
    *("perceived_colour_value_name", "perceived_colour_master_id", "perceived_colour_master_name"),
    *("department_no", "department_name", "index_code", "index_name", "index_group_no"),
    *("index_group_name", "section_no", "section_name", "garment_group_no", "garment_group_name"),
    "detail_desc",
)


@dataclass(frozen=True)
class Garment:
    """A garment group of H&M, with the one product type that it has in a sample.

    Attributes:
        number, name: the number and the name of the garment group.
        weight: number of items of the group in the real file, in thousands.
        kind: number and name of the product type, and name of its product group.
        price: the usual price of an item, in the shop's unit.
        peak: the month in which the group sells best, 1 to 12.
        season: how strongly the sales depend on the month, from 0 to 1.
        indexes: numbers of the index groups that have this garment group; empty if all have it.
    """

    number: int
    name: str
    weight: float
    kind: tuple[int, str, str]
    price: float
    peak: int = 5
    season: float = 0.7
    indexes: tuple[int, ...] = ()


_UPPER, _LOWER, _FULL = "Garment Upper body", "Garment Lower body", "Garment Full body"
#: Index groups by their real numbers.
LADIES, DIVIDED, MEN, CHILDREN, SPORT = 1, 2, 3, 4, 26
GARMENTS = (
    Garment(1001, "Unknown", 3.9, (-1, "Unknown", "Unknown"), 20, 9),
    Garment(1002, "Jersey Basic", 8.1, (253, "Vest top", _UPPER), 10, 7),
    Garment(1003, "Knitwear", 7.5, (252, "Sweater", _UPPER), 30, 12, 1.0),
    Garment(1005, "Jersey Fancy", 21.4, (255, "T-shirt", _UPPER), 15, 4),
    Garment(
        *(1006, "Woven/Jersey/Knitted mix Baby", 2.0, (256, "Bodysuit", _UPPER), 13),
        indexes=(CHILDREN,),
    ),
    Garment(1007, "Outdoor", 4.5, (262, "Jacket", _UPPER), 60, 12, 1.0),
    Garment(1008, "Dressed", 0.9, (264, "Blazer", _UPPER), 60, 11, indexes=(MEN, LADIES)),
    Garment(1009, "Trousers", 6.7, (272, "Trousers", _LOWER), 30, 10),
    Garment(1010, "Blouses", 5.8, (258, "Blouse", _UPPER), 25, 3, indexes=(LADIES, DIVIDED)),
    Garment(1011, "Shirts", 2.1, (259, "Shirt", _UPPER), 25, 8),
    Garment(1012, "Skirts", 1.3, (275, "Skirt", _LOWER), 25, 6, indexes=(LADIES, DIVIDED)),
    Garment(1013, "Dresses Ladies", 4.9, (265, "Dress", _FULL), 35, 6, 0.9, (LADIES, DIVIDED)),
    Garment(1014, "Dresses/Skirts girls", 1.5, (265, "Dress", _FULL), 18, 6, 0.9, (CHILDREN,)),
    Garment(1016, "Trousers Denim", 3.1, (272, "Trousers", _LOWER), 35, 9),
    Garment(1017, "Under-, Nightwear", 7.4, (286, "Underwear bottom", "Underwear"), 15, 1),
    Garment(1018, "Swimwear", 2.8, (57, "Swimsuit", "Swimwear"), 20, 6, 1.0),
    Garment(1019, "Accessories", 11.5, (66, "Bag", "Accessories"), 13, 11),
    Garment(1020, "Shoes", 5.1, (94, "Sneakers", "Shoes"), 35, 3),
    Garment(1021, "Socks and Tights", 2.3, (302, "Socks", "Socks & Tights"), 8, 12, 0.9),
    Garment(1023, "Special Offers", 1.1, (308, "Hoodie", _UPPER), 20, 11),
    Garment(1025, "Shorts", 1.6, (274, "Shorts", _LOWER), 18, 6, 1.0),
)
#: Number, name, share of the items; code and name of the index; number and name of the section.
INDEX_GROUPS = (
    (LADIES, "Ladieswear", 0.38, "A", "Ladieswear", 15, "Womens Everyday Collection"),
    (CHILDREN, "Baby/Children", 0.33, "H", "Children Sizes 92-140", 44, "Kids Boy & Girl"),
    (DIVIDED, "Divided", 0.14, "D", "Divided", 53, "Divided Collection"),
    (MEN, "Menswear", 0.12, "F", "Menswear", 26, "Men Underwear & Basics"),
    (SPORT, "Sport", 0.03, "S", "Sport", 5, "Ladies H&M Sport"),
)
#: Code and name of the colour; number and name of its perceived value and of its master.
_COLOURS = (
    (9, "Black", 4, "Dark", 5, "Black"),
    (10, "White", 3, "Light", 9, "White"),
    (73, "Dark Blue", 4, "Dark", 2, "Blue"),
    (7, "Grey", 1, "Dusty Light", 12, "Grey"),
    (51, "Light Pink", 1, "Dusty Light", 4, "Pink"),
    (12, "Light Beige", 1, "Dusty Light", 11, "Beige"),
    (42, "Red", 5, "Bright", 18, "Red"),
    (19, "Greenish Khaki", 7, "Medium", 20, "Khaki green"),
    (71, "Light Blue", 3, "Light", 2, "Blue"),
    (32, "Dark Yellow", 2, "Medium Dusty", 8, "Yellow"),
    (-1, "Unknown", -1, "Unknown", -1, "Unknown"),
)
_APPEARANCES = (
    (1010016, "Solid"),
    (1010001, "All over pattern"),
    (1010010, "Melange"),
    (1010017, "Stripe"),
    (1010023, "Denim"),
    (-1, "Unknown"),
)


@dataclass(frozen=True)
class Assortment:
    """The items of a sample, in ascending order of their ids.

    Attributes:
        ids: ten digits each, of which the first is 0; text [n], ascending.
        garments: the index of each item's garment group in `GARMENTS`, int [n].
        index_groups: the index of each item's index group in `INDEX_GROUPS`, int [n].
    """

    ids: pa.Array
    garments: Ints
    index_groups: Ints


def draw_assortment(n: int, rng: Generator) -> Assortment:
    """Draw products, each in one to four colours, until there are n items (product and colour)."""
    colours = rng.integers(1, 5, n)
    n_products = int(np.searchsorted(np.cumsum(colours), n)) + 1
    codes = np.sort(rng.permutation(900_000)[:n_products]) + 100_000
    product = np.repeat(np.arange(n_products), colours[:n_products])[:n]
    nth = np.arange(n) - np.searchsorted(product, product)
    weights = np.array([g.weight for g in GARMENTS])
    garment = rng.choice(len(GARMENTS), n_products, p=weights / weights.sum())
    garment[: len(GARMENTS)] = np.arange(len(GARMENTS))[:n_products]  # each garment once
    garment = rng.permutation(garment)
    steps = np.cumsum(_allowed() / _allowed().sum(axis=1, keepdims=True), axis=1)
    index = np.argmax(steps[garment] > rng.random(n_products)[:, None], axis=1)
    ids = codes[product] * 1_000 + 1 + nth * 7
    return Assortment(pa.array([f"{i:010d}" for i in ids]), garment[product], index[product])


def _allowed() -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return each index group's weight in each garment group, float64 [n_garments, n_indexes]."""
    weight = [
        [share * (not g.indexes or number in g.indexes) for number, _, share, *_ in INDEX_GROUPS]
        for g in GARMENTS
    ]
    return np.array(weight)


def write_items(folder: Path, assortment: Assortment, rng: Generator) -> RawFile:
    """Write the items to articles.csv."""
    n = len(assortment.ids)
    codes = [i[:7] for i in assortment.ids.to_pylist()]
    first = np.searchsorted(codes, codes)  # the items of a product are neighbours
    invented = names(700)
    style = rng.integers(0, len(invented), n)[first]
    kinds = [GARMENTS[g].kind for g in assortment.garments]
    looks = [_APPEARANCES[a] for a in rng.integers(0, len(_APPEARANCES), n)[first]]
    named = [f"{invented[s]} {kind[1].lower()}" for s, kind in zip(style, kinds, strict=True)]
    unsaid = draw_mask(n, 0.004, rng)
    columns = [assortment.ids, as_text(codes), quote(named)]
    columns += _columns(kinds) + _columns(looks)
    columns += _columns([_COLOURS[c] for c in rng.integers(0, len(_COLOURS), n)])
    columns += _places(assortment)
    columns.append(quote(_described(named, looks, unsaid)))
    return write_csv(folder, ITEMS, _HEAD, [columns])


def _places(assortment: Assortment) -> list[pa.Array]:
    """Return the columns of department, index, index group, section and garment group."""
    rows = []
    for g, i in zip(assortment.garments, assortment.index_groups, strict=True):
        garment, (number, name, _, code, index, section, section_name) = (
            GARMENTS[g],
            INDEX_GROUPS[i],
        )
        department = (garment.number * 10 + int(i), f"{garment.name} {name}")
        group = (garment.number, garment.name)
        rows.append((*department, code, index, number, name, section, section_name, *group))
    return _columns(rows)


def _columns(rows: Sequence[tuple[object, ...]]) -> list[pa.Array]:
    return [quote([str(cell) for cell in column]) for column in zip(*rows, strict=True)]


def _described(named: list[str], looks: list[tuple[int, str]], unsaid: Bools) -> list[str | None]:
    return [
        None if skip else f'{name.capitalize()} in a soft weave, {look[1].lower()}. "Regular" fit.'
        for name, look, skip in zip(named, looks, unsaid, strict=True)
    ]
