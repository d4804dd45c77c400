"""sample: all files or none, the same bytes for the same seed, and nobody else's folder."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

import samples
from samples import hm, learning_marks, mini_batch_auc, sample
from workflows.ground.errors import DataError, RecipeError, StorageError

NAMES = ["aliccp", "babyshop", "hm", "hm-joined", "rees46"]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_decides_every_byte(name: str, tmp_path: Path) -> None:
    state = np.random.get_state()[1].copy()  # noqa: NPY002 nobody may touch the global rng
    first, again, other = (tmp_path / part for part in ("first", "again", "other"))
    result = sample(name, "tiny", first, seed=7)
    sample(name, "tiny", again, seed=7)
    sample(name, "tiny", other, seed=8)
    assert contents(first) == contents(again)
    assert {n for n, of in contents(first).items() if of == contents(other)[n]} == set()
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002
    label = json.loads((first / "sample.json").read_text())
    assert [f.name for f in result.files] == [*label["rows"]]
    assert {*(f.name for f in result.files), "sample.json", "truth.parquet"} == set(contents(first))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again", "first", "other"]


@pytest.mark.parametrize("name", NAMES)
def test_who_knows_it_all_beats_who_knows_what_is_popular(name: str, tmp_path: Path) -> None:
    sample(name, "tiny", tmp_path / "raw")
    marks = learning_marks(tmp_path / "raw", k=5)
    assert marks.popularity < marks.oracle
    assert marks.rows > 20
    popularity, oracle = mini_batch_auc(tmp_path / "raw")
    assert popularity < oracle


def test_the_result_says_what_was_written(tmp_path: Path) -> None:
    result = sample("hm", "tiny", tmp_path / "not" / "there" / "yet", seed=3)
    assert (result.name, result.size, result.seed) == ("hm", "tiny", 3)
    assert result.folder == tmp_path / "not" / "there" / "yet"
    assert [tuple(f) for f in result.files] == [
        ("transactions_train.csv", 900),
        ("articles.csv", 90),
        ("customers.csv", 80),
    ]
    assert result.seconds > 0
    assert json.loads((result.folder / "sample.json").read_text()) == {
        "name": "hm",
        "size": "tiny",
        "seed": 3,
        "rows": {"transactions_train.csv": 900, "articles.csv": 90, "customers.csv": 80},
    }


def test_a_sample_replaces_a_sample(tmp_path: Path) -> None:
    sample("aliccp", "tiny", tmp_path / "raw")
    sample("hm", "tiny", tmp_path / "raw")
    (tmp_path / "empty").mkdir()
    sample("hm", "tiny", tmp_path / "empty")
    assert contents(tmp_path / "raw") == contents(tmp_path / "empty")
    assert sorted(p.name for p in (tmp_path / "raw").iterdir()) == [
        *("articles.csv", "customers.csv", "sample.json", "transactions_train.csv"),
        "truth.parquet",
    ]


def test_the_real_data_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "articles.csv").write_text("the real ones")
    with pytest.raises(
        StorageError,
        match=rf"^{tmp_path} holds 'articles\.csv', which no sample wrote there, so it is not "
        r"overwritten\. Choose another folder, or move the file away\.$",
    ):
        sample("hm", "tiny", tmp_path)
    assert contents(tmp_path) == {"articles.csv": b"the real ones"}


@pytest.mark.parametrize("what", ["file", "link"])
def test_what_was_put_beside_a_sample_is_not_lost(what: str, tmp_path: Path) -> None:
    raw = sample("hm", "tiny", tmp_path / "raw").folder
    (raw / "deep").mkdir()
    if what == "file":
        (raw / "deep" / "notes.txt").write_text("mine")
    else:
        (raw / "deep" / "notes.txt").symlink_to(tmp_path)
    before = contents(raw)
    with pytest.raises(StorageError, match=r"raw holds 'deep/notes\.txt', which no sample wrote"):
        sample("hm", "tiny", raw, seed=2)
    assert contents(raw) == before


def test_a_file_in_the_place_of_the_folder_stays(tmp_path: Path) -> None:
    (tmp_path / "raw").write_text("mine")
    with pytest.raises(StorageError, match=rf"^{tmp_path}/raw is a file\. Choose another folder"):
        sample("hm", "tiny", tmp_path / "raw")
    assert (tmp_path / "raw").read_text() == "mine"


def fail_at(error: BaseException) -> Any:
    def write_users(*_: object) -> None:
        raise error

    return write_users


def test_a_full_disk_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hm, "_write_users", fail_at(OSError(errno.ENOSPC, "No space left")))
    with pytest.raises(
        StorageError,
        match=rf"^Writing {tmp_path}/raw failed: No space left\. Make room, permit writing there, "
        r"or choose another folder\. Nothing half-written was kept\.$",
    ):
        sample("hm", "tiny", tmp_path / "raw")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_keeps_the_earlier_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample("hm", "tiny", tmp_path / "raw")
    before = contents(tmp_path / "raw")
    monkeypatch.setattr(hm, "_write_users", fail_at(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        sample("hm", "tiny", tmp_path / "raw", seed=2)
    assert contents(tmp_path / "raw") == before
    assert [p.name for p in tmp_path.iterdir()] == ["raw"]


def test_what_a_kill_left_behind_is_mended(tmp_path: Path) -> None:
    kept = sample("hm", "tiny", tmp_path / ".raw.old").folder
    (kept / "notes.txt").write_text("mine")  # killed between the two renames
    (tmp_path / ".raw.new").mkdir()
    with pytest.raises(StorageError, match=r"raw holds 'notes\.txt'"):
        sample("hm", "tiny", tmp_path / "raw", seed=2)
    (tmp_path / "raw" / "notes.txt").unlink()
    sample("hm", "tiny", tmp_path / "raw", seed=2)
    assert [p.name for p in tmp_path.iterdir()] == ["raw"]


def test_an_unknown_name_is_told_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError,
        match=r"^There are no samples of 'babyshops' \(did you mean 'babyshop'\?\)\. There are of "
        r"aliccp, babyshop, hm, hm-joined, rees46\.$",
    ):
        sample("babyshops", "tiny", tmp_path / "raw")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_size_or_seed_is_refused(tmp_path: Path) -> None:
    sizes = r"^A sample has a size of tiny, small, large\. Received: 'huge'\.$"
    with pytest.raises(RecipeError, match=sizes):
        sample("hm", cast(Any, "huge"), tmp_path / "raw")
    with pytest.raises(RecipeError, match=r"^A sample has a seed of 0 or more\. Received: -1\.$"):
        sample("hm", "tiny", tmp_path / "raw", seed=-1)
    assert list(tmp_path.iterdir()) == []


def test_marks_of_other_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"^{tmp_path} has no sample\.json: it holds no sample"):
        learning_marks(tmp_path)


def test_seen_items_may_be_left_out(tmp_path: Path) -> None:
    sample("babyshop", "tiny", tmp_path / "raw")
    every = learning_marks(tmp_path / "raw", k=10)
    unseen = learning_marks(tmp_path / "raw", k=10, exclude_seen=True)
    assert unseen.oracle > every.oracle  # no pair is there twice
    assert unseen.rows == every.rows


def test_it_loads_no_heavy_package() -> None:
    heavy = ["tensorflow", "keras", "merlin", "dask", "distributed", "nvtabular"]
    script = f"import sys, samples; print(*sorted(set({heavy}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_large_is_as_large_as_the_real_files() -> None:
    assert hm.SIZES["large"] == hm.Counts(users=1_371_980, items=105_542, transactions=31_788_324)
    assert samples.babyshop.SIZES["large"].users == 87_795


@pytest.mark.parametrize("name", NAMES)
def test_large_takes_the_same_way(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = getattr(samples, name.replace("-", "_"))
    monkeypatch.setitem(module.SIZES, "large", module.SIZES["tiny"])
    sample(name, "large", tmp_path / "large")
    sample(name, "tiny", tmp_path / "tiny")
    large, tiny = contents(tmp_path / "large"), contents(tmp_path / "tiny")
    assert json.loads(large.pop("sample.json"))["size"] == "large"
    assert json.loads(tiny.pop("sample.json"))["size"] == "tiny"
    assert large == tiny
