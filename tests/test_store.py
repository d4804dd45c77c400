"""The store: whole or absent, after kills, full disks and meddling; stale input is refused."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.core import atomic
from workflows import recipe as recipes
from workflows.ground.device import Device
from workflows.ground.errors import ArtifactError, MissingStage, StaleInput, StorageError
from workflows.recipe import Recipe
from workflows.stages.dependencies import INPUTS, PARTS
from workflows.stages.store import Store

ROOT = Path(__file__).resolve().parent.parent
DEVICE = Device("cpu", "asked for by a test")
RAW = {
    "name": "shop",
    "sources": {"log": {"files": "log.csv"}},
    "interactions": "log",
    "split": {"kind": "random"},
    "features": {"user": {"role": "user", "id": True}, "item": {"role": "item", "id": True}},
}
FILES = ("a.bin", "b.bin", "deep/c.bin")


def recipe(**changes: object) -> Recipe:
    return recipes.parse({**RAW, **changes}, where="test")


def write(store: Store, stage: str = "etl", version: int = 1, of: Recipe | None = None) -> None:
    """Write a stage whose every file tells its version."""
    with store.write(stage, of or recipe(), DEVICE) as draft:
        for name in FILES:
            path = draft.folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(str(version).encode() * 2000)
        draft.rows = {"version": version}


def version_of(store: Store, stage: str = "etl") -> int:
    """Return the version of a stage after checking that all of it is of that version."""
    manifest = store.read(stage, recipe())
    for name in FILES:
        expected = str(manifest.rows["version"]).encode() * 2000
        assert (store.folder(stage) / name).read_bytes() == expected
    return manifest.rows["version"]


def left_over(store: Store) -> list[str]:
    return sorted(p.name for p in store.root.iterdir() if p.name not in ("etl", ".lock"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs" / "shop")


# ── writing and reading ─────────────────────────────────────────────────────────────────


def test_a_stage_is_read_as_it_was_written_and_replaced_whole(store: Store) -> None:
    write(store, version=1)
    assert version_of(store) == 1
    with store.write("etl", recipe(), DEVICE) as draft:
        assert version_of(store) == 1  # the old one stays in use meanwhile
        assert not list(draft.folder.iterdir())
        (draft.folder / "only.bin").write_bytes(b"2")
    assert [p.name for p in sorted(store.folder("etl").iterdir())] == ["manifest.json", "only.bin"]
    assert left_over(store) == []


def test_x07_the_manifest_tells_the_truth(store: Store) -> None:
    started = datetime.now(timezone.utc).replace(microsecond=0)
    with store.write("etl", recipe(), DEVICE) as draft:
        (draft.folder / "x").mkdir()
        (draft.folder / "x" / "y.bin").write_bytes(b"abc")
        draft.rows, draft.metrics = {"train": 3}, {"recall@10": 0.5}
    told = json.loads((store.folder("etl") / "manifest.json").read_text(encoding="utf-8"))
    assert told["stage"] == "etl"
    assert (told["device"], told["device_why"]) == ("cpu", "asked for by a test")
    assert (told["rows"], told["metrics"]) == ({"train": 3}, {"recall@10": 0.5})
    # the digest of "abc" is in FIPS 180-2, appendix B.1
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert told["files"] == {"x/y.bin": {"bytes": 3, "sha256": digest}}
    assert started <= datetime.fromisoformat(told["created"]) <= datetime.now(timezone.utc)
    assert told["versions"]["numpy"] == metadata.version("numpy")
    assert told["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert recipes.parse(told["recipe"], where="") == recipe()
    assert told["recipe_hash"] == recipe().digest()
    assert told["inputs"] == {}


def test_a_run_of_another_version_is_told_to_run_again(store: Store) -> None:
    write(store)
    path = store.folder("etl") / "manifest.json"
    manifest = json.loads(path.read_bytes())
    manifest["recipe"]["model"]["history_decay"] = 10.0
    path.write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(StaleInput, match=r"etl was made by another version of this .*`two-tower e"):
        store.recipe("etl")


def test_inputs_are_named_by_their_digest(store: Store) -> None:
    write(store)
    write(store, "train")
    manifest = store.read("train", recipe())
    assert manifest.inputs == {"etl": store.read("etl", recipe()).digest}
    assert store.digest("etl") == manifest.inputs["etl"]
    assert store.recipe("train") == recipe()


def test_the_digest_knows_content_and_not_the_hour(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(store, version=1)
    first = store.digest("etl")
    monkeypatch.setattr("workflows.stages.manifest.versions", lambda: {"python": "another"})
    time.sleep(1.1)  # `created` counts seconds
    write(store, version=1)
    assert store.digest("etl") == first
    write(store, version=2)
    assert store.digest("etl") != first


def test_every_stage_reads_known_parts_and_earlier_stages() -> None:
    stages = list(PARTS)
    assert list(INPUTS) == stages
    for number, stage in enumerate(stages):
        assert recipe().digest(*PARTS[stage])  # refuses a part that is none
        assert set(INPUTS[stage]) <= set(stages[:number])


def fields_of_no_stage(parts: Mapping[str, tuple[str, ...]]) -> set[str]:
    """Return the fields of a recipe that no stage reads, so that changing one makes none stale."""
    listed = {part for stage in parts.values() for part in stage}

    def walk(block: msgspec.Struct, above: str) -> Iterator[str]:
        for field in msgspec.structs.fields(block):
            name = above + field.name
            if name in listed:
                continue
            if any(part.startswith(f"{name}.") for part in listed):
                yield from walk(getattr(block, field.name), f"{name}.")
            else:
                yield name

    return set(walk(recipe(), ""))


def test_every_field_of_a_recipe_belongs_to_a_stage_that_its_change_makes_stale() -> None:
    # raw files that were fetched are read as `sources` say; where a fit is recorded changes no fit
    assert fields_of_no_stage(PARTS) == {"fetch", "tracking"}
    # the walk sees what is forgotten, in a block that is listed field by field, too
    forgetful = {**PARTS, "index": (), "tune": ("tune.trials",)}
    missing = {"fetch", "tracking", "index", "tune.space"}
    assert fields_of_no_stage(forgetful) == missing


# ── failing blocks, full disks, other writers ───────────────────────────────────────────


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(1)])
def test_an_exception_leaves_the_old_stage_and_nothing_else(
    store: Store, error: BaseException
) -> None:
    def fail() -> None:
        with store.write("etl", recipe(), DEVICE) as draft:
            (draft.folder / "half.bin").write_bytes(b"half")
            raise error

    with pytest.raises(type(error)):
        fail()
    with pytest.raises(MissingStage):
        store.read("etl", recipe())
    write(store, version=1)
    with pytest.raises(type(error)):
        fail()
    assert version_of(store) == 1
    assert left_over(store) == []


@pytest.mark.parametrize(
    "write_file",
    [
        lambda path: path.write_bytes(b"x" * 100_000),
        lambda path: pq.write_table(pa.table({"x": list(range(100_000))}), path),
    ],
    ids=["python", "arrow"],
)
def test_no_space_is_explained_and_leaves_nothing(
    store: Store, write_file: Callable[[Path], None]
) -> None:
    write(store, version=1)

    def fill() -> None:
        with store.write("etl", recipe(), DEVICE) as draft:
            (draft.folder / "full.bin").symlink_to("/dev/full")  # the kernel's own ENOSPC
            write_file(draft.folder / "full.bin")

    with pytest.raises(
        StorageError,
        match=r"^Writing .* failed; no space is left on the device: free some, or choose another "
        r"--run\. Nothing half-written was kept\.$",
    ):
        fill()
    assert version_of(store) == 1
    assert left_over(store) == []
    write(store, version=2)
    assert version_of(store) == 2


def test_a_limit_on_file_size_is_explained(store: Store) -> None:
    write(store, version=1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        with pytest.raises(StorageError, match=r"larger than this process may write \(ulimit -f\)"):
            write(store, version=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert version_of(store) == 1
    assert left_over(store) == []


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.EACCES, "permission denied: choose a --run that you may write"),
        (errno.EROFS, "the file system is read-only: choose a --run that you may write"),
        (errno.EDQUOT, "the disk quota is used up: free some"),
    ],
)
def test_a_disk_that_refuses_is_explained(store: Store, number: int, text: str) -> None:
    file = str(store.root / "etl" / "file")
    with (
        pytest.raises(StorageError, match=f"^Writing {file} failed; {text}"),
        store.write("etl", recipe(), DEVICE),
    ):
        raise OSError(number, "refused", file)
    assert left_over(store) == []


def test_a_file_elsewhere_that_cannot_be_read_is_not_called_a_fault_of_writing(
    store: Store,
) -> None:
    with (
        pytest.raises(StorageError, match=r"^/raw/log.csv cannot be used: Input/output error\."),
        store.write("etl", recipe(), DEVICE),
    ):
        raise OSError(errno.EIO, os.strerror(errno.EIO), "/raw/log.csv")


def test_a_fault_of_the_system_that_nobody_foresaw_is_explained_too(store: Store) -> None:
    with (
        pytest.raises(StorageError, match=r"failed; odd: correct that, or choose another --run"),
        store.write("etl", recipe(), DEVICE),
    ):
        raise OSError(errno.ENOTUNIQ, "odd")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (RuntimeError("Error in fwrite: No space left on device"), "no space is left on the dev"),
        (shutil.Error([("a", "b", "[Errno 28] No space left on device")]), "no space is left on"),
        (RuntimeError("write_index: 118 != 504 (File too large)"), "larger than this process may"),
        (RuntimeError("read: Input/output error"), "the disk reports an error"),
    ],
)
def test_a_library_that_reports_a_full_disk_in_its_own_way_is_explained(
    store: Store, error: Exception, text: str
) -> None:
    with (
        pytest.raises(StorageError, match=text),
        store.write("etl", recipe(), DEVICE),
    ):
        raise error
    assert left_over(store) == []


def test_an_error_of_the_code_is_not_dressed_up(store: Store) -> None:
    with pytest.raises(RuntimeError, match="odd"), store.write("etl", recipe(), DEVICE):
        raise RuntimeError("odd")


def test_a_file_in_the_place_of_the_run_is_explained(store: Store) -> None:
    store.root.parent.mkdir()
    store.root.write_text("I am no folder")
    with pytest.raises(StorageError, match=rf"{store.root}.* a file stands in the way: remove it"):
        write(store)
    assert store.root.read_text() == "I am no folder"


def test_a_second_writer_is_refused_and_the_first_undisturbed(store: Store) -> None:
    other = Store(store.root)
    with store.write("etl", recipe(), DEVICE) as draft:
        (draft.folder / "x.bin").write_bytes(b"x")
        with pytest.raises(
            StorageError,
            match=rf"^Another process is writing {store.root}\. Wait for it, or choose another --",
        ):
            write(other)
    assert list(store.read("etl", recipe()).files) == ["x.bin"]
    write(other)  # the lock is free again
    assert version_of(store) == 1


def test_runs_do_not_lock_each_other(store: Store) -> None:
    with store.write("etl", recipe(), DEVICE):
        write(Store(store.root.parent / "other"), version=7)
    assert version_of(Store(store.root.parent / "other")) == 7


# ── what a reader refuses ───────────────────────────────────────────────────────────────


def test_a_missing_stage_names_the_command(store: Store) -> None:
    with pytest.raises(
        MissingStage,
        match=r"shop/etl is not there yet\. Run `two-tower etl` \(or `make etl`\) first",
    ):
        store.read("etl", recipe())
    with pytest.raises(MissingStage, match=r"shop/etl is not there yet"):
        write(store, "train")
    assert not store.root.exists()  # reading and refusing leave no trace


@pytest.mark.parametrize(
    ("change", "stale"),
    [
        ({"vocabulary": {"min_count": 2}}, ["etl"]),
        ({"split": {"kind": "random", "seed": 2}}, ["etl"]),
        ({"model": {"dim": 8}}, ["train"]),
        ({"train": {"epochs": 2}}, ["train"]),
        ({"evaluate": {"ks": [3]}}, ["train", "evaluate"]),
        ({"evaluate": {"bootstrap": 3}}, ["evaluate"]),
        ({"description": "other words", "name": "shop2"}, []),
    ],
)
def test_x07_a_changed_part_of_the_recipe_makes_the_stages_that_read_it_stale(
    store: Store, change: dict[str, object], stale: list[str]
) -> None:
    stages = ("etl", "train", "evaluate")
    for stage in stages:
        write(store, stage)
    changed = recipe(**change)
    for stage in stages:
        if stage not in stale:
            assert store.read(stage, changed).stage == stage
            continue
        part = next(iter(change))
        with pytest.raises(
            StaleInput,
            match=rf"shop/{stage} was made from another recipe: {part}\.\w+ was .+ and is .+ now\. "
            rf"Run `two-tower {stage}` \(or `make {stage}`\) again",
        ):
            store.read(stage, changed)


def test_a_stage_made_from_an_earlier_input_is_stale(store: Store) -> None:
    write(store, version=1)
    write(store, "train")
    write(store, version=1)  # the same content again: nothing has changed
    assert store.read("train", recipe()).stage == "train"
    write(store, version=2)
    with pytest.raises(
        StaleInput,
        match=r"shop/train was made from an earlier etl stage than the one in .*shop/etl\. "
        r"Run `two-tower train`",
    ):
        store.read("train", recipe())
    with pytest.raises(StaleInput, match="earlier etl stage"):
        write(store, "evaluate")


def _change(folder: Path) -> None:
    (folder / "b.bin").write_bytes(b"9" * 2000)  # the same size


def _grow(folder: Path) -> None:
    (folder / "b.bin").write_bytes(b"1" * 2001)


def _remove(folder: Path) -> None:
    (folder / "deep" / "c.bin").unlink()


def _add(folder: Path) -> None:
    (folder / "deep" / "d.bin").write_bytes(b"")


def _break(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"stage": "etl"', encoding="utf-8")


def _empty(folder: Path) -> None:
    (folder / "manifest.json").write_text("{}", encoding="utf-8")


def _name_an_input(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    manifest["inputs"]["../../victim"] = "0" * 64
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def _unsign(folder: Path) -> None:
    (folder / "manifest.json").unlink()


@pytest.mark.parametrize(
    ("meddle", "message"),
    [
        (_change, r"etl/b\.bin is not the file that its manifest describes \(size or SHA-256"),
        (_grow, r"etl/b\.bin is not the file that its manifest describes"),
        (_remove, r"etl/deep/c\.bin is missing; the stage was changed by hand"),
        (_add, r"etl/deep/d\.bin is not in its manifest; the stage was changed by hand"),
        (_break, r"etl/manifest\.json cannot be read .*; the stage is half-written or damaged"),
        (_empty, r"etl/manifest\.json cannot be read \(Object missing required field `stage`"),
        (
            _name_an_input,
            r"etl was made from '\.\./\.\./victim'; expected nothing: the stage is dama",
        ),
        (_unsign, r"etl/manifest\.json cannot be read .*No such file"),
    ],
)
def test_a_meddled_stage_is_refused_with_the_file_and_the_command(
    store: Store, meddle: Callable[[Path], None], message: str
) -> None:
    write(store)
    meddle(store.folder("etl"))
    with pytest.raises(ArtifactError, match=message + r".*two-tower etl` .*again"):
        store.read("etl", recipe())
    with pytest.raises(ArtifactError, match=message):
        write(store, "train")
    write(store, version=3)  # and the command mends it
    assert version_of(store) == 3


def test_a_shallow_read_looks_at_sizes_alone(store: Store) -> None:
    write(store)
    _change(store.folder("etl"))
    assert store.read("etl", recipe(), deep=False).stage == "etl"
    _grow(store.folder("etl"))
    with pytest.raises(ArtifactError, match=r"b\.bin is not the file"):
        store.read("etl", recipe(), deep=False)


# ── kills ───────────────────────────────────────────────────────────────────────────────

#: Writes versions 1, 2, … and tells of each when it is in place. Audit hooks (PEP 578) fire before
#: every open, rename and removal below the run: there it dawdles, or kills itself at event `at`.
WRITER = """
import json, os, signal, sys, time
from pathlib import Path
from models.core import atomic
from workflows import recipe
from workflows.ground.device import Device
from workflows.stages.store import Store

root, first, at = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
raw, files = json.loads(sys.argv[4]), json.loads(sys.argv[5])
if sys.argv[6] == "no exchange":
    atomic.exchange = lambda first, second: False
seen = 0

def hook(event, arguments):
    global seen
    if event not in ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree"):
        return
    named = any(isinstance(a, (str, bytes)) and root in os.fsdecode(a) for a in arguments)
    if not named and event not in ("os.remove", "os.rmdir"):
        return  # rmtree names what it removes relative to a descriptor
    seen += 1
    if seen == at:
        os.kill(os.getpid(), signal.SIGKILL)
    if at < 0:
        time.sleep(0.001)

sys.addaudithook(hook)
print("ready", flush=True)
for version in range(first, first + (1 if at >= 0 else 10_000)):
    with Store(Path(root)).write("etl", recipe.parse(raw, where=""), Device("cpu", "")) as draft:
        for name in files:
            path = draft.folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(str(version).encode() * 2000)
        draft.rows = {"version": version}
    print(version, seen, flush=True)
"""


def writer(
    store: Store, first: int, at: int, file_system: str = "exchange"
) -> subprocess.Popen[str]:
    arguments = [str(store.root), str(first), str(at), json.dumps(RAW), json.dumps(FILES)]
    arguments.append(file_system)
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def scene(store: Store) -> frozenset[str]:
    """Return which of the three folders of the stage are there."""
    return (
        frozenset(p.name for p in store.root.glob("*etl*")) if store.root.exists() else frozenset()
    )


#: What may be seen after a kill: with the kernel's exchange there is a result at every moment.
SCENES = {
    "exchange": {frozenset({"etl"}), frozenset({"etl", ".etl.new"})},
    "no exchange": {
        frozenset({"etl"}),
        frozenset({"etl", ".etl.new"}),
        frozenset({".etl.new", ".etl.old"}),
        frozenset({"etl", ".etl.old"}),
    },
}


@pytest.mark.parametrize(
    "file_system", ["exchange", pytest.param("no exchange", marks=pytest.mark.quality)]
)
def test_a_kill_at_every_single_step_leaves_the_old_result_or_the_new(
    store: Store, file_system: str
) -> None:
    write(store, version=1)
    out, _ = writer(store, 2, 0, file_system).communicate()
    steps = int(out.split()[-1])
    assert version_of(store) == 2
    assert steps > 20
    scenes, versions = set(), set()
    for at in range(1, steps + 1):
        write(store, version=1)
        killed = writer(store, 2, at, file_system)
        killed.communicate()
        assert killed.returncode == -signal.SIGKILL, f"step {at} was not reached"
        scenes.add(scene(store))
        versions.add(version_of(store))  # it verifies every file, and raises if there is none
    assert versions == {1, 2}
    # the kills did land where it hurts: beside the old, between the renames, before the cleaning
    assert scenes == SCENES[file_system]
    write(store, version=9)
    assert version_of(store) == 9
    assert left_over(store) == []


@pytest.mark.quality
def test_kills_at_random_moments_leave_the_old_result_or_none(store: Store) -> None:
    rng = random.Random(20)
    done = 0  # the last version that is known to be in place
    for kill in range(20):
        with writer(store, done + 1, -1) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(rng.uniform(0, 0.2))
            process.kill()
            told = process.stdout.read().splitlines()
        assert process.returncode == -signal.SIGKILL
        if told:
            done = int(told[-1].split()[0])
        try:
            found = version_of(store)
        except MissingStage:
            found = 0
        # the last one told of, or the one that was in place before it could be told of
        assert found in (done, done + 1), f"kill {kill}: {found} after {done}"
        done = found + 1
        write(store, version=done)  # the next run succeeds and leaves nothing behind
        assert version_of(store) == done
        assert left_over(store) == []
    assert done > 20


def test_the_first_result_is_absent_until_it_is_whole(store: Store) -> None:
    process = writer(store, 1, 8)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert scene(store) == {".etl.new"}
    with pytest.raises(MissingStage, match="is not there yet"):
        store.read("etl", recipe())
    write(store, version=2)
    assert version_of(store) == 2


def test_a_reader_does_not_disturb_a_writer_between_its_renames(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(store, version=1)
    rename, refused = Path.rename, []

    def slow(path: Path, target: Path) -> Path:
        moved = rename(path, target)
        if path.name == "etl":  # the old one is aside, the new one not yet in place
            with pytest.raises(MissingStage):
                Store(store.root).read("etl", recipe())
            refused.append(scene(store))
        return moved

    monkeypatch.setattr(Path, "rename", slow)
    monkeypatch.setattr(atomic, "exchange", lambda first, second: False)
    write(store, version=2)
    assert refused == [{".etl.new", ".etl.old"}]
    assert version_of(store) == 2


def test_files_are_hashed_right_whatever_their_size(store: Store) -> None:
    sizes = [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1]
    with store.write("etl", recipe(), DEVICE) as draft:
        for size in sizes:
            (draft.folder / f"{size}.bin").write_bytes(b"z" * size)
    facts = store.read("etl", recipe()).files
    for size in sizes:
        assert facts[f"{size}.bin"].bytes == size
        assert facts[f"{size}.bin"].sha256 == hashlib.sha256(b"z" * size).hexdigest()
    assert re.fullmatch(r"[0-9a-f]{64}", store.digest("etl"))


# ── links, clocks, readers beside a writer ──────────────────────────────────────────────


def test_a_lock_that_is_a_link_is_refused_and_its_target_stays(store: Store) -> None:
    store.root.mkdir(parents=True)
    victim = store.root.parent / "victim"
    victim.write_text("precious")
    (store.root / ".lock").symlink_to(victim)
    with pytest.raises(StorageError, match=r"\.lock failed; it is a link, and links are not follo"):
        write(store)
    assert victim.read_text() == "precious"


def test_a_stage_that_is_a_link_is_written_again_and_its_target_stays(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = store.root.parent / "elsewhere"
    elsewhere.mkdir(parents=True)
    (elsewhere / "theirs").write_text("theirs")
    store.root.mkdir(parents=True)
    store.folder("etl").symlink_to(elsewhere)
    for version in (1, 2):
        write(store, version=version)
        assert version_of(store) == version
    assert [p.name for p in elsewhere.iterdir()] == ["theirs"]
    assert sum("was a link to" in message for message in caplog.messages) == 1
    assert left_over(store) == []


def test_a_manifest_that_is_a_pipe_is_refused_and_not_waited_for(store: Store) -> None:
    write(store)
    manifest = store.folder("etl") / "manifest.json"
    manifest.unlink()
    os.mkfifo(manifest)
    with pytest.raises(ArtifactError, match="no regular one"):
        store.read("etl", recipe())


def test_the_same_work_at_another_speed_has_the_same_digest(store: Store) -> None:
    digests = []
    for seconds in ("1.5", "2.5"):
        with store.write("etl", recipe(), DEVICE) as draft:
            (draft.folder / "data").write_text("same")
            (draft.folder / "times.json").write_text(seconds)
        digests.append(store.digest("etl"))
    assert digests[0] == digests[1]
    (store.folder("etl") / "times.json").write_text("tampered")
    with pytest.raises(ArtifactError, match=r"times\.json is not the file"):
        store.read("etl", recipe())
    with store.write("etl", recipe(), DEVICE) as draft:
        (draft.folder / "data").write_text("another")
    assert store.digest("etl") != digests[0]


def test_a_verb_signs_the_inputs_that_it_read(store: Store) -> None:
    """While a stage is written, no other process can replace what it reads."""
    write(store)
    with store.write("train", recipe(), DEVICE):
        read = store.digest("etl")
        with pytest.raises(StorageError, match="Another process is writing"):
            write(Store(store.root), version=2)
    assert store.read("train", recipe()).inputs == {"etl": read}


def test_a_reader_that_meets_two_states_reads_again(store: Store) -> None:
    write(store, version=1)
    attempts: list[int] = []

    def read() -> tuple[int, int]:
        attempts.append(len(attempts))
        first = version_of(store)
        if len(attempts) == 1:
            write(store, version=2)
        return first, version_of(store)

    assert store.read_consistently(["etl"], read) == (2, 2)  # never (1, 2)
    assert len(attempts) == 2


def test_a_reader_whose_files_go_away_reads_again_but_a_fault_of_its_own_is_told(
    store: Store,
) -> None:
    write(store, version=1)
    attempts: list[int] = []

    def read() -> int:
        attempts.append(len(attempts))
        if len(attempts) == 1:
            write(store, version=2)
            raise FileNotFoundError("it was there a moment ago")
        return version_of(store)

    assert store.read_consistently(["etl"], read) == 2
    with pytest.raises(FileNotFoundError, match="mine"):
        store.read_consistently(["etl"], lambda: (_ for _ in ()).throw(FileNotFoundError("mine")))


def test_a_reader_beside_a_writer_that_never_rests_is_told_so(store: Store) -> None:
    with pytest.raises(StaleInput, match="written again and again while it was being read"):
        store.read_consistently(["etl"], lambda: write(store))


@pytest.mark.parametrize("locks", ["ranges only", "none"])
def test_a_file_system_without_flock_can_be_written(
    store: Store, locks: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuses(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuses)
    if locks == "none":
        monkeypatch.setattr("fcntl.lockf", refuses)
    write(store)
    assert version_of(store) == 1
    warned = [m for m in caplog.messages if "has no locks" in m]
    assert len(warned) == (locks == "none")
