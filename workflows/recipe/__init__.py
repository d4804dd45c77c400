"""The only description of a data set: parsed once, frozen, unknown keys refused.

Schema, tags, the NVTabular graph, tables and signatures are derived from it. It holds data, never
code.
"""

from __future__ import annotations

import difflib
import hashlib
import math
import re
from collections.abc import Hashable, Mapping, Sequence
from operator import attrgetter
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
    PriorConfig,
    Share,
    TrackingConfig,
    TrainConfig,
    TuneConfig,
    TwoTowerConfig,
)
from workflows.errors import RecipeError

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
Pattern = Annotated[str, Meta(min_length=1)]
#: Columns that etl adds to the splits and tables.
_RESERVED = ("user_row", "item_row", "row_weight", "in_train", "train_count")


class Fetch(Part, frozen=True):
    """Raw files that lie inside a wheel of the package index, taken without installing it.

    Attributes:
        package: name and exact version, such as `recbole==1.2.1`.
        sha256: of the wheel.
        members: path inside the wheel → file name in the data folder.
    """

    package: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]+==[A-Za-z0-9_.]+$")]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
    members: dict[str, Annotated[str, Meta(pattern=r"^[^/]+$")]]


class Source(Part, frozen=True):
    """A raw table.

    Attributes:
        files: one file name or glob, or several, in the data folder.
        format: by the file's ending where it is not given.
        rename: raw column name → name used in the rest of the recipe.
        nulls: texts that stand for "no value" (csv and tsv).
    """

    files: Pattern | Annotated[tuple[Pattern, ...], Meta(min_length=1)]
    format: Literal["csv", "tsv", "parquet"] | None = None
    rename: dict[str, str] = {}  # noqa: RUF012 - msgspec copies it
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


def _check_shares(valid: float, test: float) -> None:
    if valid + test >= 1:
        raise ValueError(
            f"valid and test are shares; together they must be below 1, got {valid} + {test}"
        )


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

    def __post_init__(self) -> None:
        _check_shares(self.valid, self.test)


class RandomRows(Part, frozen=True, tag_field="kind", tag="random"):
    """Rows drawn at random, as shares. It leaks the future; for comparison with papers."""

    valid: Share = 0.1
    test: Share = 0.1
    seed: NonNegative = 1

    def __post_init__(self) -> None:
        _check_shares(self.valid, self.test)


class ByUser(Part, frozen=True, tag_field="kind", tag="by_user"):
    """Users drawn at random, as shares: valid and test users are unknown in training."""

    valid: Share = 0.1
    test: Share = 0.1
    seed: NonNegative = 1

    def __post_init__(self) -> None:
        _check_shares(self.valid, self.test)


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
            `time` orders the interactions; `weight` is what an interaction counts in the loss.
        id: this is the user's or the item's id.
        kind: `category`, `categories` (a list), `number`, or `label` (kept to be read by people).
        separator: splits a text cell into `categories`; null where cells are lists already.
        null: what a missing `number` becomes; `error` refuses it.
        indicator: give a number a second input that says whether it was missing.
        input: feed it to its tower; an id that is no input still names its rows.
        vocabulary: rules that differ from the recipe's.
        unit: of a `time` that is a number.
    """

    role: Literal["user", "item", "context", "time", "weight"]
    id: bool = False
    kind: Literal["category", "categories", "number", "label"] = "category"
    separator: Annotated[str, Meta(min_length=1)] | None = None
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
        if self.vocabulary is not None and not self.encoded:
            raise ValueError("vocabulary is for kinds category and categories")
        if self.role == "weight" and (
            self.kind != "number" or self.null in ("median", "mean") or self.indicator
        ):
            raise ValueError("a weight has kind number, null: error or a number, and no indicator")
        if self.unit != "s" and self.role != "time":
            raise ValueError("unit is for role time")

    @property
    def encoded(self) -> bool:
        """Whether the column gets codes from a vocabulary."""
        return self.role != "time" and self.kind in ("category", "categories")

    @property
    def is_input_number(self) -> bool:
        """Whether the column is a number that a tower may take."""
        return self.kind == "number" and self.role not in ("time", "weight")


class History(Part, frozen=True):
    """Lists of what a user did before each interaction, as inputs of the query tower.

    Attributes:
        columns: the item id and other item columns; column c gives the input `history_c`, which
            shares the embeddings of c.
        max_len: the latest so many.
        before: what is earlier: an `event` that stands before in the order of time (ties in the
            order of the file), or one of an earlier `second` or `day`; `others` takes all the
            user's other events, earlier or later: only for rows that were split at random.
    """

    columns: tuple[str, ...]
    max_len: Positive = 50
    before: Literal["event", "second", "day", "others"] = "event"

    @property
    def inputs(self) -> dict[str, str]:
        """Input column → item column."""
        return {f"history_{column}": column for column in self.columns}


class Recipe(Part, frozen=True):
    """A data set, how to split and encode it, and what to train on it.

    Attributes:
        name: default name of its runs.
        data: folder of the raw files, relative to the recipe's own folder.
        interactions: the source whose rows are interactions.
        fallback: what answers a user who is in no table and has no history: `popularity`, or the
            query `tower` with an unseen id and the inputs of the unknown user.
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
    history: History | None = None
    vocabulary: VocabularyRule = VocabularyRule()
    model: TwoTowerConfig = TwoTowerConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    prior: PriorConfig | None = None
    tracking: TrackingConfig | None = None
    train: TrainConfig = TrainConfig()
    tune: TuneConfig = TuneConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    fallback: Literal["popularity", "tower"] = "popularity"

    def __post_init__(self) -> None:
        for name in self.features:
            if name in _RESERVED or "/" in name or name.startswith("."):
                raise ValueError(
                    f"a feature may not be called {name!r}: etl has a column of that name, or a "
                    "file cannot have it. Give the raw column another with `rename`"
                )
        for role in ("user", "item"):
            ids = [n for n, f in self.features.items() if f.id and f.role == role]
            if len(ids) != 1:
                raise ValueError(
                    f"features need exactly one with role {role} and id: true, got {ids or 'none'}"
                )
        for role in ("time", "weight"):
            found = [n for n, f in self.features.items() if f.role == role]
            if len(found) > 1:
                raise ValueError(f"features may have one with role {role}, got {found}")
        times = [n for n, f in self.features.items() if f.role == "time"]
        if not times and isinstance(self.split, LeaveLast | GlobalTime):
            raise ValueError("this kind of split needs a feature with role time")
        self._check_history(times)
        named = [("interactions", self.interactions), *(("join", j.table) for j in self.join)]
        if isinstance(self.split, GivenFiles):
            named += [("split", s) for s in (self.split.valid, self.split.test) if s]
        for field, source in named:
            if source not in self.sources:
                raise ValueError(
                    f"{field} names {source!r}, which is not one of the sources "
                    f"({', '.join(self.sources)})"
                )
        for join in self.join:
            if join.on not in (self.user_id, self.item_id):
                raise ValueError(
                    f"join of {join.table!r} is on {join.on!r}; expected the user id "
                    f"{self.user_id!r} or the item id {self.item_id!r}"
                )
        if len({j.on for j in self.join}) < len(self.join):
            raise ValueError("join may look up one table by the user id and one by the item id")
        self._check_positive()

    def _check_positive(self) -> None:
        feature = self.features.get(self.positive.column) if self.positive else None
        if self.positive is None or feature is None:
            return
        is_number = feature.role == "time" or feature.kind == "number"
        if feature.kind == "categories" or is_number != isinstance(self.positive.value, float):
            kind = "time" if feature.role == "time" else feature.kind
            raise ValueError(
                f"positive compares {self.positive.column!r}, a {kind}, with "
                f"{self.positive.value!r}; a number or time is compared with a number, a category "
                "or label with (quoted) text, and lists with nothing"
            )

    def _check_history(self, times: list[str]) -> None:
        if self.history is None:
            return
        if not times:
            raise ValueError("history needs a feature with role time")
        for column in self.history.columns:
            feature = self.features.get(column)
            if feature is None or feature.role != "item" or feature.kind != "category":
                raise ValueError(f"history column {column!r} is no item feature of kind category")

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

    @property
    def weight(self) -> str | None:
        """Name of the column of row weights."""
        return next((n for n, f in self.features.items() if f.role == "weight"), None)

    def columns(self, *roles: str) -> list[str]:
        """Return the names of the features with these roles, in the recipe's order."""
        return [n for n, f in self.features.items() if f.role in roles]

    def vocabulary_rule(self, column: str) -> VocabularyRule:
        """Return the vocabulary rule of a column."""
        return self.features[column].vocabulary or self.vocabulary

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain data, as JSON would hold it, defaults filled in."""
        return msgspec.json.decode(msgspec.json.encode(self))

    def digest(self, *parts: str) -> str:
        """Return the SHA-256 of the named parts, such as `train` or `evaluate.ks` (or of all)."""
        chosen = {part: attrgetter(part)(self) for part in parts} if parts else self
        return hashlib.sha256(msgspec.json.encode(chosen, order="sorted")).hexdigest()


class _Loader(yaml.SafeLoader):
    """YAML 1.2 scalars: PyYAML alone reads 1e-3 as text, `on` and `no` as booleans, 12:30 as 750,
    010 as 8 and 2020-01-01 as a date.

    A key is text as it stands there (`null: mean`, `1: item_id`), and stands there once.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own way
        first: [(tag, regexp) for tag, regexp in resolvers if tag.endswith((":null", ":merge"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be text", key.start_mark
                )
            if key.value in lines:
                problem = f"{key.value!r} stands here a second time, after line {lines[key.value]}"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            lines[key.value] = key.start_mark.line + 1
        self.flatten_mapping(node)
        return {k.value: self.construct_object(v, deep=deep) for k, v in node.value}


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?(0|[1-9]\d*)$"), list("-+0123456789")
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


def load(path: Path, overrides: Sequence[str] = (), *, variant: str = "") -> Recipe:
    """Read, override and check a recipe.

    Args:
        path: the YAML file.
        overrides: texts such as `train.epochs=3`; the value is YAML.
        variant: one of the file's `variants`, laid over the rest; empty for none of them.

    Raises:
        RecipeError: names file, line, field, what was expected and what came.
    """
    try:
        text = path.read_text(encoding="utf-8")
        raw = yaml.load(text, _Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(
            f"{path} cannot be read as YAML: {' '.join(str(error).split())}"
        ) from None
    if not isinstance(raw, dict):
        raise RecipeError(f"{path}: expected a mapping of fields, got {type(raw).__name__}.")
    variants = raw.pop("variants", {})
    if variant:
        raw = _vary(raw, variants, variant, path)
    for override in overrides:
        _override(raw, override)
    where = " --set ".join([str(path), *overrides])
    return parse(raw, where=where, text=text)


def _vary(raw: dict[str, Any], variants: Any, variant: str, path: Path) -> dict[str, Any]:
    """Return the recipe with a variant laid over it, named `<name>-<variant>`."""
    known = list(variants) if isinstance(variants, dict) else []
    if variant not in known:
        raise RecipeError(
            f"{path} has no variant {variant!r}; {_nearest(variant, known)}"
            f"known: {', '.join(known) or 'none'}."
        )
    varied = _laid_over(raw, variants[variant] or {})
    return {**varied, "name": f"{raw.get('name')}-{variant}"}


def _laid_over(base: Any, patch: Any) -> Any:
    """Merge mappings field by field; a block of another `kind` is replaced whole."""
    if not isinstance(base, dict) or not isinstance(patch, dict):
        return patch
    if "kind" in patch and patch["kind"] != base.get("kind"):
        return patch
    return {**base, **{key: _laid_over(base.get(key), value) for key, value in patch.items()}}


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
        _refuse_infinite(raw)
        return msgspec.convert(raw, Recipe)
    except msgspec.ValidationError as error:
        raise RecipeError(_explain(str(error), raw, where, text)) from None


def replaced(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """Return a recipe with some fields set anew.

    Args:
        recipe: the others' values.
        settings: path, such as `train.epochs` → value.

    Raises:
        RecipeError: as `load`.
    """
    raw = recipe.to_dict()
    for path, value in settings.items():
        *parents, last = path.split(".")
        at = raw
        for parent in parents:
            at = at.setdefault(parent, {})
        at[last] = value
    return parse(raw, where=f"recipe {recipe.name}")


def _refuse_infinite(value: Any, at: str = "$") -> None:
    """Refuse .inf and .nan, which no field can mean and JSON cannot tell apart."""
    if isinstance(value, float) and not math.isfinite(value):
        raise msgspec.ValidationError(f"Expected a finite number, got {value} - at `{at}`")
    if isinstance(value, Mapping):
        for key, part in value.items():
            _refuse_infinite(part, f"{at}.{key}")
    elif isinstance(value, list):
        for number, part in enumerate(value):
            _refuse_infinite(part, f"{at}[{number}]")


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
        at[last] = yaml.load(value, _Loader)
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
    place = (
        where + (f", line {line}" if line else "") + (f", field {'.'.join(path)}" if path else "")
    )
    return f"{place}: {problem}.{hint}"


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {close[0]!r}? " if close else ""


def _name_the_keys(path: list[str], raw: Any) -> list[str]:
    """Put the key in the place of each `*`, where msgspec says "some value of this mapping"."""
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
    texts = [str for t in types if isinstance(t, msgspec.inspect.StrType)]
    try:
        msgspec.convert(value, [*classes, *texts, Any][0])
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
