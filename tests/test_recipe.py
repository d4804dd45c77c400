"""The recipe: every wrong one is refused by name, line and remedy; its hash knows only content."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from workflows import recipe as recipes
from workflows.ground.errors import RecipeError
from workflows.recipe import ByUser, GivenFiles, GlobalTime, LeaveLast, RandomRows, reading
from workflows.recipe.text import Loader

ROOT = Path(__file__).resolve().parent.parent
MINIMAL = """\
name: shop
sources:
  log: {files: log.csv}
  shops: {files: shops.csv}
interactions: log
split: {kind: leave_last}
features:
  user: {role: user, id: true}
  item: {role: item, id: true}
  when: {role: time}
"""


@pytest.fixture
def minimal(tmp_path: Path) -> Path:
    path = tmp_path / "shop.yaml"
    path.write_text(MINIMAL, encoding="utf-8")
    return path


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "other.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_minimal_recipe_has_the_defaults(minimal: Path) -> None:
    recipe = recipes.load(minimal)
    assert (recipe.user_id, recipe.item_id, recipe.time) == ("user", "item", "when")
    assert recipe.split == LeaveLast(valid=1, test=1)
    assert recipe.sources["log"].nulls == ()
    assert recipe.columns("user", "time") == ["user", "when"]
    assert recipe.filter == ()
    assert recipe.vocabulary_rule("item").oov_buckets == 1


def test_recipe_is_frozen(minimal: Path) -> None:
    recipe = recipes.load(minimal)
    with pytest.raises(AttributeError, match="immutable"):
        recipe.name = "other"  # type: ignore[misc]
    assert recipe.name == "shop"


# ── unknown keys ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("right", "wrong", "line", "field", "nearest"),
    [
        ("interactions:", "interaction:", 5, "interaction", "interactions"),
        ("  log: {files", "  log: {file", 3, "sources.log.file", "files"),
        ("{role: time}", "{rol: time}", 10, "features.when.rol", "role"),
        ("{kind: leave_last}", "{kind: leave_last, vaild: 2}", 6, "split.vaild", "valid"),
        ("split:", "trian: {epochs: 3}\nsplit:", 6, "trian", "train"),
        ("split:", "train: {epoch: 3}\nsplit:", 6, "train.epoch", "epochs"),
        ("split:", "join:\n  - {table: shops, kye: user}\nsplit:", 7, "join.0.kye", "key"),
        (
            "split:",
            "derive:\n  - {kind: bins, of: a, to: b, edge: [1], labels: [c, d]}\nsplit:",
            7,
            "derive.0.edge",
            "edges",
        ),
        (
            "split:",
            "filter:\n  - {kind: top_users, n: 5}\n  - {kind: keep, colum: a, is: in}\nsplit:",
            8,
            "filter.1.colum",
            "column",
        ),
        (
            "item: {role: item,",
            "item: {role: item, vocabulary: {min_cont: 2},",
            9,
            "features.item.vocabulary.min_cont",
            "min_count",
        ),
    ],
)
def test_an_unknown_key_is_named_with_its_line_and_the_nearest_known(
    tmp_path: Path, right: str, wrong: str, line: int, field: str, nearest: str
) -> None:
    text = MINIMAL.replace(right, wrong)
    assert text != MINIMAL
    path = written(tmp_path, text)
    with pytest.raises(RecipeError) as caught:
        recipes.load(path)
    key = field.rpartition(".")[2]
    assert str(caught.value).startswith(
        f"{path}, line {line}, field {field}: Object contains unknown field `{key}`. "
        f"Did you mean {nearest!r}? Fields here: "
    )


def test_a_key_unlike_any_other_gets_the_list_alone(minimal: Path) -> None:
    with pytest.raises(RecipeError, match=r"unknown field `zzz`\. Fields here: valid, test"):
        recipes.load(minimal, ["split={kind: leave_last, zzz: 1}"])


@pytest.mark.parametrize(
    ("block", "field", "hint"),
    [
        ("model: {kind: popularity, dim: 8}", "model.dim", "It is for kinds two_tower and offers"),
        ("model: {days: 3}", "model.days", "It is for kind popularity; this block has kind two_to"),
        ("model: {kind: content, dmi: 8}", "model.dmi", "Fields here: none."),
        (
            "model: {kind: popularity, dys: 8}",
            "model.dys",
            "Did you mean 'days'? Fields here: days",
        ),
    ],
)
def test_a_field_of_another_kind_is_not_proposed_to_a_block_that_does_not_have_it(
    tmp_path: Path, block: str, field: str, hint: str
) -> None:
    path = written(tmp_path, MINIMAL + block + "\n")
    with pytest.raises(RecipeError, match=re.escape(hint)) as caught:
        recipes.load(path)
    assert f", field {field}: Object contains unknown field" in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "hint"),
    [
        ("offers.dim=8", "Its fields belong to `model` now, with kind: offers. "),
        ("model.history_decay=null", "It is model.encoder.decay now, such as encoder: {decay: 10}"),
        ("features.x={role: user, kind: number, null: mean}", "It is `fill` now, such as fill: me"),
        ("join=[{table: shops, on: user}]", "It is `key` now, such as {table: products, key: sku}"),
    ],
)
def test_a_field_of_an_earlier_version_points_to_what_took_its_place(
    minimal: Path, setting: str, hint: str
) -> None:
    with pytest.raises(RecipeError, match=re.escape(hint)):
        recipes.load(minimal, [setting])


def test_attributes_of_offers_are_named_once(minimal: Path) -> None:
    changes = ["history={columns: [item]}", "model={kind: offers, models: {a: {}}}"]
    assert recipes.load(minimal, changes).has_offers
    for changed in ("model.models.a.attributes", "tasks.attributes"):
        with pytest.raises(RecipeError, match=r"attributes of (a|tasks) names 'item' twice"):
            recipes.load(minimal, [*changes, f"{changed}=[item, item]"])


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("{combine: concat, dims: {user: 4, item: two}}", "field model.dims.item: Invalid enum"),
        ("{kind: offers, models: {ok: {}, a b: {}}}", "field model.models.a b: Expected `str` mat"),
        ("{kind: offers, models: {ok: {}, b: {x: 1}}}", "field model.models.b.x: Object contains"),
    ],
)
def test_a_wrong_value_of_a_mapping_is_told_with_its_key(
    tmp_path: Path, block: str, message: str
) -> None:
    path = written(tmp_path, MINIMAL + f"model: {block}\n")
    with pytest.raises(RecipeError, match=re.escape(message)):
        recipes.load(path)


# ── wrong values ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("name=a b", "field name: Expected `str` matching regex"),
        ("name=../up", "field name: Expected `str` matching regex"),
        ("train.epochs='3'", "field train.epochs: Expected `int`, got `str`"),
        ("train.epochs=true", "field train.epochs: Expected `int`, got `bool`"),
        ("train.epochs=1.5", "field train.epochs: Expected `int`, got `float`"),
        ("train.epochs=0", "field train.epochs: Expected `int` >= 1"),
        ("train.batch_size=null", "field train.batch_size: Expected `int`, got `null`"),
        ("model.dim=[64]", "field model.dim: Expected `int | str`, got `array`"),
        ("model.query_layers=[64, 0]", r"field model.query_layers.1: Expected `int` >= 1"),
        ("loss.temperature=0", "field loss.temperature: Expected `float` > 0"),
        ("loss.temperature=.nan", "field loss.temperature: Expected a finite number, got nan"),
        ("optimizer.lr=.inf", "field optimizer.lr: Expected a finite number, got inf"),
        ("evaluate.ks=[10, .inf]", "field evaluate.ks.1: Expected a finite number, got inf"),
        ("evaluate.ks=[20, 10]", "field evaluate: ks must rise and not be empty, got [20, 10]"),
        ("evaluate.ks=[]", "field evaluate: ks must rise and not be empty"),
        ("sources.log.files=[]", "field sources.log.files: Expected `array` of length >= 1"),
        ("sources.log.files=''", "field sources.log.files: Expected `str` of length >= 1"),
        (
            "sources.log.format=xlsx",
            "Invalid enum value 'xlsx'. Expected one of: aliccp, csv, jsonl, parquet, tsv",
        ),
        ("sources.log.rename={a: 1}", "field sources.log.rename.a: Expected `str`, got `int`"),
        ("sources.log.nulls=NA", "field sources.log.nulls: Expected `array`, got `str`"),
        ("features.when.role=tiem", "Invalid enum value 'tiem'. Expected one of: context, item, "),
        ("features.when.unit=h", "field features.when.unit: Invalid enum value 'h'. Expected one"),
        ("features.x=null", "field features.x: Expected `object`, got `null`"),
        (
            "features.x={role: user, kind: number, fill: zero}",
            "field features.x.fill: Invalid enum value 'zero'. Expected one of: error, mean, me",
        ),
        (
            "features.x={role: user, kind: categories, separator: ''}",
            "field features.x.separator: Expected `str` of length >= 1",
        ),
        ("split.kind=leave_lats", "Invalid value 'leave_lats'. Expected one of: leave_last, time"),
        ("history={columns: []}", "field history.columns: Expected `array` of length >= 1"),
        ("history={columns: [item, item]}", "field history: columns names 'item' twice; name each"),
        (
            "history={columns: [item], events: {column: x, kinds: [a, a], target: a}}",
            "field history.events: kinds names 'a' twice",
        ),
        (
            "sources.log.escape='\"'",
            "field sources.log: delimiter, quote and escape must differ, got ['\"', '\"']; a doub",
        ),
        ("prior.days=[]", "field prior.days: Expected `array` of length >= 1"),
        ("split={valid: 1}", "field split: Object missing required field `kind`"),
        ("split=time", "field split: Expected `object`, got `str`"),
        ("split={kind: time, test: 1.0}", "field split.test: Expected `float` < 1.0"),
        ("split={kind: time, valid: -0.1}", "field split.valid: Expected `float` >= 0.0"),
        ("split={kind: leave_last, valid: 0}", "field split.valid: Expected `int` >= 1"),
        ("vocabulary.oov_buckets=0", "field vocabulary.oov_buckets: Expected `int` >= 1"),
        ("join={table: shops, key: user}", "field join: Expected `array`, got `object`"),
        (
            "filter=[{kind: keep, column: x, is: '=>', value: 1}]",
            "field filter.0.is: Invalid enum value '=>'. Expected one of: !=",
        ),
        (
            "filter=[{kind: keep, column: x, is: '>', value: true}]",
            "field filter.0.value: Expected `float | str | array | null`, got `bool`",
        ),
        (
            "filter=[{kind: keep, column: x, value: 1}]",
            "field filter.0: Object missing required field `is`",
        ),
        ("filter=[{kind: kep}]", "field filter.0.kind: Invalid value 'kep'. Expected one of: keep"),
        ("interactions=5", "field interactions: Expected `str`, got `int`"),
        ("fetch={package: x, sha256: a, members: {}}", "field fetch.package: Expected `str` match"),
        (
            f"fetch={{package: x==1, sha256: {'a' * 64}, members: {{a: ../b}}}}",
            "field fetch.members.a: Expected `str` matching regex",
        ),
    ],
)
def test_a_wrong_value_names_field_expectation_and_what_came(
    minimal: Path, override: str, message: str
) -> None:
    with pytest.raises(RecipeError, match=re.escape(message)) as caught:
        recipes.load(minimal, [override])
    # the override is part of the place, for the file alone is not at fault
    assert str(caught.value).startswith(f"{minimal} --set {override}")


@pytest.mark.parametrize("missing", ["name", "sources", "interactions", "features", "split"])
def test_a_missing_field_is_named(missing: str) -> None:
    raw = {key: value for key, value in yaml.safe_load(MINIMAL).items() if key != missing}
    with pytest.raises(RecipeError, match=f"^r.yaml: Object missing required field `{missing}`"):
        recipes.parse(raw, where="r.yaml")


def test_the_line_is_that_of_the_field_also_in_blocks_and_lists(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        MINIMAL + "model:\n  dim: 8\n\n  query_layers:\n    - 16\n    - wide # of no width\n",
    )
    with pytest.raises(
        RecipeError, match=r"line 16, field model\.query_layers\.1: Expected `int`, got `str`"
    ):
        recipes.load(path)


# ── rules between fields ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("features={user_row: {role: user}}", "a feature may not be called 'user_row': etl has"),
        ("features={in_train: {role: user}}", "a feature may not be called 'in_train'.*`rename`"),
        (
            "features={age: {role: user, kind: number, indicator: true, fill: 0}, "
            "age_missing: {role: user}}",
            "a feature may not be called 'age_missing': etl has a column of that name",
        ),
        ("features={score: {role: item}}", "a feature may not be called 'score': lists have"),
        ("features={a/b: {role: user}}", "a feature may not be called 'a/b': .* cannot have a /"),
        ("features={..: {role: user}}", r"a feature may not be called '\.\.'"),
        ("features.user.id=false", "exactly one with role user and id: true, got none"),
        ("features.item.id=false", "exactly one with role item and id: true, got none"),
        ("features.u2={role: user, id: true}", r"role user and id: true, got \['user', 'u2'\]"),
        ("features.t2={role: time}", r"may have one with role time, got \['when', 't2'\]"),
        (
            "features.when={role: context}",
            "split leave_last needs a feature with role time. .*random",
        ),
        ("features.x={role: context, id: true}", "an id has role user or item and kind category"),
        ("features.item.kind=label", "features.item: an id has role user or item and kind categ"),
        ("features.x={role: user, fill: mean}", "features.x: fill is for kind number"),
        ("features.x={role: user, indicator: true}", "features.x: indicator is for kind number"),
        ("features.x={role: user, separator: ','}", "features.x: separator is for kinds cat"),
        (
            "features.x={role: user, kind: number, vocabulary: {min_count: 2}}",
            "features.x: vocabulary is for kinds category and categories",
        ),
        ("features.when={role: time, vocabulary: {min_count: 2}}", "features.when: vocabulary is"),
        ("features.x={role: user, weights: w}", "features.x: weights is for kind categories"),
        (
            "features.x={role: user, kind: categories, input: false, weights: w}",
            "features.x: weights is for inputs of kind categories",
        ),
        (
            "features.x={role: user, kind: categories, weights: w}",
            "features.x.weights names 'w', which is no feature of kind weights; known: none",
        ),
        (
            "features.x={role: user, kind: weights}",
            "features.x has kind weights, and 0 lists name it in their `weights`; expected one",
        ),
        ("features.x={role: weight, kind: weights}", "kind weights is for roles user, item and"),
        ("features.x={role: user, unit: ms}", "features.x: unit is for role time"),
        ("interactions=logs", r"interactions names 'logs', which is not one of the sources \(log"),
        ("join=[{table: zz, key: user}]", "join names 'zz', which is not one of the sources"),
        ("split={kind: given, test: zz}", "split names 'zz', which is not one of the sources"),
        (
            "split={kind: given, test: log, valid: yy}",
            "split names 'yy', which is not one of the sources",
        ),
        (
            "join=[{table: shops, key: when}]",
            "join of 'shops' has the key 'when'; expected the user id 'user' or the item id 'item'",
        ),
        (
            "join=[{table: shops, key: user}, {table: log, key: user}]",
            "join may look up one table by the user id and one by the item id",
        ),
        ("split={kind: time, valid: 0.5, test: 0.5}", r"split: valid and test are shares; .* 0.5"),
        ("split={kind: random, valid: 0.9, test: 0.2}", r"together they must be below 1, got 0.9"),
        ("split={kind: by_user, valid: 0.9, test: 0.2}", r"together they must be below 1, got 0.9"),
        (
            "filter=[{kind: keep, column: item, is: '==', value: 3}]",
            r"filter compares 'item', a text column, with 3\.0",
        ),
        (
            "filter=[{kind: keep, column: when, is: '>', value: noon}]",
            "filter compares 'when', a time column, with 'noon'.* seconds or a date such",
        ),
        (
            "filter=[{kind: keep, column: x, is: in, value: 3}]",
            r"filter\.0: is: in takes a list of values, got 3",
        ),
        (
            "filter=[{kind: keep, column: x, is: in, value: []}]",
            r"filter\.0: is: in takes a list of values, got none",
        ),
        (
            "filter=[{kind: keep, column: x, is: in, value: [1, a]}]",
            r"filter\.0: is: in takes numbers or texts, not both",
        ),
        (
            "filter=[{kind: keep, column: x, is: '>'}]",
            r"filter\.0: is: > takes one value, got None",
        ),
        (
            "filter=[{kind: keep, column: x, is: not_null, value: 1}]",
            r"filter\.0: is: not_null takes no value, got 1",
        ),
    ],
)
def test_a_rule_between_fields_is_explained(minimal: Path, override: str, message: str) -> None:
    assert recipes.load(minimal).name == "shop"  # without the override all is well
    with pytest.raises(RecipeError, match=message):
        recipes.load(minimal, [override])


def test_filters_of_lists_are_refused(minimal: Path) -> None:
    tags = "features.tags={role: item, kind: categories, separator: ','}"
    assert recipes.load(minimal, [tags]).features["tags"].kind == "categories"
    with pytest.raises(RecipeError, match="filter compares 'tags', a lists column, with 'x'"):
        recipes.load(minimal, [tags, "filter=[{kind: keep, column: tags, is: '==', value: x}]"])


def test_history_needs_item_columns_and_a_time(minimal: Path) -> None:
    assert recipes.load(minimal, ["history.columns=[item]"]).history is not None
    with pytest.raises(RecipeError, match="history column 'user' is no item feature"):
        recipes.load(minimal, ["history.columns=[user]"])
    with pytest.raises(RecipeError, match="history column 'itm' is no item feature"):
        recipes.load(minimal, ["history.columns=[itm]"])
    untimed = ["split.kind=random", "split={kind: random}", "features.when={role: context}"]
    with pytest.raises(RecipeError, match="prior weighs rows by their age, which needs a feature"):
        recipes.load(minimal, [*untimed[1:], "prior={}"])
    with pytest.raises(RecipeError, match=r"model.days weighs rows by their age"):
        recipes.load(minimal, [*untimed[1:], "model={kind: popularity, days: 3}"])
    early = "history={columns: [item], before: day}"
    with pytest.raises(RecipeError, match=r"history.before: day needs .* time.*before: others"):
        recipes.load(minimal, [*untimed[1:], early])


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("{kind: leave_last, valid: 2, test: 3}", LeaveLast(valid=2, test=3)),
        ("{kind: time, valid: 0, test: 0.25}", GlobalTime(valid=0.0, test=0.25)),
        ("{kind: random, seed: 9}", RandomRows(valid=0.1, test=0.1, seed=9)),
        ("{kind: by_user}", ByUser(valid=0.1, test=0.1, seed=1)),
        ("{kind: by_user, valid: 200, test: 0.5}", ByUser(valid=200, test=0.5, seed=1)),
        ("{kind: given, test: shops}", GivenFiles(test="shops", valid=None)),
    ],
)
def test_each_kind_of_split_is_parsed(minimal: Path, text: str, split: recipes.Split) -> None:
    assert recipes.load(minimal, [f"split={text}"]).split == split


# ── YAML ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("yaml_text", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 100_000.0),
        ("2.5e-1", 0.25),
        (".5", 0.5),
        ("-3.", -3.0),
        ("-7", -7),
        ("+7", 7),
        ("0", 0),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        # what YAML 1.1 makes of these would surprise: False, True, False, 750, 8, 10, a date
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("12:30", "12:30"),
        ("010", "010"),
        ("1_0", "1_0"),
        ("2020-01-01", "2020-01-01"),
        ("'3'", "3"),
        ("1.2.3", "1.2.3"),
        ("val_recall@10", "val_recall@10"),
        ("[1, a]", [1, "a"]),
        ("{null: 1, on: 2, 3: 4}", {"null": 1, "on": 2, "3": 4}),
    ],
)
def test_scalars_are_those_of_yaml_1_2(yaml_text: str, value: Any) -> None:
    raw: dict[str, Any] = {}
    reading._override(raw, f"a.b={yaml_text}")
    assert raw == {"a": {"b": value}}
    assert type(raw["a"]["b"]) is type(value)


def test_other_yaml_readers_read_a_join_and_a_fill_as_this_package_does(tmp_path: Path) -> None:
    """YAML 1.1 takes the keys `on` and `null`, their earlier names, for True and None."""
    text = MINIMAL + "  age: {role: user, kind: number, fill: median}\njoin:\n  - table: shops\n"
    recipe = recipes.load(written(tmp_path, text + "    key: item\n"))
    assert recipe.join[0].key == "item"
    assert recipe.features["age"].fill == "median"
    raw = yaml.safe_load(text + "    key: item\n")
    assert raw["join"] == [{"table": "shops", "key": "item"}]
    assert raw["features"]["age"] == {"role": "user", "kind": "number", "fill": "median"}


def test_a_missing_number_may_stand_for_a_number(minimal: Path) -> None:
    recipe = recipes.load(minimal, ["features.x={role: user, kind: number, fill: -1}"])
    assert recipe.features["x"].fill == -1.0


def test_headers_that_are_numbers_can_be_renamed(minimal: Path) -> None:
    recipe = recipes.load(minimal, ["sources.log.rename={0: user, 1: item}"])
    assert recipe.sources["log"].rename == {"0": "user", "1": "item"}


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, MINIMAL + "  item: {role: user}\n")
    with pytest.raises(
        RecipeError, match=r"YAML: line 11, .*: 'item' occurs a second time, after line 9\."
    ):
        recipes.load(path)


def test_yaml_anchors_and_merges_work(tmp_path: Path) -> None:
    text = (
        MINIMAL
        + "  a: &number {role: user, kind: number, fill: mean}\n  b: {<<: *number, fill: 0}\n"
    )
    features = recipes.load(written(tmp_path, text)).features
    assert (features["a"].fill, features["b"].fill) == ("mean", 0.0)
    assert features["b"].kind == "number"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "cannot be read as YAML: .*line 1"),
        (
            "a: b: c",
            "cannot be read as YAML: line 1, 'a: b: c': mapping values .* put it in quotes",
        ),
        ("a: !!python/object/apply:os.system [id]", "cannot be read as YAML: line 1, .*could not"),
        ("? [a]\n: 1", "cannot be read as YAML: line 1, .* a key must be text"),
        ("", "expected a mapping of fields, got NoneType"),
        ("- a", "expected a mapping of fields, got list"),
    ],
)
def test_what_is_no_mapping_in_yaml_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(RecipeError, match=f"^{re.escape(str(path))}:? {message}"):
        recipes.load(path)


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes("name: Köln".encode("latin-1"))
    with pytest.raises(RecipeError, match=r"latin\.yaml cannot be read as YAML: .*utf-8"):
        recipes.load(path)


# ── overrides ───────────────────────────────────────────────────────────────────────────


def test_overrides_reach_into_blocks_and_the_last_one_counts(minimal: Path) -> None:
    recipe = recipes.load(
        minimal,
        [
            "train.epochs=3",
            "optimizer.lr=1e-3",
            "model.query_layers=[32, 16]",
            "features.shop={role: context}",
            "split.test=2",
            "train.epochs=4",
        ],
    )
    assert recipe.train.epochs == 4
    assert recipe.optimizer.lr == 0.001
    assert recipe.model.query_layers == (32, 16)
    assert recipe.features["shop"].role == "context"
    assert recipe.split == LeaveLast(valid=1, test=2)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs", "--set 'train.epochs': expected key=value, such as train.epochs=3"),
        ("=3", "--set '=3': expected key=value"),
        ("train..epochs=3", "--set 'train..epochs=3': expected key=value"),
        ("name.x=3", "--set 'name.x=3': 'name' is a value, it has no fields"),
        ("train.epochs=[", "the value is not YAML"),
        ("train.epoch=3", "unknown field `epoch`. Did you mean 'epochs'"),
    ],
)
def test_a_wrong_override_is_quoted(minimal: Path, override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(message)) as caught:
        recipes.load(minimal, [override])
    assert override in str(caught.value)


def test_a_field_of_a_block_that_is_null_can_be_replaced() -> None:
    recipe = recipes.load(ROOT / "recipes" / "movielens-100k.yaml")
    assert recipe.prior is None
    changed = recipes.replace_fields(recipe, {"prior.days": [3.0], "train.epochs": 7})
    assert changed.prior is not None
    assert changed.prior.days == (3.0,)
    assert changed.train.epochs == 7
    assert recipe.prior is None


def test_a_replaced_field_of_a_value_is_refused(minimal: Path) -> None:
    message = "recipe shop, field split.test.x: 'test' is a value, it has no fields."
    with pytest.raises(RecipeError, match=re.escape(message)):
        recipes.replace_fields(recipes.load(minimal), {"split.test.x": 3})


# ── finding ─────────────────────────────────────────────────────────────────────────────


def test_a_recipe_is_found_by_name_and_by_path(
    minimal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(minimal.parent)
    shipped = ROOT / "recipes" / "movielens-100k.yaml"
    assert recipes.find("movielens-100k") == shipped  # from anywhere
    assert recipes.find("shop.yaml") == minimal.resolve()
    Path("recipes").mkdir()
    own = Path("recipes", "movielens-100k.yaml")
    own.write_text(MINIMAL, encoding="utf-8")
    assert recipes.find("movielens-100k") == own.resolve()  # one's own comes first


def test_an_unknown_name_lists_those_that_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        RecipeError,
        match=r"no recipe 'movielens-10k'; Did you mean 'movielens-100k'\? known: .*movielens-100k"
        r".*A recipe of your own is given by its path, ending in \.yaml",
    ):
        recipes.find("movielens-10k")


def test_a_path_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match=rf"no recipe file shop\.yaml.*{tmp_path}"):
        recipes.find("shop.yaml")


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_recipe_is_valid_and_named_as_its_file(path: Path) -> None:
    assert recipes.load(path).name == path.stem
    variants = yaml.safe_load(path.read_text(encoding="utf-8")).get("variants", {})
    for variant in variants:
        assert recipes.load(path, variant=variant).name == f"{path.stem}-{variant}"


# ── hash and round trip ─────────────────────────────────────────────────────────────────


def reversed_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reversed_keys(value[key]) for key in reversed(value)}
    return [reversed_keys(v) for v in value] if isinstance(value, list) else value


def test_the_hash_does_not_know_the_order_of_keys(minimal: Path) -> None:
    raw = yaml.safe_load(MINIMAL)
    turned = reversed_keys(raw)
    assert list(turned) != list(raw)
    assert recipes.parse(turned, where="").digest() == recipes.load(minimal).digest()


def test_the_hash_knows_every_default(minimal: Path) -> None:
    plain = recipes.load(minimal)
    explicit = recipes.load(minimal, ["split.valid=1", "vocabulary.min_count=1", "model={}"])
    assert explicit.digest() == plain.digest()


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("train.epochs=7", {"train"}),
        ("features.shop={role: context}", {"features"}),
        ("split.test=2", {"split"}),
        ("filter=[{kind: keep, column: rating, is: '>', value: 3}]", {"filter"}),
        ("sources.log.nulls=['', NA]", {"sources"}),
        ("description=x", {"description"}),
    ],
)
def test_the_hash_changes_with_content_and_only_in_its_part(
    minimal: Path, override: str, parts: set[str]
) -> None:
    before, after = recipes.load(minimal), recipes.load(minimal, [override])
    assert after.digest() != before.digest()
    changed = {p for p in before.to_dict() if before.digest(p) != after.digest(p)}
    assert changed == parts


def test_values_of_different_types_have_different_hashes(minimal: Path) -> None:
    rule = "filter=[{{kind: keep, column: rating, is: '==', value: {}}}]"
    texts = [recipes.load(minimal, [rule.format(value)]).digest() for value in ("3", "'3'")]
    assert texts[0] != texts[1]


def test_the_hash_is_the_same_in_every_process(minimal: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from workflows import recipe;"
        "print(recipe.load(Path(sys.argv[1])).digest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code, str(minimal)],
            env={"PYTHONHASHSEED": seed},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert digests == {recipes.load(minimal).digest()}


def test_to_dict_parses_back_to_an_equal_recipe(minimal: Path) -> None:
    path = ROOT / "recipes" / "movielens-100k.yaml"
    for recipe in (recipes.load(minimal), recipes.load(path)):
        again = recipes.parse(recipe.to_dict(), where="manifest")
        assert again == recipe
        assert again.digest() == recipe.digest()
    assert recipes.load(path) != recipes.load(minimal)


#: PyYAML's writer loses some control characters; that is not ours to test.
words = st.text(st.characters(whitelist_categories=["L", "N", "P", "S", "Zs"]), max_size=5)


@settings(max_examples=40)
@given(
    nulls=st.lists(words, max_size=3),
    shares=st.tuples(st.floats(0, 0.49), st.floats(0, 0.49)),
    value=st.one_of(words, st.floats(allow_nan=False, allow_infinity=False)),
    layers=st.lists(st.integers(1, 16_384), max_size=3),
    policy=st.one_of(st.sampled_from(["error", "mean"]), st.floats(-1e9, 1e9)),
)
def test_any_valid_recipe_survives_yaml_and_back(
    nulls: list[str],
    shares: tuple[float, float],
    value: str | float,
    layers: list[int],
    policy: str | float,
) -> None:
    raw = yaml.safe_load(MINIMAL)
    raw["sources"]["log"]["nulls"] = nulls
    raw["split"] = {"kind": "time", "valid": shares[0], "test": shares[1]}
    raw["filter"] = [{"kind": "keep", "column": "rating", "is": "!=", "value": value}]
    raw["model"] = {"query_layers": layers}
    raw["features"]["x"] = {"role": "user", "kind": "number", "fill": policy}
    recipe = recipes.parse(raw, where="r.yaml")
    assert recipe.sources["log"].nulls == tuple(nulls)
    (rule,) = recipe.filter
    assert rule.value == value
    text = yaml.safe_dump(recipe.to_dict(), allow_unicode=True)
    back = recipes.parse(yaml.load(text, Loader), where="r.yaml")
    assert back == recipe


def test_a_list_and_its_weights_name_each_other(minimal: Path) -> None:
    lists = "features.shops={role: user, kind: categories, weights: shops_weight}"
    weights = "features.shops_weight={role: user, kind: weights}"
    found = recipes.load(minimal, [lists, weights])
    assert found.features["shops"].weights == "shops_weight"
    assert not found.features["shops_weight"].meaning.has_codes
    wrong = lists.replace("shops_weight", "shop_weight")
    with pytest.raises(RecipeError, match=r"'shop_weight', .* Did you mean 'shops_weight'\? known"):
        recipes.load(minimal, [wrong, weights])
    with pytest.raises(RecipeError, match="shops and shops_weight must have the same role"):
        recipes.load(minimal, [lists, weights.replace("user", "item")])
    with pytest.raises(RecipeError, match="shops_weight has kind weights, and 2 lists name it"):
        recipes.load(minimal, [lists, lists.replace("shops=", "brands="), weights])
    with pytest.raises(RecipeError, match="'shops' one_hot, which knows no weights"):
        recipes.load(minimal, [lists, weights, "model={combine: concat, dims: {shops: one_hot}}"])


def test_a_history_takes_its_name_from_no_feature(minimal: Path) -> None:
    history, feature = "history={columns: [item]}", "features.history_item={role: user}"
    recipes.load(minimal, [history])
    recipes.load(minimal, [feature])
    with pytest.raises(RecipeError, match="a feature may not be called 'history_item'"):
        recipes.load(minimal, [history, feature])


# ── slips that YAML takes for something else ────────────────────────────────────────────


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("files: *.csv", r"line 5, 'files: \*\.csv': while scanning an alias .*: put it in quotes"),
        ("files: *csv", r"found undefined alias .*put it in quotes"),
        ("files: @x", r"line 5, .*cannot start any token\. .*put it in quotes"),
        ("files: !x", r"line 5, .*could not determine a constructor .*put it in quotes"),
        ("files: a, delimiter: ::", r"line 5, .*mapping values are not allowed.*put it in quotes"),
        ("files: [a, |]", r"line 5, .*cannot start any token\. .*put it in quotes"),
        ("\tfiles: a", r"line 5, .*Indent with blanks, not with tabs"),
        ('files: "\\d"', r"line 5, .*unknown escape character .*take single ones"),
        ("files: |", r"Expected `str.* An unquoted \| or > begins a block of text .*in quotes"),
        ("files: ~", r"field sources.log.files: .*got `null`. To YAML an unquoted null, ~, # or"),
        (
            "{files: a, nulls: [NA, null]}",
            r"nulls\.1: Expected `str`, got `null`.*in quotes: \"null",
        ),
        ("{files: a, nulls: [NA, 0]}", r"nulls\.1: Expected `str`, got `int`.*put it in quotes"),
        (
            "files: s3://bucket/*.csv",
            r"field sources.log: files names 's3://.*: copy them into the",
        ),
    ],
)
def test_a_slip_is_told_with_its_remedy(tmp_path: Path, line: str, message: str) -> None:
    text = f"name: shop\nsplit: {{kind: random}}\nsources:\n  log:\n    {line}\n"
    rest = "interactions: log\nfeatures:\n  user: {role: user, id: true}\n"
    with pytest.raises(RecipeError, match=message):
        recipes.load(written(tmp_path, text + rest + "  item: {role: item, id: true}\n"))


def test_a_name_with_a_blank_is_told_what_a_name_is(tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"field name: .* A name has letters, digits, .*no blanks"
    ):
        recipes.load(written(tmp_path, MINIMAL.replace("name: shop", "name: My Shop")))


def test_a_home_folder_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = written(tmp_path, MINIMAL)
    for data, folder in (("~/raw", tmp_path / "raw"), ("~nobody-here", tmp_path / "~nobody-here")):
        asked = recipes.load(path, [f"data='{data}'"])
        assert recipes.data_folder(asked, path) == folder.resolve()


# ── YAML that is no plain data ──────────────────────────────────────────────────────────


@pytest.mark.parametrize("value", ["!!int abc", "!!float abc", "!!timestamp 2020"])
def test_a_tag_that_does_not_fit_its_value_is_refused(tmp_path: Path, value: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(f"name: {value}\n")
    with pytest.raises(RecipeError, match=r"x.yaml cannot be read as YAML"):
        recipes.load(path)
    path.write_text("name: x\n")
    with pytest.raises(RecipeError, match=r"--set 'train.epochs=.*the value is not YAML"):
        recipes.load(path, [f"train.epochs={value}"])


def test_a_value_that_contains_itself_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("name: x\n")
    with pytest.raises(RecipeError, match="a value contains itself"):
        recipes.load(path, ["train=&a [*a]"])


def test_a_variant_is_fields(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("name: x\nvariants: {v: 3}\n")
    with pytest.raises(RecipeError, match=r"variants.v: expected a mapping of fields, got 3"):
        recipes.load(path, variant="v")
