"""A large log in partitions by user: the same rows, tables and counts as in memory."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stages import DEVICE, content, run
from world import World

from workflows.etl import Engine, EtlResult, etl, memory
from workflows.etl.read import file_job, slices
from workflows.etl.read.routing import assign_partitions, hash_texts
from workflows.etl.workers import local_cluster
from workflows.ground import large_text
from workflows.ground.errors import DataError
from workflows.stages.store import Store

#: Bytes of cells of a partition with which the log of the small world has several.
SMALL = 2_000
HISTORY = "history: {columns: [item_id], before: second}\n"
#: Files that do not depend on the number of partitions.
MERGED = ("vocabulary", "users/raw.parquet", "items/raw.parquet", "derived.json")


@pytest.fixture
def small_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "WHOLE", SMALL)
    monkeypatch.setattr(memory, "PARTITION", SMALL)
    monkeypatch.setattr(slices, "SLICE", 500)


def names(result: EtlResult, part: str = "train") -> list[str]:
    return sorted(path.name for path in (result.folder / part).glob("part-*"))


def rows(result: EtlResult, part: str) -> pd.DataFrame:
    """Return the encoded rows of a part in an order of their own."""
    frames = [pq.read_table(path).to_pandas() for path in (result.folder / part).glob("part-*")]
    frame = pd.concat(frames)
    for name in frame:
        if frame[name].dtype == object:
            frame[name] = [",".join(map(str, cell)) for cell in frame[name]]
    return frame.sort_values(list(frame.columns)).reset_index(drop=True)


RECIPES = {
    "leave_last": HISTORY,
    "time": HISTORY + "split: {kind: time, valid: 0.2, test: 0.2}\n",
    "filters": """\
filter:
  - {kind: keep, column: rating, is: ">=", value: 2, still_seen: true}
  - {kind: users_with, column: rating, is: ">=", value: 4}
  - {kind: top_users, n: 6}
  - {kind: keep, column: rating, is: "<", value: 5, stage: after}
  - {kind: top_users, n: 4, stage: after}
""",
    "fitted": """\
derive:
  - {kind: price_cluster, of: price, to: cluster, k: 3}
  - {kind: top_values, of: city, to: town, n: 1}
  - {kind: date_part, of: when, to: second, part: hour}
""",
}
FEATURES = {
    "fitted": "  cluster: {role: item}\n  town: {role: user}\n  second: {role: context}\n",
}


def write(world: World, name: str) -> World:
    """Write the world with the recipe of a case."""
    more = RECIPES[name]
    text = world.text
    for block in ("split", "filter"):
        if f"{block}:" in more:
            text = "".join(
                line for line in text.splitlines(True) if not line.startswith(f"{block}:")
            )
    world.text = text + FEATURES.get(name, "") + more
    world.log = [
        {**row, "when": row["when"] and row["when"] + n // 7} for n, row in enumerate(world.log)
    ]
    return world.write()


@pytest.mark.parametrize("name", RECIPES)
def test_rows_tables_and_counts_are_those_of_one_partition(
    world: World, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(world, name)
    whole = run(world, name="whole")
    assert names(whole) == ["part-0.parquet"]
    monkeypatch.setattr(memory, "WHOLE", SMALL)
    monkeypatch.setattr(memory, "PARTITION", SMALL)
    monkeypatch.setattr(slices, "SLICE", 500)
    cut = run(world, name="cut")
    assert len({name[:10] for name in names(cut)}) > 2
    assert cut.report == whole.report
    for part in ("train", "valid", "test", "users", "items"):  # sums differ in their last digits
        frames = [rows(of, part) for of in (cut, whole)]
        if part == "users":  # a text here, whose number has no meaning
            frames = [frame.drop(columns="when", errors="ignore") for frame in frames]
        pd.testing.assert_frame_equal(*frames)
        schema = f"{part}/schema.pbtxt"
        assert content(cut.folder, schema) == content(whole.folder, schema)
    if name == "filters":
        seen = [pq.read_table(of.folder / "seen.parquet").to_pandas() for of in (cut, whole)]
        keys = list(seen[0].columns)
        cut_seen, whole_seen = (of.sort_values(keys, ignore_index=True) for of in seen)
        pd.testing.assert_frame_equal(cut_seen, whole_seen)
    there = [name for name in MERGED if (whole.folder / name).exists()]
    merged, expected = (content(of.folder, *there) for of in (cut, whole))
    assert [name for name in expected if merged.get(name) != expected[name]] == []
    assert not list(cut.folder.glob(".aside*"))


def test_a_part_file_has_the_users_of_one_partition(world: World, small_partitions: None) -> None:
    result = run(world.write())
    owners: dict[int, set[str]] = {}
    for part in ("train", "valid", "test"):
        for path in (result.folder / part).glob("part-*"):
            for user in pq.read_table(path)["user_id"].to_pylist():
                owners.setdefault(user, set()).add(path.name.split("-")[1])
    assert len(owners) > 5
    assert all(len(partitions) == 1 for partitions in owners.values())


@pytest.mark.parametrize("kind", ["random", "by_user"])
def test_random_splits_hold_out_their_shares(
    world: World, kind: str, small_partitions: None
) -> None:
    world.text = "\n".join(
        line if not line.startswith("split:") else f"split: {{kind: {kind}, valid: 0.2, test: 0.3}}"
        for line in world.text.splitlines()
    )
    result = run(world.write())
    sizes = result.report.rows
    everything = sum(sizes.values())
    if kind == "random":
        assert sizes["valid"] == round(0.2 * everything)
        assert sizes["test"] == round(0.3 * everything)
    else:
        users = {p: set(rows(result, p)["user_row"]) for p in sizes}
        assert not users["valid"] & users["test"]
    again = run(world, name="again")
    assert content(again.folder) == content(result.folder)


@pytest.mark.parametrize(
    "engine",
    [Engine(workers=1), Engine(workers=3), Engine(chunk="64"), Engine(memory="1MiB")],
    ids=str,
)
def test_no_setting_changes_a_byte(
    world: World, engine: Engine, small_partitions: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.text += HISTORY
    expected = run(world.write(), name="expected")
    assert len(names(expected)) > 2
    monkeypatch.setattr(slices, "SLICE", 3_000)
    store = Store(world.folder.parent / "other")
    other = etl(world.recipe(), store, DEVICE, data=world.folder, engine=engine)
    assert content(other.folder) == content(expected.folder)


@pytest.fixture(scope="module")
def cluster() -> Iterator[distributed.LocalCluster]:
    """Return a scheduler and two worker processes on loopback."""
    with local_cluster(2, memory_limit=2**30) as cluster:
        yield cluster


def test_dask_workers_write_the_same_bytes_even_if_one_is_killed(
    world: World, small_partitions: None, cluster: distributed.LocalCluster
) -> None:
    world.text += HISTORY
    expected = run(world.write(), name="expected")
    victim = next(iter(cluster.workers.values())).pid
    store = Store(world.folder.parent / "dask")
    killed = []

    def kill() -> None:
        until = time.monotonic() + 120
        while time.monotonic() < until and not list(store.root.rglob("*.rows")):
            time.sleep(0.001)
        os.kill(victim, signal.SIGKILL)
        killed.append(len(list(store.root.rglob("part-*.parquet"))))

    killer = threading.Thread(target=kill)
    killer.start()
    engine = Engine(dask=cluster.scheduler_address)
    found = etl(world.recipe(), store, DEVICE, data=world.folder, engine=engine)
    killer.join()
    assert killed[0] < len(list(found.folder.rglob("part-*.parquet")))
    assert content(found.folder) == content(expected.folder)


# ── reading ──────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_job, "_TEXT", 400)


def test_pieces_of_one_file_are_read_as_the_file(
    world: World, small_partitions: None, small_pieces: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for row in world.log:  # quotes make pieces unsafe
        row["user_id"] = row["user_id"] and row["user_id"].replace('"', "").replace(",", "")
    cut = run(world.write(), name="cut")
    monkeypatch.setattr(file_job, "_TEXT", 1 << 20)
    assert content(run(world, name="whole").folder) == content(cut.folder)


def test_quoted_lines_are_not_cut(
    world: World,
    small_partitions: None,
    small_pieces: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("workflows.read.text._HEAD", 256)  # the quotes come later
    for row in world.log[:30]:
        row["user_id"] = "u6"
    world.log[100]["shop"] = "web\nand\nmore"
    with caplog.at_level(logging.INFO):
        cut = run(world.write(), name="cut")
    assert any("is read by one reader" in message for message in caplog.messages)
    values = pq.read_table(cut.folder / "vocabulary" / "shop.parquet")["value"].to_pylist()
    assert "web\nand\nmore" in values or world.log[100]["rating"] < 3


def test_a_fault_in_a_piece_is_told_with_its_row(
    world: World, small_partitions: None, small_pieces: None
) -> None:
    for row in world.log:
        row["user_id"] = row["user_id"] and row["user_id"].replace('"', "").replace(",", "")
    world.log[111]["when"] = "noon"
    with pytest.raises(DataError, match=r"log\.csv, column 'when', row 112: 'noon' cannot be"):
        run(world.write())


def test_a_folder_for_partitions_is_empty_afterwards(
    world: World, tmp_path: Path, small_partitions: None
) -> None:
    aside = tmp_path / "spill"
    aside.mkdir()
    store, engine = Store(world.folder.parent / "run"), Engine(spill=str(aside))
    etl(world.write().recipe(), store, DEVICE, data=world.folder, engine=engine)
    assert not list(aside.iterdir())
    world.log[3]["when"] = "noon"
    with pytest.raises(DataError, match="'noon' cannot be"):
        etl(world.write().recipe(), store, DEVICE, data=world.folder, engine=engine)
    assert not list(aside.iterdir())


def test_a_partition_that_does_not_fit_is_refused(world: World, small_partitions: None) -> None:
    world.people, world.films = world.people[:1], world.films[:1]
    world.text = world.text.replace("key: user_id}", "key: user_id, on_missing: drop}")
    store = Store(world.folder.parent / "run")
    engine = Engine(memory="2KiB")
    recipe = world.write().recipe()
    with pytest.raises(DataError, match="the largest partition of source 'log' needs about"):
        etl(recipe, store, DEVICE, data=world.folder, engine=engine)


def test_a_log_is_cut_by_its_size_alone() -> None:
    assert memory.count_partitions(1 << 30) == 1
    assert memory.count_partitions((1 << 30) + 1) == 8
    assert memory.count_partitions(100 * memory.PARTITION) == 100


# ── the hash ─────────────────────────────────────────────────────────────────────────────


def test_the_hash_of_a_text_depends_on_its_bytes_alone() -> None:
    texts = ["", "a", "b", "abcdefgh", "abcdefghi", "Ж" * 9, "x" * 100, "x" * 101]
    hashes = hash_texts(pa.array(texts))
    assert len(set(hashes.tolist())) == len(texts)
    for n in range(len(texts)):
        assert hash_texts(pa.array(texts[n:])).tolist() == hashes[n:].tolist()
        assert hash_texts(pa.array([texts[n]], pa.large_string()))[0] == hashes[n]
    known = hash_texts(pa.array(["196", "user 7"])).tolist()
    assert known == KNOWN_HASHES  # a hash that changes moves users to other part files


KNOWN_HASHES = [7175497523158432325, 14431243569869030321]


def test_users_are_spread_evenly_and_spellings_stay_together() -> None:
    ids = pa.array([str(n) for n in range(20_000)])
    partitions = assign_partitions(ids, 16)
    counts = np.bincount(partitions, minlength=16)
    assert counts.min() > 1_100
    assert counts.max() < 1_400
    floats = pa.array([f"{n}.0" for n in range(20_000)])
    assert (assign_partitions(floats, 16) == partitions).all()
    assert not assign_partitions(ids, 1).any()


# ── more text than an Arrow array can hold ───────────────────────────────────────────────


def test_more_distinct_text_than_an_array_holds(
    world: World, small_partitions: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run(world.write(), name="expected")
    monkeypatch.setattr(large_text, "LARGEST", 20)
    large: Any = run(world, name="large")
    assert content(large.folder, "train", "valid", "test") == content(
        expected.folder, "train", "valid", "test"
    )
    for name in ("vocabulary/user_id.parquet", "users/raw.parquet"):
        found = pq.read_table(large.folder / name)
        assert found.equals(pq.read_table(expected.folder / name))
        assert pa.large_string() not in found.schema.types
