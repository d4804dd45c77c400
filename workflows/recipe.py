"""The only description of a data set: parsed once, frozen, unknown keys refused.

Schema, tags, the NVTabular graph, tables and signatures are derived from it. It holds data, never code.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import yaml
from msgspec import Meta

from models.config import (
    EvaluateConfig,
    LossConfig,
    NonNegative,
    OptimizerConfig,
    Part,
    Positive,
    Share,
    TrainConfig,
    TwoTowerConfig,
)
from workflows.errors import RecipeError

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


class Fetch(Part, frozen=True):
    """Raw files that lie inside a wheel of the package index, taken without installing it.

    Attributes:
        package: name and exact version, such as `recbole==1.2.1`.
        sha256: of the wheel.
        members: path inside the wheel → file name in the data folder.
    """

    package: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]+==[A-Za-z0-9_.]+$")]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
    members: dict[str, str]


class Source(Part, frozen=True):
    """A raw table.

    Attributes:
        files: one file name or glob, or several, in the data folder.
        format: by the file's ending where it is not given.
        rename: raw column name → name used in the rest of the recipe.
        nulls: texts that stand for "no value" (csv and tsv).
    """

    files: str | tuple[str, ...]
    format: Literal["csv", "tsv", "parquet"] | None = None
    rename: dict[str, str] = {}
    nulls: tuple[str, ...] = ("",)


class Join(Part, frozen=True):
    """Look up the columns of a user or item table by their id.

    Attributes:
        table: name of a source with one row an id.
        on: the id column, in both tables.
        on_missing: what becomes of an interaction whose id is not in the table.
    """

    table: str
    on: str
    on_missing: Literal["keep", "drop"] = "keep"


class PositiveRule(Part, frozen=True):
    """Which rows are positives: `column` compared with `value`."""

    column: str
    is_: Literal["==", "!=", ">=", ">", "<=", "<"] = msgspec.field(name="is")
    value: float | str


class LeaveLast(Part, frozen=True, tag_field="kind", tag="leave_last"):
    """Each user's last `test` rows, the `valid` rows before them, and the rest to train on."""

    valid: Positive = 1
    test: Positive = 1


class GlobalTime(Part, frozen=True, tag_field="kind", tag="time"):
    """One cut for all users: the last rows in time, as shares of all rows.

    A row belongs to train up to and including the time quantile 1 - valid - test.
    """

    valid: Share = 0.1
    test: Share = 0.1


class RandomRows(Part, frozen=True, tag_field="kind", tag="random"):
    """Rows drawn at random, as shares. It leaks the future; for comparison with papers."""

    valid: Share = 0.1
    test: Share = 0.1
    seed: NonNegative = 1


class ByUser(Part, frozen=True, tag_field="kind", tag="by_user"):
    """Users drawn at random, as shares: valid and test users are unknown in training."""

    valid: Share = 0.1
    test: Share = 0.1
    seed: NonNegative = 1


class GivenFiles(Part, frozen=True, tag_field="kind", tag="given"):
    """Sources that are already split; `interactions` names the training rows."""

    test: str
    valid: str | None = None


Split = LeaveLast | GlobalTime | RandomRows | ByUser | GivenFiles


class VocabularyRule(Part, frozen=True):
    """Which values of a column get a code of their own.

    Attributes:
        min_count: seen at least this often in training.
        max_values: only the most frequent ones.
        oov_buckets: codes that all other values share, by a hash.
    """

    min_count: Positive = 1
    max_values: Positive | None = None
    oov_buckets: Positive = 1


class Feature(Part, frozen=True):
    """What a column is.

    Attributes:
        role: whose it is; `context` belongs to the interaction and feeds the query tower;
            `time` orders the interactions.
        id: this is the user's or the item's id.
        kind: `category`, `categories` (a list), `number`, or `label` (kept to be read by people).
        separator: splits a text cell into `categories`; null where cells are lists already.
        null: what a missing `number` becomes; `error` refuses it.
        indicator: give a number a second input that says whether it was missing.
        input: feed it to its tower; an id that is no input still names its rows.
        vocabulary: rules that differ from the recipe's.
        unit: of a `time` that is a number.
    """

    role: Literal["user", "item", "context", "time"]
    id: bool = False
    kind: Literal["category", "categories", "number", "label"] = "category"
    separator: str | None = None
    null: Literal["error", "median", "mean"] | float = "error"
    indicator: bool = False
    input: bool = True
    vocabulary: VocabularyRule | None = None
    unit: Literal["s", "ms", "us", "ns"] = "s"

    def __post_init__(self) -> None:
        if self.id and (self.role not in ("user", "item") or self.kind != "category"):
            raise ValueError("an id has role user or item and kind category")
        if self.kind != "number" and (self.null != "error" or self.indicator):
            raise ValueError("null and indicator are for kind number")
        if self.kind != "categories" and self.separator is not None:
            raise ValueError("separator is for kind categories")

    @property
    def encoded(self) -> bool:
        """Whether the column gets codes from a vocabulary."""
        return self.role != "time" and self.kind in ("category", "categories")


class Recipe(Part, frozen=True):
    """A data set, how to split and encode it, and what to train on it.

    Attributes:
        name: default name of its runs.
        data: folder of the raw files, relative to the recipe's own folder.
        interactions: the source whose rows are interactions.
    """

    name: Name
    sources: dict[str, Source]
    interactions: str
    features: dict[str, Feature]
    split: Split
    description: str = ""
    data: str = "."
    fetch: Fetch | None = None
    join: tuple[Join, ...] = ()
    positive: PositiveRule | None = None
    vocabulary: VocabularyRule = VocabularyRule()
    model: TwoTowerConfig = TwoTowerConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

    def __post_init__(self) -> None:
        for role in ("user", "item"):
            ids = [n for n, f in self.features.items() if f.id and f.role == role]
            if len(ids) != 1:
                raise ValueError(
                    f"features need exactly one with role {role} and id: true, got {ids or 'none'}"
                )
        times = [n for n, f in self.features.items() if f.role == "time"]
        if len(times) > 1:
            raise ValueError(f"features may have one with role time, got {times}")
        if not times and isinstance(self.split, LeaveLast | GlobalTime):
            raise ValueError("this kind of split needs a feature with role time")
        named = [self.interactions, *(j.table for j in self.join)]
        if isinstance(self.split, GivenFiles):
            named += [s for s in (self.split.valid, self.split.test) if s]
        for source in named:
            if source not in self.sources:
                raise ValueError(
                    f"{source!r} is not one of the sources ({', '.join(self.sources)})"
                )
        for join in self.join:
            if join.on not in (self.user_id, self.item_id):
                raise ValueError(
                    f"join of {join.table!r} is on {join.on!r}; expected the user id "
                    f"{self.user_id!r} or the item id {self.item_id!r}"
                )

    def _id(self, role: str) -> str:
        return next(n for n, f in self.features.items() if f.id and f.role == role)

    @property
    def user_id(self) -> str:
        """Name of the user id column."""
        return self._id("user")

    @property
    def item_id(self) -> str:
        """Name of the item id column."""
        return self._id("item")

    @property
    def time(self) -> str | None:
        """Name of the time column."""
        return next((n for n, f in self.features.items() if f.role == "time"), None)

    def columns(self, *roles: str) -> list[str]:
        """Return the names of the features with these roles, in the recipe's order."""
        return [n for n, f in self.features.items() if f.role in roles]

    def vocabulary_rule(self, column: str) -> VocabularyRule:
        """Return the vocabulary rule of a column."""
        return self.features[column].vocabulary or self.vocabulary

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain data, defaults filled in."""
        return msgspec.to_builtins(self)

    def digest(self, *parts: str) -> str:
        """Return the SHA-256 of the named parts (of all, without names)."""
        every = self.to_dict()
        chosen = {part: every[part] for part in parts} if parts else every
        return hashlib.sha256(msgspec.json.encode(chosen, order="sorted")).hexdigest()


class _Loader(yaml.SafeLoader):
    """YAML 1.2 scalars: PyYAML alone reads 1e-3 as text, and `on`, `off`, `yes`, `no` as booleans."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own way
        first: [(tag, regexp) for tag, regexp in resolvers if not tag.endswith((":bool", ":float"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?((\d+\.\d*|\.\d+)([eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.(inf|Inf|nan|NaN))$"),
    list("-+.0123456789"),
)


def find(name: str) -> Path:
    """Return the file of a recipe given by path, or by name in `recipes/`.

    Raises:
        RecipeError: if there is none; it lists the names that exist.
    """
    if name.endswith((".yaml", ".yml")):
        if Path(name).is_file():
            return Path(name).resolve()
        raise RecipeError(f"There is no recipe file {name}. Working folder: {Path.cwd()}.")
    folders = [Path("recipes"), Path(__file__).parent.parent / "recipes"]
    for folder in folders:
        if (folder / f"{name}.yaml").is_file():
            return (folder / f"{name}.yaml").resolve()
    known = sorted({p.stem for folder in folders for p in folder.glob("*.yaml")})
    raise RecipeError(
        f"There is no recipe {name!r}; {_nearest(name, known)}known: {', '.join(known) or 'none'}. "
        "A recipe of your own is given by its path, ending in .yaml."
    )


def load(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read, override and check a recipe.

    Args:
        path: the YAML file.
        overrides: texts such as `train.epochs=3`; the value is YAML.

    Raises:
        RecipeError: names file, line, field, what was expected and what came.
    """
    try:
        text = path.read_text(encoding="utf-8")
        raw = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(
            f"{path} cannot be read as YAML: {' '.join(str(error).split())}"
        ) from None
    if not isinstance(raw, dict):
        raise RecipeError(f"{path}: expected a mapping of fields, got {type(raw).__name__}.")
    for override in overrides:
        _override(raw, override)
    return parse(raw, where=str(path), text=text)


def parse(raw: Mapping[str, Any], *, where: str, text: str = "") -> Recipe:
    """Check plain data against the recipe's types.

    Args:
        raw: what the YAML holds.
        where: its file, for error messages.
        text: its text, to find the line of a field.

    Raises:
        RecipeError: as `load`.
    """
    try:
        return msgspec.convert(raw, Recipe)
    except msgspec.ValidationError as error:
        raise RecipeError(_explain(str(error), raw, where, text)) from None


def _override(raw: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set {override!r}: expected key=value, such as train.epochs=3.")
    *parents, last = key.strip().split(".")
    at = raw
    for parent in parents:
        at = at.setdefault(parent, {})
        if not isinstance(at, dict):
            raise RecipeError(f"--set {override!r}: {parent!r} is a value, it has no fields.")
    try:
        at[last] = yaml.load(value, _Loader)  # noqa: S506
    except yaml.YAMLError as error:
        raise RecipeError(
            f"--set {override!r}: the value is not YAML: {' '.join(str(error).split())}"
        ) from None


def _explain(message: str, raw: Mapping[str, Any], where: str, text: str) -> str:
    """Turn msgspec's message into file, line, field, what is wrong and what would be right."""
    problem, _, location = message.partition(" - at `$")
    path = _name_the_keys(
        [p for p in re.split(r"[.\[\]`]+", location.replace("...", "*")) if p], raw
    )
    hint = ""
    if unknown := re.search(r"unknown field `(.+?)`", problem):
        known = _fields_at(path)
        path.append(unknown[1])
        hint = f" {_nearest(unknown[1], known)}Fields here: {', '.join(known)}."
    elif choices := _choices_at(path):
        hint = f" Expected one of: {', '.join(choices)}."
    line = _line_of(text, path)
    place = f"{where}{f', line {line}' if line else ''}, field {'.'.join(path) or '(top)'}"
    return f"{place}: {problem}.{hint}"


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {close[0]!r}? " if close else ""


def _name_the_keys(path: list[str], raw: Any) -> list[str]:
    """Put the key in the place of each `*`, where msgspec only says "some value of this mapping"."""
    named: list[str] = []
    for step in path:
        if step == "*" and isinstance(raw, Mapping):
            for key, value in raw.items():
                if _fails(value, _types_at([*named, step])):
                    step = str(key)
                    break
        named.append(step)
        if isinstance(raw, Mapping):
            raw = raw.get(step)
        elif isinstance(raw, list) and step.isdigit():
            raw = raw[int(step)]
    return named


def _fails(value: Any, types: Sequence[Any]) -> bool:
    classes = [t.cls for t in types if hasattr(t, "cls")]
    try:
        msgspec.convert(value, classes[0] if classes else Any)
    except msgspec.ValidationError:
        return True
    return False


def _types_at(path: Sequence[str]) -> list[Any]:
    """Return the types that a field at this path may have."""
    types: list[Any] = [msgspec.inspect.type_info(Recipe)]
    for step in path:
        found: list[Any] = []
        for kind in types:
            if isinstance(kind, msgspec.inspect.StructType):
                found += [f.type for f in kind.fields if f.encode_name == step]
            elif isinstance(kind, msgspec.inspect.DictType):
                found.append(kind.value_type)
            elif isinstance(kind, msgspec.inspect.VarTupleType):
                found.append(kind.item_type)
        types = [t for f in found for t in getattr(f, "types", (f,))]
    return types


def _fields_at(path: Sequence[str]) -> list[str]:
    names = [f.encode_name for t in _types_at(path) for f in getattr(t, "fields", ())]
    return list(dict.fromkeys(names))


def _choices_at(path: Sequence[str]) -> list[str]:
    """Return the literal values that a field may have, or the tags of a block's kinds."""
    tagged = (
        [t.tag for t in _types_at(path[:-1]) if getattr(t, "tag_field", None) == path[-1]]
        if path
        else []
    )
    literal = [str(v) for t in _types_at(path) for v in getattr(t, "values", ())]
    return tagged + literal


def _line_of(text: str, path: Sequence[str]) -> int | None:
    """Return the line (from 1) of the deepest part of a path that stands in the YAML text."""
    node = yaml.compose(text, _Loader) if text else None
    line = None
    for step in path:
        if isinstance(node, yaml.MappingNode):
            pairs = {key.value: (key, value) for key, value in node.value}
            if step not in pairs:
                break
            line, node = pairs[step][0].start_mark.line + 1, pairs[step][1]
        elif isinstance(node, yaml.SequenceNode) and step.isdigit() and int(step) < len(node.value):
            node = node.value[int(step)]
            line = node.start_mark.line + 1
        else:
            break
    return line
