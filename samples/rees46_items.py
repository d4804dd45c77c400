"""Draws the items of REES46 samples: leaves of a category tree, brands and price tiers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.random import Generator

from samples.lines import as_decimals, as_text, quote
from samples.tastes import Catalogue, draw_mask, to_shares, zipf
from samples.words import names

#: Leaves of the tree and their weights; some have two levels, one has four.
_LEAVES = (
    ("construction.tools.light", 12.0),  # the category of smartphones in the real log
    ("construction.tools.drill", 2.0),
    ("construction.tools.saw", 1.0),
    ("electronics.smartphone", 5.0),
    ("electronics.clocks", 3.0),
    ("electronics.audio.headphone", 5.0),
    ("electronics.audio.music_tools.piano", 1.0),
    ("electronics.video.tv", 4.0),
    ("appliances.kitchen.refrigerators", 3.0),
    ("appliances.kitchen.washer", 3.0),
    ("appliances.kitchen.microwave", 2.0),
    ("appliances.environment.vacuum", 3.0),
    ("appliances.environment.air_heater", 1.0),
    ("appliances.personal.massager", 2.0),
    ("computers.notebook", 4.0),
    ("computers.peripherals.mouse", 2.0),
    ("computers.peripherals.printer", 1.0),
    ("computers.components.cpu", 1.0),
    ("computers.components.videocards", 1.0),
    ("apparel.shoes.keds", 4.0),
    ("apparel.shoes.sandals", 2.0),
    ("furniture.bedroom.bed", 2.0),
    ("furniture.bedroom.blanket", 1.0),
    ("furniture.living_room.sofa", 2.0),
)
_TOPS = sorted({code.split(".")[0] for code, _ in _LEAVES})
_BRANCHES = sorted({".".join(code.split(".")[:2]) for code, _ in _LEAVES})
N_BRANDS, N_TIERS = 40, 4
#: First columns of the tastes: top categories, branches, brands (then none), tiers, early or late.
BRANCH = len(_TOPS)
BRAND = BRANCH + len(_BRANCHES)
TIER = BRAND + N_BRANDS + 1
LATE = TIER + N_TIERS
WIDTH = LATE + 2


@dataclass(frozen=True)
class Assortment:
    """The items of a sample, with their attributes and their text columns in the log.

    Attributes:
        catalogue: the attributes of the items: top category, branch, brand, tier, and whether the
            item is sold only from a later month on.
        ids: the column product_id as text.
        columns: the columns category_id, category_code, brand and price as text; category_code and
            brand may be null.
    """

    catalogue: Catalogue
    ids: pa.Array
    columns: tuple[pa.Array, ...]


def draw_assortment(n: int, rng: Generator) -> Assortment:
    """Draw n items: every leaf category has at least one, and a brand has one top category."""
    weights = np.array([weight for _, weight in _LEAVES])
    leaf = rng.choice(len(_LEAVES), n, p=weights / weights.sum())
    leaf[: len(_LEAVES)] = np.arange(len(_LEAVES))[:n]
    codes = [code for code, _ in _LEAVES]
    top = np.array([_TOPS.index(code.split(".")[0]) for code in codes])[leaf]
    branch = np.array([_BRANCHES.index(".".join(code.split(".")[:2])) for code in codes])[leaf]
    # of n top categories, brand b belongs to number b % n, and is its (b // n)-th largest brand
    brand = top + len(_TOPS) * rng.choice(7, n, p=to_shares(-np.log(np.arange(7) + 1.0)))
    brand = np.where(brand < N_BRANDS, brand, top)
    tier = rng.integers(0, N_TIERS, N_BRANDS)[brand]
    nameless = draw_mask(n, 0.15, rng)
    tier[nameless] = rng.integers(0, N_TIERS, nameless.sum())
    late = draw_mask(n, 0.1, rng)
    columns = [top, BRANCH + branch, BRAND + np.where(nameless, N_BRANDS, brand)]
    values = np.stack([*columns, TIER + tier, LATE + late], axis=1)
    price = np.exp(4 + 0.5 * top + 0.6 * tier + rng.normal(0, 0.3, n))
    unfiled = draw_mask(n, 0.1, rng)
    product = 1_000_000 + 37 * rng.permutation(n)
    category = 2_053_013_552_326_770_905 + 6_148_914_691_236_517 * leaf
    return Assortment(
        Catalogue.without_looks(values, 0.9 * zipf(n, 1.05, rng)),
        as_text(product),
        (
            as_text(category),
            quote([None if skip else codes[i] for i, skip in zip(leaf, unfiled, strict=True)]),
            quote([None if skip else _BRANDS[b] for b, skip in zip(brand, nameless, strict=True)]),
            as_decimals(np.round(price, 2)),
        ),
    )


_BRANDS = [name.lower() for name in names(N_BRANDS)]
