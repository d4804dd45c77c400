"""Workers: threads, Dask workers and a killed worker all give the same bytes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext

import distributed
import pyarrow.parquet as pq
import pytest
from stages import DEVICE, content
from world import World

from workflows.etl import Engine, etl, workers
from workflows.etl.encode import writer
from workflows.etl.memory import Memory
from workflows.etl.workers import local_cluster, open_workers
from workflows.ground.device import Device
from workflows.ground.errors import DataError, DeviceError, RecipeError
from workflows.stages.store import Store

PART = 10
PLAIN = "history: {columns: [item_id]}\n"
BY_KIND = """\
history: {columns: [item_id], events: {column: shop, kinds: [web, app], target: web}}
model: {kind: offers}
"""


def stage(world: World, name: str, engine: Engine, history: str = PLAIN) -> dict[str, bytes]:
    """Run etl in an engine, history and all, and return its files."""
    world.recipe_file.write_text(world.text + history, encoding="utf-8")
    store = Store(world.folder.parent / name)
    result = etl(world.recipe(), store, DEVICE, data=world.folder, engine=engine)
    assert sorted(p.name for p in store.root.iterdir()) == [".lock", "etl"]
    return content(result.folder)


@pytest.fixture
def expected(world: World, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Return the stage as one thread writes it, in parts of ten rows."""
    monkeypatch.setattr(writer, "PART", PART)
    found = stage(world, "expected", Engine(workers=1))
    assert "train/part-5.parquet" in found
    return found


@pytest.mark.parametrize(
    "engine",
    [
        Engine(),
        Engine(workers=3),
        Engine(chunk="64"),
        Engine(chunk="1KiB", memory="64KiB"),
        Engine(memory="1GiB"),
    ],
    ids=str,
)
def test_e12_no_setting_changes_a_byte(
    world: World,
    expected: dict[str, bytes],
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(writer, "_LEAST", 3)
    assert stage(world, "run", engine) == expected


def test_e12_no_setting_changes_a_byte_of_lists_by_kind(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "PART", 4)
    expected = stage(world, "expected", Engine(workers=1), BY_KIND)
    assert {"train/part-1.parquet", "latest/part-1.parquet"} < set(expected)
    monkeypatch.setattr(writer, "_LEAST", 3)
    engine = Engine(workers=3, chunk="64", memory="64KiB")
    assert stage(world, "run", engine, BY_KIND) == expected


def test_parts_are_one_table_in_the_order_of_rows(world: World, expected: dict[str, bytes]) -> None:
    folder = world.folder.parent / "expected" / "etl" / "train"
    paths = [folder / f"part-{n}.parquet" for n in range(len(list(folder.glob("part-*"))))]
    rows = [pq.read_metadata(path).num_rows for path in paths]
    assert set(rows[:-1]) == {PART}
    times = [time for path in paths for time in pq.read_table(path)["when"].to_pylist()]
    assert times == sorted(times)


# ── Dask ────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def cluster() -> Iterator[distributed.LocalCluster]:
    """Return a scheduler and two worker processes on loopback."""
    with local_cluster(2, memory_limit=2**30) as cluster:
        yield cluster


@pytest.mark.quality
def test_e12_one_dask_worker_writes_the_same_bytes(
    world: World, expected: dict[str, bytes]
) -> None:
    assert stage(world, "run", Engine(dask="local", workers=1)) == expected


def test_e12_local_workers_write_the_same_bytes(
    world: World,
    expected: dict[str, bytes],
    cluster: distributed.LocalCluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Take the cluster of this file, a `local_cluster`, too: another takes seconds to start."""
    monkeypatch.setattr(workers, "local_cluster", lambda *_, **__: nullcontext(cluster))
    assert stage(world, "run", Engine(dask="local", workers=2)) == expected


def test_e12_two_workers_of_a_scheduler_write_the_same_bytes(
    world: World, expected: dict[str, bytes], cluster: distributed.LocalCluster
) -> None:
    assert stage(world, "run", Engine(dask=cluster.scheduler_address)) == expected


@pytest.mark.quality
def test_a_killed_worker_costs_a_retry_and_not_a_byte(
    world: World, expected: dict[str, bytes], cluster: distributed.LocalCluster
) -> None:
    victim = next(iter(cluster.workers.values())).pid
    killed = []

    def kill() -> None:
        run = world.folder.parent / "run" / ".etl.new" / "train"
        until = time.monotonic() + 60
        while time.monotonic() < until and not list(run.glob("part-0.parquet")):
            time.sleep(0.001)
        os.kill(victim, signal.SIGKILL)
        killed.append(list(run.glob("part-*.parquet")))

    killer = threading.Thread(target=kill)
    killer.start()
    found = stage(world, "run", Engine(dask=cluster.scheduler_address))
    killer.join()
    assert 1 <= len(killed[0]) < len([name for name in found if name.startswith("train/part-")])
    assert found == expected


def test_what_is_wrong_in_a_file_is_told_from_a_worker(
    world: World, cluster: distributed.LocalCluster
) -> None:
    world.log[11]["when"] = "noon"
    world.write()
    with pytest.raises(DataError, match=r"raw/log\.csv, column 'when', row 12: 'noon' cannot be"):
        stage(world, "run", Engine(dask=cluster.scheduler_address))


@pytest.mark.parametrize(
    ("dask", "error", "message"),
    [
        ("lokal", RecipeError, r"--dask is 'lokal'; expected local, cuda, or a scheduler such as"),
        ("cuda", DeviceError, r"--dask cuda needs a GPU, and this process has none: asked for by"),
        ("tcp://127.0.0.1:1", DeviceError, r"No Dask scheduler answers at tcp://127\.0\.0\.1:1 "),
    ],
)
def test_workers_that_cannot_be_had(
    dask: str, error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workflows.etl.workers.TIMEOUT", "1s")
    device = Device("cpu", "asked for by a test")
    with (
        pytest.raises(error, match=message),
        open_workers(dask, number=1, device=device, memory=Memory(2**30)),
    ):
        raise AssertionError("nobody to be had")


def test_results_come_in_the_order_of_jobs_and_few_jobs_wait() -> None:
    asked: list[int] = []

    def jobs() -> Iterator[int]:
        for job in range(20):
            asked.append(job)
            yield job

    def late(job: int) -> int:
        time.sleep(0.01 * (job % 3 == 0))
        return job

    with open_workers("", number=2, device=DEVICE, memory=Memory(2**30)) as workers:
        for done, job in enumerate(workers.map(late, jobs())):
            assert job == done
            assert len(asked) <= done + 4
    assert len(asked) == 20


def test_a_cluster_that_does_not_start_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "STARTING", 2.0)
    process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(1000,))

    ended = threading.Event()

    def start() -> None:
        process.start()
        process.join()
        ended.set()

    with pytest.raises(DeviceError, match=r"workers did not start within .* Give fewer --workers"):
        workers.start_in_time(start)
    assert ended.wait(30)
    assert process.exitcode == -signal.SIGKILL
    assert workers.start_in_time(lambda: 7) == 7
