"""The graph: fitted values equal those of NumPy, tags follow the recipe, no pickle is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from merlin.io import Dataset
from merlin.schema import ColumnSchema, Schema, Tags
from merlin.schema.io.tensorflow_metadata import TensorflowMetadata
from stages import with_dictionaries

from models.towers.schema_file import write_schema
from workflows import recipe as recipes
from workflows.etl.encode import graph, ops
from workflows.etl.encode.graph import Fitted, NumberFact
from workflows.etl.encode.ops import CodeTable
from workflows.etl.shape.column_counts import count_columns
from workflows.ground.errors import ArtifactError
from workflows.ground.vocabulary import Vocabulary
from workflows.raw import dictionaries
from workflows.recipe import Recipe

FEATURES: dict[str, Any] = {
    "when": {"role": "time"},  # first, though it has no node of its own
    "user": {"role": "user", "id": True},
    "age": {"role": "user", "kind": "number", "fill": "median", "indicator": True},
    "city": {"role": "user"},
    "item": {"role": "item", "id": True, "input": False},
    "title": {"role": "item", "kind": "label"},
    "tags": {"role": "item", "kind": "categories", "separator": "|"},
    "price": {"role": "item", "kind": "number"},
    "stock": {"role": "item", "kind": "number", "fill": 0, "input": False},
    "shop": {"role": "context", "vocabulary": {"oov_buckets": 4}},
}


def recipe(**features: Any) -> Recipe:
    raw = {
        "name": "t",
        "sources": {"log": {"files": "log.csv"}},
        "interactions": "log",
        "split": {"kind": "leave_last"},
        "features": {**FEATURES, **features},
    }
    return recipes.parse(raw, where="test")


def frame(n: int = 50) -> pd.DataFrame:
    rng = np.random.default_rng(4)
    tags = [[], None, ["a"], ["a", "b"], ["c", "a", "b"]]
    return pd.DataFrame(
        {
            "when": np.arange(n),
            "user": rng.choice(["u1", "u2", "Ж"], n),
            "age": np.where(rng.random(n) < 0.2, np.nan, rng.normal(40, 9, n)).astype("float32"),
            "city": rng.choice(np.array(["x", "y", None], object), n),
            "item": rng.choice(["01", "1", "-1"], n),
            "tags": pa.array([tags[i % 5] for i in range(n)], pa.list_(pa.string())).to_pandas(),
            "price": rng.lognormal(2, 1, n).astype("float32"),
            "stock": np.where(rng.random(n) < 0.5, np.nan, 5).astype("float32"),
            "shop": rng.choice(["web", "app"], n),
        }
    )


USED = [c for c in FEATURES if c not in ("when", "title")]
ENCODED = [c for c in FEATURES if c != "title"]


def table(data: pd.DataFrame, columns: list[str]) -> pa.Table:
    return with_dictionaries(pa.Table.from_pandas(data[columns], preserve_index=False))


def fit(of: Recipe, data: pd.DataFrame, columns: list[str] | None = None) -> Fitted:
    found = table(data, USED if columns is None else columns)
    return graph.fit(of, *count_columns(of, found, is_whole=True))


def transform(
    of: Recipe, fitted: Fitted, data: pd.DataFrame, ids: dict[str, list[str]] | None = None
) -> tuple[pd.DataFrame, Schema]:
    columns = [c for c in ENCODED if c in data.columns]
    raw = table(data, columns)
    texts = {
        c: dictionaries.flatten(raw[c]).dictionary
        for c in columns
        if of.features[c].meaning.has_codes
    }
    lookups = {c: CodeTable.of(fitted.vocabularies[c], of_c) for c, of_c in texts.items()}
    rows = {
        c: np.array([known.index(t) if t in known else -1 for t in texts[c].to_pylist()] + [-1])
        for c, known in (ids or {}).items()
    }
    workflow = graph.build_workflow(of, lookups, fitted.numbers, columns, rows=rows)
    out = workflow.transform(ops.to_frame(ops.to_indices(raw), on_gpu=False))
    return out, workflow.output_schema


# ── fitting ─────────────────────────────────────────────────────────────────────────────


def test_statistics_are_those_of_numpy() -> None:
    data = frame()
    fitted = fit(recipe(), data)
    price, age = data["price"].to_numpy(np.float64), data["age"].to_numpy(np.float64)
    median = float(np.nanmedian(age))
    filled = np.where(np.isnan(age), median, age)
    stock = np.nan_to_num(data["stock"].to_numpy(np.float64))
    for name, values, fill in (
        ("price", price, price.mean()),
        ("age", filled, median),
        ("stock", stock, 0.0),
    ):
        fact = fitted.numbers[name]
        assert fact.mean == pytest.approx(values.mean(), rel=1e-5)
        assert fact.std == pytest.approx(values.std(ddof=1), rel=1e-4)
        assert fact.fill == pytest.approx(fill, rel=1e-5)
    assert np.isnan(age).sum() > 3, "there must be gaps to fill"


@pytest.mark.parametrize(("policy", "fill"), [("mean", 20.0), ("median", 10.0), (-1, -1.0)])
def test_each_null_policy_by_hand(policy: Any, fill: float) -> None:
    of = recipe(age={"role": "user", "kind": "number", "fill": policy})
    data = frame(4).assign(age=np.array([np.nan, 10, 40, 10], np.float32))
    fitted = fit(of, data)
    assert fitted.numbers["age"].fill == pytest.approx(fill)
    filled = np.array([fill, 10, 40, 10])
    out, _ = transform(of, fitted, data)
    expected = (filled - filled.mean()) / filled.std(ddof=1)
    assert out["age"].to_numpy() == pytest.approx(expected, abs=1e-5)
    assert "age_missing" not in out


def test_a_number_without_spread_or_without_values_becomes_zero() -> None:
    data = frame(6).assign(price=np.float32(7), age=np.float32("nan"))
    fitted = fit(recipe(), data)
    assert fitted.numbers["price"].mean == pytest.approx(7)
    assert fitted.numbers["price"].std == 0
    assert fitted.numbers["age"] == NumberFact(0.0, 0.0, 0.0)
    out, _ = transform(recipe(), fitted, data)
    assert out["price"].tolist() == [0.0] * 6
    assert out["age"].tolist() == [0.0] * 6
    assert out["age_missing"].tolist() == [1.0] * 6


def test_vocabularies_are_counted_with_pandas() -> None:
    data = frame()
    fitted = fit(recipe(), data)
    for name in ("user", "city", "item", "shop"):
        counts = data[name].value_counts()
        assert dict(
            zip(
                fitted.vocabularies[name].values.to_pylist(),
                fitted.vocabularies[name].counts,
                strict=True,
            )
        ) == dict(counts)
        assert fitted.vocabularies[name].null_count == data[name].isna().sum()
    elements = data["tags"].explode().dropna().value_counts()
    assert dict(
        zip(
            fitted.vocabularies["tags"].values.to_pylist(),
            fitted.vocabularies["tags"].counts,
            strict=True,
        )
    ) == dict(elements)
    assert fitted.vocabularies["shop"].oov_buckets == 4
    assert set(fitted.vocabularies) == {"user", "city", "item", "tags", "shop"}


@pytest.mark.parametrize(
    "columns", [["user", "item"], ["price"], []], ids=["categories", "numbers", "none"]
)
def test_any_columns_can_be_fitted(columns: list[str]) -> None:
    fitted = fit(recipe(), frame(), columns)
    assert set(fitted.vocabularies) | set(fitted.numbers) == set(columns)


# ── encoding ────────────────────────────────────────────────────────────────────────────


def test_encoded_rows_by_pandas() -> None:
    data = frame()
    fitted = fit(recipe(), data)
    out, _ = transform(recipe(), fitted, data)
    order = sorted(data["user"].unique(), key=lambda u: (-(data["user"] == u).sum(), u.encode()))
    assert out["user"].tolist() == [3 + order.index(u) for u in data["user"]]
    price = data["price"].to_numpy(np.float64)
    expected = (price - price.mean()) / price.std(ddof=1)
    assert out["price"].to_numpy() == pytest.approx(expected, abs=1e-4)
    assert out["age_missing"].tolist() == data["age"].isna().astype(float).tolist()
    codes = {"a": 3, "b": 4, "c": 5}
    assert out["tags"].tolist() == [
        [codes[t] for t in (tags if tags is not None else [])] for tags in data["tags"]
    ]
    assert out["shop"].min() >= 6  # pad, null and four unseen codes before it
    assert out["when"].tolist() == data["when"].tolist()
    assert {name: str(kind) for name, kind in out.dtypes.items()} == {
        "user": "int32",
        "age": "float32",
        "age_missing": "float32",
        "city": "int32",
        "item": "int32",
        "tags": "list<item: int32>[pyarrow]",
        "price": "float32",
        "shop": "int32",
        "when": "int64",
    }


def test_rows_of_tables_are_named() -> None:
    data = frame()
    fitted = fit(recipe(), data)
    rows = {"user": ["Ж", "u1"], "item": ["-1", "1", "01"]}
    out, schema = transform(recipe(), fitted, data, rows)
    assert out["user_row"].tolist() == [{"Ж": 0, "u1": 1}.get(u, -1) for u in data["user"]]
    assert out["item_row"].tolist() == [{"-1": 0, "1": 1, "01": 2}[i] for i in data["item"]]
    assert schema.column_names == list(out.columns)


def test_tags_and_domains_are_those_of_the_recipe() -> None:
    data = frame()
    fitted = fit(recipe(), data)
    rows = {"user": ["Ж"], "item": ["-1"]}
    _, schema = transform(recipe(), fitted, data, rows)
    categorical, continuous = {Tags.CATEGORICAL}, {Tags.CONTINUOUS}
    # Merlin's USER_ID stands for USER and ID
    assert {column.name: set(column.tags) for column in schema} == {
        "user": {Tags.USER, Tags.ID, *categorical},
        "age": {Tags.USER, *continuous},
        "age_missing": {Tags.USER, *continuous},
        "city": {Tags.USER, *categorical},
        "item": {Tags.ITEM, Tags.ID},  # no input: it names its rows and feeds no tower
        "tags": {Tags.ITEM, *categorical},
        "price": {Tags.ITEM, *continuous},
        "shop": {Tags.CONTEXT, *categorical},
        "user_row": set(),
        "item_row": set(),
        "when": set(),
    }
    assert schema.select_by_tag(Tags.USER_ID).column_names == ["user"]
    assert schema.select_by_tag(Tags.ITEM_ID).column_names == ["item"]
    # highest code: pad, null, unseen codes, values
    highest = {"user": 2 + 3, "city": 2 + 2, "item": 2 + 3, "tags": 2 + 3, "shop": 5 + 2}
    domains = {c.name: c.int_domain for c in schema if c.int_domain}
    assert {name: (d.min, d.max) for name, d in domains.items()} == {
        name: (0, top) for name, top in highest.items()
    }
    assert [c.name for c in schema if c.is_list] == ["tags"]
    assert schema["tags"].is_ragged
    assert str(schema["user"].dtype.name) == "int32"
    assert str(schema["price"].dtype.name) == "float32"


@pytest.mark.parametrize("first", [None, [], ["a"]])
def test_the_first_cell_does_not_decide_what_a_column_is(first: list[str] | None) -> None:
    data = frame()
    fitted = fit(recipe(), data)
    data["tags"] = pa.array([first, *data["tags"][1:]], pa.list_(pa.string())).to_pandas()
    data.loc[0, "city"] = None
    _, schema = transform(recipe(), fitted, data)
    assert schema["tags"].is_list
    assert not schema["city"].is_list


# ── on disk ─────────────────────────────────────────────────────────────────────────────


def test_e01_the_state_read_from_disk_transforms_as_the_fitted_one(tmp_path: Path) -> None:
    data = frame()
    fitted = fit(recipe(), data)
    fitted.write(tmp_path)
    again = Fitted.read(tmp_path)
    assert again.numbers == fitted.numbers
    unseen = data.assign(user="nobody", city="nowhere", shop=[f"s{n}" for n in range(len(data))])
    for rows in (data, unseen):
        one, schema = transform(recipe(), fitted, rows)
        two, schema_again = transform(recipe(), again, rows)
        pd.testing.assert_frame_equal(one, two, check_exact=True)
        assert schema == schema_again
    assert set(two["user"]) == {2}
    assert set(two["shop"]) == {2, 3, 4, 5}
    # text, JSON and parquet: nothing that runs code when it is read
    names = {p.suffix for p in tmp_path.rglob("*") if p.is_file()}
    assert names == {".parquet", ".json"}


def test_a_vocabulary_that_is_none_is_refused(tmp_path: Path) -> None:
    fit(recipe(), frame()).write(tmp_path)
    (tmp_path / "vocabulary" / "user.parquet").write_bytes(b"PAR1")
    with pytest.raises(ArtifactError, match=r"user\.parquet is not a vocabulary"):
        Fitted.read(tmp_path)


def test_a_grown_state_keeps_codes_and_scales() -> None:
    before = frame()
    after = before.assign(
        user=["new"] * 30 + ["u2"] * 20, price=(before["price"] * 100).astype("float32")
    )
    old, new = fit(recipe(), before), fit(recipe(), after)
    grown = new.grow_from(old)
    kept = old.vocabularies["user"].values.to_pylist()
    assert grown.vocabularies["user"].values.to_pylist() == [*kept, "new"]
    counts = dict(zip([*kept, "new"], grown.vocabularies["user"].counts, strict=True))
    assert counts == {"u1": 0, "Ж": 0, "u2": 20, "new": 30}
    assert grown.numbers == old.numbers
    assert grown.numbers != new.numbers
    one, _ = transform(recipe(), old, before)
    two, _ = transform(recipe(), grown, before)
    pd.testing.assert_frame_equal(one, two, check_exact=True)
    # a column that is new altogether has its own vocabulary and scale
    del old.vocabularies["city"]
    assert new.grow_from(old).vocabularies["city"] is new.vocabularies["city"]


def test_a_known_value_that_is_rare_now_keeps_its_code_and_its_count() -> None:
    texts = pa.array(["a", "b", "c", "d"])
    old = Vocabulary.build(texts.slice(0, 2), np.array([9, 8]), min_count=5)
    new = Vocabulary.build(texts, np.array([3, 9, 2, 7]), min_count=5)
    assert new.oov_count == 5
    grown = new.grow_from(old)
    assert grown.values.to_pylist() == ["a", "b", "d"]
    assert grown.counts.tolist() == [3, 9, 7]
    assert grown.oov_count == 2  # of c alone


def test_codes_cannot_be_kept_with_other_buckets() -> None:
    old = Fitted({"user": Vocabulary.build(pa.array(["a"]), np.array([1]), oov_buckets=2)})
    new = Fitted({"user": Vocabulary.build(pa.array(["a"]), np.array([1]), oov_buckets=3)})
    with pytest.raises(ArtifactError, match=r"has 2 oov_buckets, the recipe asks for 3; codes can"):
        new.grow_from(old)


# ── schema.pbtxt ────────────────────────────────────────────────────────────────────────


def test_a_schema_is_read_back_equal(tmp_path: Path) -> None:
    data = frame()
    _, schema = transform(recipe(), fit(recipe(), data), data)
    write_schema(schema, tmp_path / "schema.pbtxt")
    again = TensorflowMetadata.from_proto_text_file(
        str(tmp_path), "schema.pbtxt"
    ).to_merlin_schema()
    assert again.column_names == schema.column_names
    for column in schema:
        other = again[column.name]
        assert set(other.tags) == set(column.tags)
        assert other.dtype == column.dtype
        assert other.shape == column.shape
        for key, value in column.properties.items():
            assert other.properties[key] == value
    assert again["user"].int_domain.max == 5


def test_the_order_of_tags_and_properties_does_not_reach_the_file(tmp_path: Path) -> None:
    texts = set()
    tags, properties = (
        [Tags.USER, Tags.CATEGORICAL, "zebra", "ant"],
        {"b": 1, "a": [1, 2], "c": "x"},
    )
    for turn in (1, -1):
        column = ColumnSchema(
            "c",
            tags=tags[::turn],
            properties={key: properties[key] for key in list(properties)[::turn]},
            dtype=np.int32,
        )
        write_schema(
            Schema([column, ColumnSchema("d", dtype=np.float32)]), tmp_path / "schema.pbtxt"
        )
        texts.add((tmp_path / "schema.pbtxt").read_bytes())
    assert len(texts) == 1
    write_schema(Schema([ColumnSchema("d"), ColumnSchema("c")]), tmp_path / "schema.pbtxt")
    assert (tmp_path / "schema.pbtxt").read_bytes() not in texts


def test_a_dataset_takes_the_schema_that_lies_beside_it(tmp_path: Path) -> None:
    data = frame()
    out, schema = transform(recipe(), fit(recipe(), data), data)
    pq.write_table(ops.to_table(out), tmp_path / "part-0.parquet")
    write_schema(schema, tmp_path / "schema.pbtxt")
    dataset = Dataset(str(tmp_path), engine="parquet", cpu=True)
    assert set(dataset.schema["user"].tags) == {Tags.USER, Tags.ID, Tags.CATEGORICAL}
    assert len(dataset.to_ddf().compute()) == len(data)
