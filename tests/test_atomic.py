from __future__ import annotations

import os
import resource
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from models.core import atomic


def filled(folder: Path, text: str) -> Path:
    (folder / "deep").mkdir(parents=True)
    for name in ("a", "deep/b"):
        (folder / name).write_text(text)
    return folder


def text_of(folder: Path) -> set[str]:
    return {path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(params=["exchange", "no exchange"])
def file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "no exchange":
        monkeypatch.setattr(atomic, "exchange", lambda first, second: False)
    return str(request.param)


# ── putting in place ────────────────────────────────────────────────────────────────────


def test_a_folder_takes_the_place_of_nothing_of_a_folder_of_a_file_and_of_a_link(
    tmp_path: Path, file_system: str
) -> None:
    elsewhere = filled(tmp_path / "elsewhere", "theirs")
    makers: list[Callable[[Path], object]] = [
        lambda final: None,
        lambda final: filled(final, "old"),
        lambda final: final.write_text("old"),
        lambda final: final.symlink_to(elsewhere),
        lambda final: final.symlink_to(tmp_path / "nowhere"),
    ]
    for number, make in enumerate(makers):
        final = tmp_path / f"stage{number}"
        make(final)
        atomic.put_in_place(filled(tmp_path / ".new", "new"), final)
        assert text_of(final) == {"new"}
        assert not final.is_symlink()
    assert text_of(elsewhere) == {"theirs"}  # a link is replaced, never followed
    assert {p.name for p in tmp_path.iterdir()} == {
        "elsewhere",
        *(f"stage{number}" for number in range(len(makers))),
    }


def test_the_kernel_here_knows_the_exchange(tmp_path: Path) -> None:
    first, second = filled(tmp_path / "first", "1"), filled(tmp_path / "second", "2")
    if not atomic.exchange(first, second):
        pytest.skip("this kernel or file system does not know RENAME_EXCHANGE")
    assert (text_of(first), text_of(second)) == ({"2"}, {"1"})


def test_everything_is_synced_before_it_is_shown_and_the_old_is_removed_last(
    tmp_path: Path, file_system: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Record what reaches the disk in which order; a power loss may come after any of them."""
    final = filled(tmp_path / "stage", "old")
    events: list[str] = []

    def synced(descriptor: int) -> None:
        events.append("sync " + str(Path(f"/proc/self/fd/{descriptor}").readlink()))

    monkeypatch.setattr(os, "fsync", synced)
    listening = True

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if listening and event in ("os.rename", "shutil.rmtree"):
            events.append(f"{event} {arguments[0]}")

    sys.addaudithook(hook)
    atomic.put_in_place(filled(tmp_path / ".new", "new"), final)
    listening = False
    new = str(tmp_path / ".new")
    shown = next(i for i, event in enumerate(events) if event == f"os.rename {new}")
    before = events[:shown]
    assert {f"sync {new}{name}" for name in ("/a", "/deep/b", "/deep", "")} <= set(before)
    assert before.index(f"sync {new}/deep/b") < before.index(f"sync {new}/deep")
    assert before.index(f"sync {new}/deep") < before.index(f"sync {new}")
    after = events[shown + 1 :]
    assert after[0] == f"sync {tmp_path}"
    assert [event.split()[0] for event in after[1:]] == ["shutil.rmtree"]


def test_a_failed_exchange_leaves_the_old_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    final = filled(tmp_path / "stage", "old")
    monkeypatch.setattr(atomic, "exchange", lambda first, second: False)
    rename = Path.rename

    def refuses(path: Path, target: Path) -> Path:
        if path.name == ".new":
            raise OSError(5, "refused")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuses)
    with pytest.raises(OSError, match="refused"):
        atomic.put_in_place(filled(tmp_path / ".new", "new"), final)
    assert text_of(final) == {"old"}


def test_new_folders_are_entries_of_their_parents_before_anything_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    monkeypatch.setattr(
        os, "fsync", lambda fd: synced.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
    )
    atomic.make_folders(tmp_path / "runs" / "mine")
    assert synced == [str(tmp_path), str(tmp_path / "runs")]
    atomic.make_folders(tmp_path / "runs" / "mine")
    assert len(synced) == 2
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        atomic.make_folders(tmp_path / "file")


def test_a_file_that_will_not_fit_is_refused_before_it_is_written(tmp_path: Path) -> None:
    path, limits = tmp_path / "weights", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"File too large.*weights"):
            atomic.require_room(path, 2000)
        atomic.require_room(path, 900)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not path.exists()


# ── small files, removal, links ─────────────────────────────────────────────────────────


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "fact.json"
    atomic.write_bytes(path, b"one")
    with pytest.raises(ZeroDivisionError):
        atomic.write_file(path, lambda file: file.write(b"tw" * (1 // 0)))
    assert path.read_bytes() == b"one"
    atomic.write_bytes(path, b"three")
    assert path.read_bytes() == b"three"
    assert list(tmp_path.iterdir()) == [path]


def test_removing_a_link_leaves_what_it_leads_to(tmp_path: Path) -> None:
    kept = filled(tmp_path / "kept", "kept")
    (tmp_path / "link").symlink_to(kept)
    inside = filled(tmp_path / "inside", "gone")
    (inside / "link").symlink_to(kept)
    for name in ("link", "inside", "nothing"):
        atomic.remove(tmp_path / name)
    assert text_of(kept) == {"kept"}
    assert list(tmp_path.iterdir()) == [kept]


def test_a_file_of_our_own_is_never_truncated_and_no_link_or_pipe(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "link").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        atomic.open_regular_file(tmp_path / "link")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        atomic.open_regular_file(tmp_path / "pipe")
    os.close(atomic.open_regular_file(victim))
    assert victim.read_text() == "precious"
    os.close(atomic.open_regular_file(tmp_path / "fresh"))
    assert stat.S_ISREG((tmp_path / "fresh").stat().st_mode)
