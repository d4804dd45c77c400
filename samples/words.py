"""Invented brand names, the same in every sample, with the accents and signs of real names."""

from __future__ import annotations

from itertools import product

_HEADS = ("Al", "Bo", "Ce", "Do", "Er", "Fa", "Gi", "Hu", "In", "Jo", "Ka", "Lu", "Mi")
_MIDDLES = ("lin", "ra", "sto", "ve", "mbe", "nno", "pi")
_TAILS = ("a", "ette", "o", "us", "wood", "ie", "son", "ly")
#: Not every name is one word in ASCII.
_ODD = ("Søv & Lek", "Petit Été", "by.Tove", "O'Malley", "Småfolket", "2nd Summer")


def names(n: int) -> list[str]:
    """Return n different invented names; n is at most 734."""
    invented = ["".join(parts) for parts in product(_HEADS, _MIDDLES, _TAILS)]
    # the step has no factor in common with 728, so that successive names do not look alike
    mixed = [invented[i * 45 % len(invented)] for i in range(len(invented))]
    return [*mixed[:2], *_ODD, *mixed[2:]][:n]
