"""Dropped rows that still count as seen: which items are not recommended to whom, and when."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stages import PARTS, run
from tiny_run import Tiny
from world import World

from workflows.ground.errors import RecipeError
from workflows.stages.etl import EtlFiles, Prepared
from workflows.stages.export import Export, ExportFiles
from workflows.stages.recommender import ListOptions, Recommender
from workflows.stages.user_blocks import UserBlocks
from workflows.towers.export import histories

LIKED = 4
FILTER = f"filter=[{{kind: keep, column: rating, is: '>=', value: {LIKED}, still_seen: true}}]"


def whole_rows(world: World) -> list[dict]:
    rows = [r for r in world.log if None not in (r["user_id"], r["item_id"], r["when"])]
    return sorted(rows, key=lambda row: row["when"])


def cuts(world: World, split: str) -> dict[str, tuple[float, float]]:
    """Return each user's first time of valid and of test, by the words of the recipe."""
    never = float("inf")
    liked = [row for row in whole_rows(world) if row["rating"] >= LIKED]
    if split == "time":  # every fifth of the rows, cut where the time changes
        times = [row["when"] for row in liked]
        n, changes = len(times), [k for k in range(1, len(times)) if times[k] > times[k - 1]]
        pairs = [(a, b) for a in changes for b in changes if a < b]
        best = min(abs(a - 0.6 * n) + abs(b - 0.8 * n) for a, b in pairs)
        a, b = max(p for p in pairs if abs(p[0] - 0.6 * n) + abs(p[1] - 0.8 * n) == best)
        return {row["user_id"]: (times[a], times[b]) for row in world.log}
    found = {row["user_id"]: (never, never) for row in world.log}
    for user in found:
        mine = [row["when"] for row in liked if row["user_id"] == user]
        if len(mine) > 2:
            found[user] = (mine[-2], mine[-1])
    return found


@pytest.mark.parametrize(
    ("split", "rule"),
    [
        ("leave_last", "{kind: leave_last}"),
        ("time", "{kind: time, valid: 0.2, test: 0.2}"),
        ("random", "{kind: random, valid: 0.2, test: 0.2}"),
    ],
)
def test_a_disliked_item_is_seen_from_the_part_on_in_whose_time_it_was_met(
    world: World, split: str, rule: str
) -> None:
    result = run(world, FILTER, f"split={rule}")
    recipe = world.recipe(FILTER, f"split={rule}")
    prepared = Prepared(result.folder, recipe)
    users = prepared.raw_users["user_id"].to_pylist()
    items = prepared.raw_items["item_id"].to_pylist()
    expected: dict[tuple[str, str], int] = {}
    when = cuts(world, split)
    for row in whole_rows(world):
        pair = (row["user_id"], row["item_id"])
        if row["rating"] < LIKED and pair[0] in users and pair[1] in items:
            valid, test = when[pair[0]]
            known = 0 if split == "random" else (row["when"] >= valid) + (row["when"] >= test)
            expected[pair] = min(expected.get(pair, 2), known)
    rows = pq.read_table(EtlFiles(result.folder).seen).to_pylist()
    known_users = [row for row in rows if row["user_row"] >= 0]
    found = {(users[r["user_row"]], items[r["item_row"]]): r["part"] for r in known_users}
    assert found == expected
    assert len(found) == len(known_users)
    if split != "random":
        assert set(found.values()) == {0, 1, 2}
    # no positive, no history, no popularity: all else is as without the option
    plain = run(world, FILTER.replace(", still_seen: true", ""), f"split={rule}", name="plain")
    for name in (*PARTS, "users", "items", "vocabulary"):
        files = [sorted((r.folder / name).glob("*.parquet")) for r in (result, plain)]
        assert [p.read_bytes() for p in files[0]] == [p.read_bytes() for p in files[1]]
    assert not EtlFiles(plain.folder).seen.exists()

    evaluation_set = prepared.evaluation_set("test", recipe.evaluate)
    assert evaluation_set is not None
    assert evaluation_set.exclude is not None
    for n, row in enumerate(evaluation_set.queries.users):
        extra = {items[i] for i in evaluation_set.exclude[n]} - {
            items[i] for i in evaluation_set.queries.histories[n]
        }
        mine = {item: part for (user, item), part in expected.items() if user == users[row]}
        disliked = {item for item, part in mine.items() if part < 2}
        assert extra <= disliked
        assert disliked <= {items[i] for i in evaluation_set.exclude[n]}


def test_what_is_seen_is_in_no_list_and_in_no_shown_history(tiny: Tiny, tmp_path: Path) -> None:
    run_ = tiny.exported
    plain = Recommender.open(run_.store, run_.recipe)
    options, user = ListOptions(k=3), plain.export.user_ids[0].as_py()
    before = plain.lists(np.array([user], object), options)["item_id"].to_pylist()
    rows = plain.user_rows(np.array([user], object))
    first, last = plain.catalogue.rows_of(before[:1]), plain.catalogue.rows_of(before[-1:])
    table = pa.table(
        {
            "user_row": pa.array([rows[0], rows[0]], pa.int32()),
            "item_row": pa.array([first[0], last[0]], pa.int32()),
            "part": pa.array([1, 2], pa.int8()),  # the export is as of test
        }
    )
    shutil.copytree(run_.store.folder("etl"), tmp_path / "etl")
    pq.write_table(table, EtlFiles(tmp_path / "etl").seen)
    prepared, files = Prepared(tmp_path / "etl", run_.recipe), ExportFiles(tmp_path / "export")
    shutil.copytree(plain.export.files.folder, files.folder)
    known = ("train", "valid")
    (block,) = UserBlocks.of(prepared, known).read(tmp_path)
    pq.write_table(histories(block, prepared.also_seen(*known)), files.histories)
    export = dataclasses.replace(plain, export=Export(files, run_.recipe, "test"))
    after = export.lists(np.array([user], object), options)["item_id"].to_pylist()
    assert after[:2] == before[1:]
    assert export.history(user).equals(plain.history(user))
    kept = export.lists(np.array([user], object), ListOptions(k=50, keep_seen=True))
    assert set(before) <= set(kept["item_id"].to_pylist())


def test_rules_after_the_split_drop_what_nobody_need_remember(world: World) -> None:
    with pytest.raises(RecipeError, match="still_seen is for rules of stage: before"):
        world.recipe(FILTER.replace("still_seen", "stage: after, still_seen"))
