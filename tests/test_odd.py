"""What is odd but usable is told once, by column and count; what cannot be learnt is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from stages import decoded, run
from world import World

from workflows.errors import DataError

# ── weights ─────────────────────────────────────────────────────────────────────────────


def weighed(world: World, weigh: Callable[[int], float]) -> World:
    for n, row in enumerate(world.log):
        row["plays"] = weigh(n)
    return world.write()


WEIGHT = "features.plays={role: weight, kind: number}"


def test_weights_that_are_all_0_are_refused(world: World) -> None:
    with pytest.raises(
        DataError,
        match=r"^All \d+ weights of train, column 'plays', are 0, so that nothing can be learnt\.",
    ):
        run(weighed(world, lambda n: 0), WEIGHT)


@pytest.mark.parametrize(("highest", "told"), [(200, False), (201, True)])
def test_a_heavy_tail_of_weights_is_told_with_the_cure(
    world: World, caplog: pytest.LogCaptureFixture, highest: float, told: bool
) -> None:
    """The median of those above 0 is 2; the highest stands in the first row, which trains."""
    world.log[0]["rating"] = 5
    run(weighed(world, lambda n: (highest if n == 0 else 2) * (n % 3 == 0)), WEIGHT)
    found = [message for message in caplog.messages if "weight" in message]
    assert len(found) == told
    if told:
        assert found[0].startswith(
            "column 'plays', the weight of rows: its highest value is 201, and the median of those "
            "above 0 is 2, so that few rows decide what is learnt."
        )
        assert "{kind: log1p, of: plays, to: mild_weight}" in found[0]


# ── blanks ──────────────────────────────────────────────────────────────────────────────


def test_blanks_around_ids_and_categories_are_told_and_kept(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    for n, row in enumerate(world.log):
        row["user_id"] = row["user_id"] and (f" {row['user_id']}" if n % 2 else row["user_id"])
    world.people = [{**row, "city": f"{row['city']}\t"} for row in world.people]
    world.write()
    result = run(world)
    found = [message for message in caplog.messages if "blanks around them" in message]
    assert len(found) == 2
    assert found[0].startswith(
        "source 'log' (log.csv), column 'user_id': 9 of 18 different values have blanks around "
        "them, such as "
    )
    assert "and 9 of them stand there without blanks, too." in found[0]
    assert "source 'people' (people.csv), column 'city'" in found[1]
    users = {user for user in decoded(result, "train", "user_id") if user}
    assert {user for user in users if user.startswith(" ")}
    assert {user for user in users if not user.startswith(" ")}
