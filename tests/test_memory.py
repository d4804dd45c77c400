"""The memory limit: data that cannot fit is refused, and the rest is read in blocks."""

from __future__ import annotations

import pytest
from stages import DEVICE
from world import World

from workflows.etl import Engine, etl
from workflows.etl.memory import Memory
from workflows.ground.errors import DataError, RecipeError
from workflows.stages.store import Store


def test_a_limit_is_parsed_or_half_of_the_machine() -> None:
    assert Memory.of("8GiB").limit == 8 * 2**30
    assert Memory.of("64MB").limit == 64 * 10**6
    half = Memory.of().limit
    assert 2**28 < half < 2**44
    for text in ("much", "0", "-1GiB"):
        with pytest.raises(RecipeError, match=r"--memory-limit is '.*'; expected a number of byte"):
            Memory.of(text)


def test_a_block_fits_and_has_its_bounds() -> None:
    limit = Memory(16 * 1000)
    assert limit.rows(10, least=1, most=10_000) == 100  # a sixteenth of the limit
    assert limit.rows(10, least=500, most=10_000) == 500
    assert limit.rows(10, least=1, most=7) == 7


def test_rows_that_do_not_fit_are_refused_before_they_are_read(world: World) -> None:
    for row in world.log:
        row["when"] = "never a time"  # the first row would be refused
    world.write()
    with pytest.raises(
        DataError,
        match=r"^source 'log' needs about \d+\.\d+ kiB of memory \(1\d\d rows of \d+ bytes"
        r", up to 3 times\), and the limit is 1\.00 kiB\. Raise --memory-limit if the machine",
    ):
        etl(
            world.recipe(),
            Store(world.folder.parent / "run"),
            DEVICE,
            data=world.folder,
            engine=Engine(memory="1KiB"),
        )
    assert not (world.folder.parent / "run" / "etl").exists()
