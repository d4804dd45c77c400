"""Open the raw files of a source of the recipe, and choose the columns to read from each file."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from workflows.etl.memory import Memory
from workflows.etl.read import aliccp, partitioned
from workflows.etl.read.aliccp import SkeletonFile
from workflows.etl.read.cells import WEIGHT
from workflows.etl.read.explode import ExplodedFile
from workflows.etl.read.file_job import FileJob, RawFile
from workflows.etl.read.partitioned import PartitionedFile
from workflows.ground.errors import DataError
from workflows.read import files
from workflows.read.jsonlines import JsonLinesFile
from workflows.read.opening import open_file
from workflows.read.streams import is_packed
from workflows.read.text import TextFile
from workflows.recipe import Feature, Recipe, Source
from workflows.recipe.text import nearest_name

log = logging.getLogger(__name__)

#: Patterns of dates and numbers: a file's header with such names looks like a row of data.
_DATE = re.compile(r"\d{4}-\d\d?-\d\d?([T ].*)?|\d\d?[./]\d\d?[./]\d{4}.*")
_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?")
#: How many times as many rows a packed text file has as its bytes would have unpacked.
_UNPACKED = 4


class SourceFiles:
    """The raw files of one source of the recipe; all of them exist and have the wanted columns.

    Attributes:
        columns: all columns of the source's files, by their names in the recipe.
        files: the files that have rows.
        shared: the files of common features that `common:` in the recipe names, for Ali-CCP.
    """

    def __init__(self, recipe: Recipe, name: str, folder: Path, block: int) -> None:
        self._name = name
        self._source = recipe.sources[name]
        self._recipe = _with_key_columns(recipe, self._source)
        self.shared = files.find(name, self._source.common or (), folder)
        paths = files.find(name, self._source.files, folder)
        self.files = self._with_rows(self._open(paths, folder, block))
        named = [self._recipe_names(file) for file in self.files]
        self.columns = list(dict.fromkeys(column for names in named for column in names))
        self._wanted = [
            self._choose(file, names) for file, names in zip(self.files, named, strict=True)
        ]
        self._refuse_unlike()

    @property
    def _raw_names(self) -> dict[str, str]:
        """Return the columns that the recipe renames: name in the recipe → name in the files."""
        return {new: old for old, new in self._source.rename.items()}

    def _open(self, paths: Sequence[Path], folder: Path, block: int) -> list[RawFile]:
        back = self._raw_names
        named = [back.get(name, name) for name in self._recipe.features]
        if self._source.format == "aliccp":
            listed = [back.get(name, name) for name in _lists(self._recipe)]
            common = aliccp.read_common(self.shared, named, block)
            return [SkeletonFile(path, common, listed, block) for path in paths]
        found: list[RawFile] = []
        for path in paths:
            file = open_file(path, self._source, block=block, named=named)
            in_path = partitioned.path_columns(path, folder)
            more = {key: value for key, value in in_path.items() if key not in file.names}
            found.append(PartitionedFile(file, more) if more else file)
        return _unify_json_columns(found)

    def _with_rows(self, found: list[RawFile]) -> list[RawFile]:
        """Return the files that have rows, with the recipe's `explode:` applied.

        Raises:
            DataError: no file has rows.
        """
        empty = [file for file in found if file.is_empty]
        if len(empty) == len(found):
            raise files.no_rows_error(found[0].path, is_empty=not found[0].names)
        if empty:
            log.warning(
                "source %r: %d of %d files have no rows and are skipped: %s",
                self._name, len(empty), len(found), ", ".join(str(file.path) for file in empty),
            )  # fmt: skip
        kept = [file for file in found if file not in empty]
        if not self._source.explode:
            return kept
        columns = [self._raw_names.get(name, name) for name in self._source.explode]
        return [ExplodedFile(file, columns, self._source.separator) for file in kept]

    def _recipe_names(self, file: RawFile) -> list[str]:
        """Return the names that a file's columns have in the recipe, after `rename:`."""
        for name in self._source.rename:
            if name not in file.names and not self._source.long:
                raise DataError(
                    f"{file.path} has no column {name!r}, which the source's `rename:` names"
                    f"{nearest_name(name, file.names)}. It has: {', '.join(file.names)}."
                )
        return [self._source.rename.get(name, name) for name in file.names]

    def _choose(self, file: RawFile, names: Sequence[str]) -> dict[str, str]:
        """Return the columns to read from a raw file: name in the recipe → name in the file."""
        raw = dict(zip(names, file.names, strict=True))
        keys = _key_columns(self._source)
        chosen = {
            name: raw[name]
            for name in self._recipe.features
            if name in raw and (not self._source.long or name in keys)
        }
        for name in _lists(self._recipe):
            weights = raw.get(name + WEIGHT, raw.get(name, "") + WEIGHT)
            if name in chosen and weights in file.lists:
                chosen.setdefault(name + WEIGHT, weights)
        for name in chosen:
            if names.count(name) > 1:
                raise DataError(
                    f"{file.path} has more than one column {name!r}, after `rename:`. Rename one "
                    "of them."
                )
        if not chosen:
            raise _no_columns_error(file.path, names)
        for name in keys:
            if name not in chosen:
                raise DataError(
                    f"{file.path} has no column {name!r}, which the source's `latest:` or `long:` "
                    f"names{nearest_name(name, names)}. It has: {', '.join(names)}."
                )
        self._refuse_lists(file, chosen)
        if file is self.files[0]:
            self._refuse_data_as_names(file, chosen)
        return chosen

    def _refuse_lists(self, file: RawFile, chosen: dict[str, str]) -> None:
        """Raise an error if a file has lists in a column that should have one value per row."""
        for name, raw in chosen.items():
            feature = self._recipe.features.get(name)
            if feature is None or raw not in file.lists or isinstance(file, SkeletonFile):
                continue
            if not feature.meaning.is_list:
                raise DataError(
                    f"{file.path}, column {name!r} holds lists, and the recipe expects single "
                    "values. If each value is a separate event, name the column in the source's "
                    f"`explode:`; if a list describes one thing, set features.{name}.kind to "
                    "categories."
                )

    def _refuse_data_as_names(self, file: RawFile, chosen: dict[str, str]) -> None:
        """Raise an error if the header of a file looks like a row of data."""
        inside: object = file
        while isinstance(inside, PartitionedFile | ExplodedFile):
            inside = inside.file
        if isinstance(inside, TextFile) and inside.has_header:
            self._refuse_data_in(inside, chosen)

    def _refuse_data_in(self, file: TextFile, chosen: dict[str, str]) -> None:
        if any(file.names == [str(n + first) for n in range(len(file.names))] for first in (0, 1)):
            return  # numbers as names, as pandas writes them for columns without names
        chosen = {name: raw for name, raw in chosen.items() if raw in file.names}
        repeated = file.names_among_values([raw for name, raw in chosen.items() if name != raw])
        for name, raw in chosen.items():
            feature = self._recipe.features.get(name)
            is_key = feature is not None and (feature.id or feature.role == "time")
            is_number = _NUMBER.fullmatch(raw)
            if _DATE.fullmatch(raw) or raw in repeated or (is_key and is_number):
                raise DataError(
                    f"{file.path}: the first row is read as the names of the columns, but looks "
                    f"like data: {', '.join(file.names)[:120]}. ({raw!r} is {name!r}.) This row "
                    "would be lost. List the names of all columns, in their order, in the "
                    "source's `columns:`, and leave `rename:` out."
                )

    def _refuse_unlike(self) -> None:
        """Raise an error unless every file of the source has all wanted columns."""
        every = dict.fromkeys(column for wanted in self._wanted for column in wanted)
        for file, wanted in zip(self.files, self._wanted, strict=True):
            for column in every:
                if column not in wanted:
                    raise DataError(
                        f"{file.path} has no column {column!r}, which another file of the same "
                        "source has. Make their headers alike, or list fewer `files:`."
                    )

    @property
    def width(self) -> int:
        """Estimated number of bytes of a row in memory."""
        return sum(self._cell_bytes(name) for name in self._wanted[0])

    def estimate_rows(self) -> int:
        """Estimate the number of rows from the beginnings and the sizes of the files alone.

        For packed files, `approximate_rows` is a lower bound, and lists that become rows are not
        counted from the blocks that are read, because their size is a setting.
        """
        rows = 0
        for file in self.files:
            if isinstance(file, ExplodedFile):
                rows += file.path.stat().st_size // max(1, self.width)
            else:
                is_text = not file.path.name.endswith("parquet") and is_packed(file.path)
                rows += file.approximate_rows * (_UNPACKED if is_text else 1)
        return rows

    def jobs(self, memory: Memory) -> list[FileJob]:
        """Return one job per raw file of the source, which reads the file's wanted columns."""
        return [
            FileJob(self._recipe, file, wanted, memory, self._source.nulls)
            for file, wanted in zip(self.files, self._wanted, strict=True)
        ]

    def refuse_more(self, memory: Memory) -> None:
        """Raise an error if the source as one table does not fit into memory.

        Raises:
            DataError: the estimated rows do not fit into memory.
        """
        rows = sum(file.approximate_rows for file in self.files)
        memory.refuse(f"source {self._name!r}", rows, self.width)

    def _cell_bytes(self, name: str) -> int:
        feature = self._recipe.features.get(name)
        if feature is None:
            return 4
        return 8 if name in self._recipe.compared else feature.meaning.cell_bytes(feature)


def _no_columns_error(path: Path, names: Sequence[str]) -> DataError:
    """Return the error for a raw file that has no column of the recipe."""
    found = [text for text in ("::", ";", "\t", "|", ",") if len(names) < 2 and text in names[0]]
    shown = ", ".join(name if len(name) <= 200 else name[:200] + " …" for name in names[:100])
    if len(names) > 100:
        shown += f" and {len(names) - 100:,} more"
    guess = f" The delimiter seems to be {found[0]!r}." if found else ""
    return DataError(
        f"{path} has none of the columns that the recipe names; it has: {shown}. If "
        "these are names, set the source's `rename:`, or its `delimiter:` or `format:`. If they "
        "are the cells of a row of data, the file has no header: list the columns in the source's "
        f"`columns:`, so that no row is lost.{guess}"
    )


def _unify_json_columns(found: list[RawFile]) -> list[RawFile]:
    """Give each JSON lines file of a source the columns of all its files: lines may lack keys."""
    objects = [file for file in found if isinstance(file, JsonLinesFile)]
    names = list(dict.fromkeys(name for file in objects for name in file.names))
    for file in objects:
        if file.names:
            file.names = names
        file.lists = frozenset().union(*(other.lists for other in objects))
    return found


def _key_columns(source: Source) -> list[str]:
    """Return the columns that a source's `latest:` or `long:` in the recipe names."""
    if source.latest:
        return [source.latest.id, source.latest.time]
    if source.long:
        long = source.long
        return [n for n in (long.id, long.property, long.value, long.time) if n]
    return []


def _with_key_columns(recipe: Recipe, source: Source) -> Recipe:
    """Return the recipe with features for the columns that only `latest:` or `long:` reads."""
    text = Feature(role="context", kind="label")
    keys = _key_columns(source)
    more = {n: text for n in keys if n not in recipe.features or n in _texts(source)}
    return msgspec.structs.replace(recipe, features={**recipe.features, **more})


def _texts(source: Source) -> tuple[str, ...]:
    """Return the columns of a source that are text even if a feature of that name is not."""
    return (source.long.property, source.long.value) if source.long else ()


def _lists(recipe: Recipe) -> list[str]:
    """Return the features that are lists of categories or ids, whose values may have weights."""
    features = recipe.features.items()
    return [name for name, f in features if f.meaning.is_list and f.meaning.has_codes]
