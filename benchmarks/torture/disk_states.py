"""States of the disk that a power loss may leave, computed from recorded operations.

POSIX guarantees only this: content that was written to a file before its sync is on the disk, and
so are the entries that a folder had at its sync. Everything else may be on the disk or not.
Journalling file systems keep the order of changes of folders, others do not; the content of a file
may be that of its last sync, cut, full of zeros, or partly written (Pillai et al. 2014, "All File
Systems Are Not Created Equal"). A rename is atomic on all of them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from recorder import Kind, Operation

_EXCHANGE = 2
#: Folder → name → node.
Entries = dict[int, dict[str, int]]


class Missed(Exception):
    """A change of the disk was not recorded; the message says which."""


@dataclass(frozen=True)
class Entry:
    """An atomic change of entries of folders; the new entry is the last.

    Attributes:
        values: folder, name, and the node of the name afterwards (None if it is removed).
    """

    values: tuple[tuple[int, str, int | None], ...]

    @property
    def node(self) -> int:
        """The folder whose sync makes the change durable: that of the new entry."""
        return self.values[-1][0]

    def apply(self, to: Entries) -> None:
        """Change the entries of folders."""
        for folder, name, node in self.values:
            of = to.setdefault(folder, {})
            if node is None:
                of.pop(name, None)
            else:
                of[name] = node


@dataclass(frozen=True)
class Content:
    """A change of the content of a file: bytes at an offset, or (without bytes) a new size.

    Attributes:
        node: the file, whose sync makes the change durable.
        at: the offset, or the new size.
        data: the bytes; None for a new size.
    """

    node: int
    at: int
    data: bytes | None

    def apply(self, to: bytearray, *, zeros: bool = False, part: float = 1.0) -> None:
        """Change a content.

        Args:
            to: the content.
            zeros: only the size has reached the disk.
            part: share of the written bytes that has reached the disk.
        """
        if self.data is None:
            del to[self.at :]
            to.extend(bytes(max(0, self.at - len(to))))
            return
        data = self.data[: int(len(self.data) * part)]
        to.extend(bytes(max(0, self.at + len(data) - len(to))))
        to[self.at : self.at + len(data)] = bytes(len(data)) if zeros else data


#: Path → bytes of a file, target of a symbolic link, or None for a folder.
Tree = dict[str, bytes | str | None]

#: What has reached the disk besides the durable changes: nothing; all changes of folders, but no
#: content; these and the sizes of files; the first changes of folders and random content; random
#: changes of both.
WAYS = ("nothing", "entries", "sizes", "ordered", "any")


class History:
    """The changes below a folder, and the moment from which each of them is durable.

    Moment 0 is before the first operation; moment n is after the n-th operation.

    Args:
        root: the folder, as it is before the first operation; its content counts as durable.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.moments = ["the beginning"]  # the last operation at each moment
        self._changes: list[Entry | Content] = []
        self._durable: dict[int, int] = {}  # change → moment
        self._made: list[int] = []  # number of changes at each moment
        self._waiting: dict[int, list[int]] = {}  # node → changes that its sync completes
        self._files: dict[int, int] = {}  # inode → node
        self._targets: dict[int, str] = {}  # node → target of a symbolic link
        self._entries: Entries = {0: {}}
        self._contents: dict[int, bytearray] = {}
        self._n_nodes = 1
        self._take(root, 0)
        self._sync(set(self._waiting), 0)
        self._made.append(len(self._changes))

    def _take(self, place: Path, node: int) -> None:
        for path in sorted(place.iterdir()):
            if path.is_symlink():
                self._enter(node, path.name, self._link(str(path.readlink())))
            elif path.is_dir():
                self._enter(node, path.name, new := self._folder())
                self._take(path, new)
            else:
                self._enter(node, path.name, new := self._new_file(path.stat().st_ino))
                self._change(Content(new, 0, path.read_bytes()))

    # ── operations of processes ──────────────────────────────────────────────────────────────

    def add(self, operation: Operation) -> None:
        """Add an operation of a process.

        Raises:
            Missed: it contradicts the operations before.
        """
        moment, kind = len(self.moments), operation.kind
        if kind is Kind.OPEN:
            self._open(operation)
        elif kind in (Kind.WRITE, Kind.TRUNCATE):
            data = operation.data if kind is Kind.WRITE else None
            self._change(Content(self._file(operation), operation.number, data))
        elif kind is Kind.RENAME:
            self._rename(operation)
        elif kind is Kind.LINK:
            self._enter(*self._place(operation.second), self._node(operation.first))
        elif kind is Kind.SYMLINK:
            self._enter(*self._place(operation.second), self._link(operation.first))
        elif kind is Kind.REMOVE:
            self._enter(*self._place(operation.first), None)
        elif kind is Kind.MKDIR:
            self._enter(*self._place(operation.first), self._folder())
        elif kind is Kind.SYNC_ALL:
            self._sync(set(self._waiting), moment)
        else:
            self._sync({self._synced(operation)}, moment)
        self.moments.append(str(operation))
        self._made.append(len(self._changes))

    def _open(self, operation: Operation) -> None:
        folder, name = self._place(operation.first)
        node = self._entries[folder].get(name)
        if node is None:
            self._enter(folder, name, self._new_file(operation.inode))
        elif operation.number and self._contents[node]:
            self._change(Content(node, 0, None))

    def _rename(self, operation: Operation) -> None:
        (folder, name), new = self._place(operation.first), self._place(operation.second)
        other = self._entries[new[0]][new[1]] if operation.number & _EXCHANGE else None
        moved = self._node(operation.first)
        self._change(Entry(((folder, name, other), (*new, moved))))

    def _synced(self, operation: Operation) -> int:
        if operation.number:
            return self._node(operation.first)
        node = self._file(operation)
        if self._contents[node] != operation.data:
            raise Missed(f"{operation} finds bytes whose writing was not recorded")
        return node

    def _folder(self) -> int:
        node = self._new()
        self._entries[node] = {}
        return node

    def _new_file(self, inode: int) -> int:
        node = self._new()
        self._files[inode], self._contents[node] = node, bytearray()
        return node

    def _link(self, target: str) -> int:
        node = self._new()
        self._targets[node] = target
        return node

    def _new(self) -> int:
        self._n_nodes += 1
        return self._n_nodes - 1

    def _enter(self, folder: int, name: str, node: int | None) -> None:
        self._change(Entry(((folder, name, node),)))

    def _change(self, change: Entry | Content) -> None:
        number = len(self._changes)
        self._changes.append(change)
        self._waiting.setdefault(change.node, []).append(number)
        if isinstance(change, Content):
            change.apply(self._contents[change.node])
        else:
            change.apply(self._entries)

    def _sync(self, nodes: set[int], moment: int) -> None:
        for node in nodes:
            self._durable.update(dict.fromkeys(self._waiting.pop(node, ()), moment))

    def _file(self, operation: Operation) -> int:
        if operation.inode not in self._files:
            raise Missed(f"{operation}: the file was made by something that was not recorded")
        return self._files[operation.inode]

    def _place(self, path: str) -> tuple[int, str]:
        """Return the folder and the name of a path."""
        return self._node(str(Path(path).parent)), Path(path).name

    def _node(self, path: str) -> int:
        node = 0
        try:
            for name in Path(path).relative_to(self.root).parts:
                node = self._entries[node][name]
        except (KeyError, ValueError):
            raise Missed(f"{path} was made by something that was not recorded") from None
        return node

    def check(self) -> None:
        """Compare the real folder with the tree after all changes.

        Raises:
            Missed: they differ.
        """
        known, there = self._tree(self._entries, self._contents), _tree_at(self.root)
        for path in sorted({*known, *there}):
            if path not in known or path not in there or known[path] != there[path]:
                raise Missed(f"{self.root / path} was changed by something that was not recorded")

    # ── possible states of the disk ──────────────────────────────────────────────────────────

    def state(self, moment: int, way: str, rng: random.Random) -> Tree:
        """Return a tree that a power loss may leave.

        Args:
            moment: moment of the power loss.
            way: which changes have reached the disk, one of `WAYS`.
            rng: chooses the changes that have reached the disk, if the way leaves it open.
        """
        n = self._made[moment]
        last = rng.randint(0, n)
        entries: Entries = {0: {}}
        contents: dict[int, bytearray] = {}
        for number, change in enumerate(self._changes[:n]):
            is_durable = self._durable.get(number, moment + 1) <= moment
            if isinstance(change, Entry):
                kept = {"nothing": False, "ordered": number < last, "any": rng.random() < 0.5}
                if is_durable or kept.get(way, True):
                    change.apply(entries)
                continue
            content = contents.setdefault(change.node, bytearray())
            if is_durable:
                change.apply(content)
            elif way == "sizes":
                change.apply(content, zeros=True)
            elif way in ("ordered", "any") and rng.random() < 0.7:
                change.apply(content, zeros=rng.random() < 0.3, part=rng.choice([0.5, 1, 1]))
        return self._tree(entries, contents)

    def _tree(self, entries: Entries, contents: dict[int, bytearray]) -> Tree:
        tree: Tree = {}
        folders = [("", 0)]
        while folders:
            place, folder = folders.pop()
            for name, node in entries.get(folder, {}).items():
                path = f"{place}/{name}" if place else name
                if node in self._entries:
                    tree[path] = None
                    folders.append((path, node))
                else:
                    tree[path] = self._targets.get(node, bytes(contents.get(node, b"")))
        return tree


def _tree_at(root: Path) -> Tree:
    tree: Tree = {}
    for path in root.rglob("*"):
        name = str(path.relative_to(root))
        if path.is_symlink():
            tree[name] = str(path.readlink())
        else:
            tree[name] = None if path.is_dir() else path.read_bytes()
    return tree


def write(tree: Tree, place: Path) -> None:
    """Write a tree into a new folder."""
    place.mkdir(parents=True)
    for name, what in sorted(tree.items()):  # a folder comes before what is in it
        if what is None:
            (place / name).mkdir()
        elif isinstance(what, str):
            (place / name).symlink_to(what)
        else:
            (place / name).write_bytes(what)
