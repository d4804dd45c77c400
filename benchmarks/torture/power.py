"""Power loss, modelled: what a disk may hold after any step of a verb that writes.

A verb runs, and each of its syncs, renames, exchanges, links and removals is recorded with what the
files hold at that moment. POSIX promises no more than this: a file that was synced since it was
written is whole; the entries of a folder that was synced are there. All else may have reached the
disk or not, in any order, and a file that was not synced may be empty, half or zeros. For each
moment such disks are built, and a reader must find the old result whole, or the new one (Pillai et
al. 2014, "All File Systems Are Not Created Equal"; Zheng et al. 2014, "Torturing Databases").

The control runs the same without the syncs, and must find losses.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from forked import child
from judge import PATIENCE, ended_badly, left_over
from kills import VICTIMS, Victim, victims
from scene import Scene
from tally import Tally

#: Name → kind (folder, file, link) and number of what it stands for.
Entries = dict[str, tuple[str, int]]
_CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink")


@dataclass(frozen=True)
class Moment:
    """What may be on the disk if the power goes now.

    Attributes:
        event: that has just been recorded.
        folders: number → what its entries may be: since the last sync, oldest first.
        synced: number of a file → its content when it was synced.
        latest: number of a file or link → what it holds now, or held when it was removed.
    """

    event: str
    folders: dict[int, tuple[Entries, ...]]
    synced: dict[int, bytes]
    latest: dict[int, bytes]

    def build(self, place: Path, dice: random.Random | None, *, old: bool) -> None:
        """Write one of the disks that are allowed.

        Args:
            place: where to; it becomes the root.
            dice: draws which one; None for an extreme one.
            old: of the extreme ones: no folder that was not synced has changed, or all have.
        """
        self._build_folder(0, place, dice, old=old)

    def _build_folder(
        self, number: int, place: Path, dice: random.Random | None, *, old: bool
    ) -> None:
        place.mkdir(parents=True)
        versions = self.folders[number]
        entries = dice.choice(versions) if dice else versions[0 if old else -1]
        for name, (kind, entry) in entries.items():
            if kind == "folder":
                self._build_folder(entry, place / name, dice, old=old)
            elif kind == "link":
                (place / name).symlink_to(os.fsdecode(self.latest[entry]))
            else:
                (place / name).write_bytes(self._content(entry, dice))

    def _content(self, number: int, dice: random.Random | None) -> bytes:
        latest, synced = self.latest[number], self.synced.get(number)
        if synced == latest:
            return latest
        if dice is None:
            return synced or b""
        return dice.choice(
            [synced or b"", b"", latest[: len(latest) // 2], bytes(len(latest)), latest]
        )


@dataclass
class Disk:
    """What is known of a tree while a verb writes it."""

    root: Path
    moments: list[Moment] = field(default_factory=list)
    folders: dict[int, tuple[Entries, ...]] = field(default_factory=dict)
    synced: dict[int, bytes] = field(default_factory=dict)
    latest: dict[int, bytes] = field(default_factory=dict)
    numbers: dict[int, int] = field(default_factory=dict)  # of inodes that are in use
    lock: threading.RLock = field(default_factory=threading.RLock)

    def begin(self) -> None:
        """Take what is there for synced."""
        self._look()
        self.folders = {number: versions[-1:] for number, versions in self.folders.items()}
        self.synced = dict(self.latest)

    def note(self, event: str, synced: int | None = None) -> None:
        """Record a moment; `synced` is the inode that has just been synced."""
        with self.lock:
            self._look()
            number = self.numbers.get(synced) if synced is not None else None
            if number is not None and number in self.folders:
                self.folders[number] = self.folders[number][-1:]
            elif number is not None:
                self.synced[number] = self.latest[number]
            self.moments.append(
                Moment(event, dict(self.folders), dict(self.synced), dict(self.latest))
            )

    def _look(self) -> None:
        """See what is there now, and forget other inodes: a new file may get the number of one."""
        met: dict[int, int] = {}
        self._look_into(self.root, self._number(self.root.stat().st_ino, met), met)
        self.numbers = met

    def _number(self, inode: int, met: dict[int, int]) -> int:
        if inode not in met:
            known = self.numbers.get(inode)
            fresh = len(self.folders) + len(self.latest)
            met[inode] = fresh if known is None else known
        return met[inode]

    def _look_into(self, place: Path, number: int, met: dict[int, int]) -> None:
        self.folders.setdefault(number, ({},))
        entries: Entries = {}
        for path in sorted(place.iterdir()):
            try:
                inode = path.lstat().st_ino
                entry = self._number(inode, met)
                if path.is_symlink():
                    entries[path.name] = ("link", entry)
                    self.latest[entry] = os.fsencode(path.readlink())
                elif path.is_dir():
                    entries[path.name] = ("folder", entry)
                    self._look_into(path, entry, met)
                else:
                    entries[path.name] = ("file", entry)
                    self.latest[entry] = path.read_bytes()
            except FileNotFoundError:  # another thread of the verb has removed it
                continue
        if entries != self.folders[number][-1]:
            self.folders[number] = (*self.folders[number], entries)


@contextmanager
def recorded(disk: Disk) -> Iterator[None]:
    """Record what this process does to a tree. For a process that ends soon: hooks stay."""
    sync, listening, inside = os.fsync, True, threading.local()

    def fsync(descriptor: int) -> None:
        sync(descriptor)
        disk.note(
            f"sync of {Path('/proc/self/fd', str(descriptor)).readlink()}",
            os.fstat(descriptor).st_ino,
        )

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if not listening or getattr(inside, "now", False) or not _changes(event, arguments, disk):
            return
        inside.now = True
        try:
            disk.note(f"{event} {arguments[0]!s}")
        finally:
            inside.now = False

    disk.begin()
    sys.addaudithook(hook)
    os.fsync = fsync
    try:
        yield
    finally:
        listening, os.fsync = False, sync
        disk.note("the end")


def _changes(event: str, arguments: tuple[object, ...], disk: Disk) -> bool:
    if event == "open" and isinstance(arguments[0], str) and isinstance(arguments[2], int):
        writes = arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        return bool(writes) and Path(arguments[0]).absolute().is_relative_to(disk.root)
    return event in _CHANGES


def run(n: int, seed: int, folder: Path, scene: Scene) -> Tally:
    """Look at `n` disks that a power loss may leave, of all verbs, with and without an exchange."""
    tally = Tally("power loss")
    kinds = [(victim, exchange) for exchange in (True, False) for victim in victims(n)]
    kinds = kinds if n >= 20 else [kinds[0], kinds[-1]]
    for number, (victim, exchange) in enumerate(kinds):
        share = n // len(kinds) + (number < n % len(kinds))
        own = scene.branch(folder / f"{victim.verb}-{exchange}", *victim.stages)
        _lose_power(victim, share, seed + number, own, tally, exchange=exchange)
    control = Tally("control", is_control=True)
    own = scene.branch(folder / "control", *VICTIMS[0].stages)
    _lose_power(VICTIMS[0], max(10, n // 20), seed, own, control, exchange=True, syncs=False)
    found = f"{len(control.losses)} losses of {control.tried} without syncs"
    tally.count("control", [] if control.losses else ["without syncs nothing is lost"], found)
    return tally.finished()


def _lose_power(
    victim: Victim,
    n: int,
    seed: int,
    scene: Scene,
    tally: Tally,
    *,
    exchange: bool,
    syncs: bool = True,
) -> None:
    """Record a verb, build disks, and judge them."""
    known = []
    for turn in (1, 0):
        if faults := ended_badly(scene.call(victim.verb, *victim.turns[turn]), 0):
            tally.count(f"{victim.verb} before any power loss", faults)
            return
        known = [victim.held(scene.run), *known]
    states = scene.folder / "states"

    def write() -> None:
        from models.core import atomic

        if not exchange:
            atomic.exchange = lambda first, second: False
        if not syncs:
            atomic.sync_tree = atomic.sync_folder = lambda path: None
        disk = Disk(scene.run)
        with recorded(disk):
            _call(scene.words(victim.verb, *victim.turns[1]))
        print("cases:" + json.dumps(_built(disk.moments, n, random.Random(seed), states)))

    ended = child(write, folder=scene.folder, seconds=300)
    if faults := ended_badly(ended, 0):
        tally.count(f"{victim.verb} while it is recorded", faults)
        return
    how = f"{victim.verb}{'' if exchange else ' without exchange'}"
    for number, event in enumerate(json.loads(ended.out.rpartition("cases:")[2])):
        state = Scene(states / str(number))
        shutil.copytree(scene.folder / "raw", state.folder / "raw")
        faults = _judged(victim, state, known)
        if number % 8 == 0 and not faults:
            faults = _goes_on(victim, state, known)
        tally.count(f"{how}, power lost after {event}", faults, how)
        if not faults:
            shutil.rmtree(state.folder)


def _call(words: list[str]) -> None:
    from workflows import cli

    sys.argv = ["two-tower", *words]
    try:
        cli.main()
    except SystemExit as ended:
        if ended.code:
            raise


def _built(moments: list[Moment], n: int, dice: random.Random, states: Path) -> list[str]:
    """Write `n` disks of moments that are drawn; return the event before each."""
    chosen = [dice.choice(moments) for _ in range(n)]
    for number, moment in enumerate(chosen):
        draws = random.Random(dice.random()) if number % 3 == 2 else None
        moment.build(states / str(number) / "run", draws, old=number % 3 == 0)
    return [moment.event for moment in chosen]


def _judged(victim: Victim, scene: Scene, known: list[str]) -> list[str]:
    """Return what is wrong with what a reader of ours finds."""

    def read() -> None:
        from models.core import atomic
        from workflows.stages.store import Store

        store = Store(scene.run)
        if victim.verb == "load":
            atomic.recover(scene.run / "opensearch")
        else:
            store.read(victim.verb, store.recipe(victim.verb))

    ended = child(read, folder=scene.folder, seconds=PATIENCE)
    if ended.code:
        return [f"cannot be read: {ended.err.strip().splitlines()[-1][:300]}"]
    if victim.held(scene.run) not in known:
        return ["neither the old result nor the new one is there"]
    return []


def _goes_on(victim: Victim, scene: Scene, known: list[str]) -> list[str]:
    """Return what is wrong with the next run."""
    after = scene.call(victim.verb, *victim.turns[1])
    faults = ended_badly(after, 0) + left_over(scene.folder)
    if victim.held(scene.run) != known[1]:
        faults.append("another result")
    return [f"next run: {fault}" for fault in faults]
