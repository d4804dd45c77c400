"""Matching ids of two tables: the share that is found, examples, and the likely cause."""

from __future__ import annotations

import pyarrow as pa
import pytest

from workflows.etl.check.matches import match


def ids(*texts: str) -> pa.Array:
    return pa.array(texts, pa.string())


NUMBERS = [str(17850 + n) for n in range(20)]


@pytest.mark.parametrize(
    ("here", "there", "cause"),
    [
        ([f"{n}.0" for n in NUMBERS], NUMBERS, "a '.0' at the end of numbers"),
        (NUMBERS, [f"{n}.00" for n in NUMBERS], "a '.0' at the end of numbers"),
        ([f" {n}" for n in NUMBERS], NUMBERS, "blanks around ids"),
        (NUMBERS, [f"{n}\u00a0" for n in NUMBERS], "blanks around ids"),
        (NUMBERS, [f"000{n}" for n in NUMBERS], "zeros before numbers"),
        ([f"a{n}" for n in NUMBERS], [f"A{n}" for n in NUMBERS], "capital letters"),
        ([f'"{n}"' for n in NUMBERS], NUMBERS, "quotes around ids"),
        (NUMBERS, [f"c{n}" for n in NUMBERS], ""),
    ],
)
def test_the_likely_cause_is_told(here: list[str], there: list[str], cause: str) -> None:
    found = match(ids(*here), ids(*there))
    assert (found.ids, found.found, found.cause) == (20, 0, cause)
    assert found.is_poor
    assert found.examples == (sorted(here)[:3], sorted(there)[:3])


def test_half_of_the_ids_spelt_otherwise_are_told_though_many_are_found() -> None:
    here = [*NUMBERS[:12], *(f"{n}.0" for n in NUMBERS[12:16]), "u1", "u2", "u3"]
    found = match(ids(*here), ids(*NUMBERS))
    assert (found.found, found.cause, found.is_poor) == (12, "a '.0' at the end of numbers", True)
    told = found.sentences("user", "the log", "customers")
    assert told.startswith(
        "Only 12 of 19 ids of 'user' in the log are in customers. The former has '17862.0', "
        "'17863.0', '17864.0', the latter '17862', '17863', '17864'."
    )


@pytest.mark.parametrize(("n_found", "odd"), [(0, True), (1, True), (2, False), (20, False)])
def test_a_join_is_poor_below_a_tenth(n_found: int, odd: bool) -> None:
    here = [*NUMBERS[:n_found], *(f"stranger {n}" for n in range(20 - n_found))]
    assert match(ids(*here), ids(*NUMBERS)).is_poor == odd


def test_no_ids_are_not_odd() -> None:
    assert not match(ids(), ids("a")).is_poor
    assert match(ids("a"), ids()).sentences("x", "here", "there") == (
        "None of 1 ids of 'x' in here are in there. The former has 'a'."
    )
