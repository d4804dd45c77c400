"""Ali-CCP: the reader returns every row and value of the raw lines, as naive loops do."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from impressions import RAW, Impressions, Line
from tiny_run import steps_run_eagerly

from samples import sample
from workflows import recipe as recipes
from workflows.etl import etl
from workflows.etl.read import sources
from workflows.export import export
from workflows.ground.device import Device
from workflows.ground.errors import RecipeError
from workflows.stages.embedding import RawTower
from workflows.stages.store import Store
from workflows.train import train


@pytest.fixture
def raw(tmp_path: Path) -> Impressions:
    return Impressions(tmp_path / "raw").write()


def expected(raw: Impressions) -> list[dict[str, Any]]:
    """Return what the raw lines say, one at a time."""
    rows = []
    for line in raw.log:
        if (line.click, line.conversion) == ("0", "1"):
            continue
        features = [*raw.common[line.shared], *line.features]
        one = {field: text for field, text, _ in features}
        rows.append(
            {
                "user_id": one.get("101"),
                "user_gender": one.get("124"),
                "user_brands": [text for field, text, _ in features if field == "127_14"],
                "item_id": one.get("205"),
                "item_category": one.get("206"),
                "user_item_brands": one.get("702"),
                "position": float(one["301"]),
                "click": float(line.click),
                "user_brands_weight": [float(v) for field, _, v in features if field == "127_14"],
            }
        )
    return rows


# ── every row, every value ──────────────────────────────────────────────────────────────


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("block", [200, 1_000, sources.BLOCK])
def test_e19_rows_are_those_of_naive_loops(raw: Impressions, parts: int, block: int) -> None:
    raw.write(parts=parts)
    found = sources.read(raw.recipe(), raw.folder, block=block)
    assert found.tables["log"].to_pylist() == expected(raw)
    assert len(expected(raw)) == 1_003 - 5


def test_the_sample_as_text_is_the_sample_as_parquet(tmp_path: Path) -> None:
    folder = sample("aliccp", "tiny", tmp_path / "raw").folder
    features = {
        name: {"role": role, "kind": kind}
        for name, role, kind in [
            ("user_profile", "user", "category"),
            ("user_age", "user", "category"),
            ("user_categories", "user", "categories"),
            ("user_shops", "user", "categories"),
            ("user_brands", "user", "categories"),
            ("user_intentions", "user", "categories"),
            ("item_shop", "item", "category"),
            ("item_intention", "item", "category"),
            ("user_item_intentions", "context", "category"),
        ]
    }
    for split, lines in (("train", 1_003), ("test", 301)):
        text = {
            "format": "aliccp",
            "files": f"{split}/sample_skeleton_*.csv",
            "common": f"{split}/common_features_*.csv",
        }
        tables = [
            sources.read(
                Impressions(tmp_path).recipe(
                    sources={"log": source}, features={**RAW["features"], **features}
                ),
                folder,
            ).tables["log"]
            for source in (text, {"files": f"{split}/*.parquet"})
        ]
        assert lines - 10 < len(tables[0]) < lines  # some were bought without a click
        assert tables[0].schema == tables[1].schema
        assert tables[0].to_pydict() == tables[1].to_pydict()


def test_those_bought_without_a_click_are_known_and_the_others_keep_their_place(
    raw: Impressions,
) -> None:
    raw.write(parts=2)
    found = sources.read(raw.recipe(), raw.folder, block=300)
    assert found.skipped["log"].tolist() == [0, 17, 18, 500, 1_002]
    assert [path.name for path in found.files["log"]] == [
        "skeleton0.csv",
        "skeleton1.csv",
        "common0.csv",
        "common1.csv",
    ]
    assert found.rows["log"] == [501, 502, 0, 0]
    # kept row → file, and row from 1
    for row, place in [(0, (0, 2)), (15, (0, 17)), (16, (0, 20)), (497, (1, 1)), (997, (1, 501))]:
        file, line = place
        assert found.place("log", row) == f"{raw.folder}/skeleton{file}.csv, row {line}"
    with pytest.raises(IndexError):
        found.place("log", 998)


def test_a_field_may_stand_in_both_files(raw: Impressions) -> None:
    line = raw.log[1]
    before = [text for field, text, _ in raw.common[line.shared] if field == "127_14"]
    line.features.insert(0, ("127_14", "777", "0.25"))
    raw.log[2].features.append(("127_14", "888", "0.5"))
    raw.write()
    table = sources.read(raw.recipe(), raw.folder).tables["log"]
    assert table.to_pylist() == expected(raw)
    assert table["user_brands"][0].as_py() == [*before, "777"]


def test_a_line_without_features_of_its_own_or_in_common(raw: Impressions) -> None:
    raw.common["bare"] = []
    raw.log[3] = Line("1", "0", "bare", [("205", "1", "1.0"), ("301", "2", "1")])
    raw.log[4].features = []
    raw.write()
    rows = sources.read(raw.recipe(), raw.folder).tables["log"].to_pylist()
    assert rows[2]["user_id"] is None
    assert rows[2]["user_brands"] == rows[2]["user_brands_weight"] == []
    assert rows[3]["item_id"] is rows[3]["position"] is None


def test_a_weight_of_a_single_value_is_a_number(raw: Impressions) -> None:
    features = {**RAW["features"], "user_item_brands_weight": {"role": "context", "kind": "number"}}
    features["user_item_brands_weight"]["fill"] = 0.0
    table = sources.read(raw.recipe(features=features), raw.folder).tables["log"]
    weights = table["user_item_brands_weight"].to_pylist()
    assert weights == [None if row["user_item_brands"] is None else 2.5 for row in expected(raw)]


def test_columns_can_be_renamed(raw: Impressions) -> None:
    source = {**RAW["sources"]["log"], "rename": {"user_brands": "brands", "item_id": "what"}}
    features = {
        "user_id": {"role": "user", "id": True},
        "brands": {"role": "user", "kind": "categories"},
        "what": {"role": "item", "id": True},
    }
    found = sources.read(raw.recipe(sources={"log": source}, features=features), raw.folder)
    table = found.tables["log"]
    assert table.column_names == ["user_id", "brands", "what", "brands_weight"]
    assert table["brands"].to_pylist() == [row["user_brands"] for row in expected(raw)]
    assert {"what", "item_shop"} <= set(found.columns["log"])


# ── the recipe ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "source", [{"files": "a.csv", "format": "aliccp"}, {"files": "a.csv", "common": "b.csv"}]
)
def test_common_features_belong_to_the_format(raw: Impressions, source: dict[str, str]) -> None:
    with pytest.raises(
        RecipeError, match=r"format: aliccp needs `common`, the files of common features, and no"
    ):
        raw.recipe(sources={"log": source})


# ── speed ───────────────────────────────────────────────────────────────────────────────


def test_reading_is_no_loop_over_rows(tmp_path: Path) -> None:
    """100,000 rows in a few seconds: a loop in Python that splits them takes longer."""
    raw = Impressions(tmp_path / "raw")
    raw.log = raw.log * 100
    raw.write()
    start = time.perf_counter()
    rows = sum(len(chunk) for chunk in sources.stream(raw.recipe(), "log", raw.folder))
    assert rows == 99_800
    assert time.perf_counter() - start < 20  # 1 s on two idle cores


# ── weights, from the raw files to the export ──


@pytest.mark.quality
@pytest.mark.usefixtures("checked_here")
def test_m07_lists_are_weighed_from_the_raw_files_to_the_export(tmp_path: Path) -> None:
    folder = sample("aliccp", "tiny", tmp_path / "raw").folder
    path = Path(__file__).parents[1] / "recipes" / "aliccp.yaml"
    small = [
        "train.epochs=1",
        "train.batch_size=4096",
        "evaluate.ks=[10]",
        "train.monitor=val_recall@10",
    ]
    recipe, store = recipes.load(path, small, variant="lists"), Store(tmp_path / "run")
    device = Device("cpu", "asked for by a test")
    etl(recipe, store, device, data=folder)
    with steps_run_eagerly():
        train(recipe, store, device)
    exported = export(recipe, store, device).folder  # which checks both forms of both towers
    users = pq.read_table(exported / "user_features.parquet")
    for name in ("user_shops", "user_intentions", "user_brands", "user_categories"):
        lists, weights = users[name].to_pylist(), users[f"{name}_weight"].to_pylist()
        assert [len(w) for w in weights] == [len(v) for v in lists]
        assert max(map(max, weights)) > min(map(min, weights)) > 0
        codes, encoded = (users[f"{name}{end}_input"].to_pylist() for end in ("", "_weight"))
        assert [len(v) for v in codes] == [len(v) for v in lists]
        assert encoded == weights
    tower = RawTower.open(exported / "query_tower_raw")
    vectors = pq.read_table(exported / "user_embeddings.parquet")["embedding"]
    expected = np.array(vectors.to_pylist(), np.float32)
    np.testing.assert_allclose(tower.embed(users), expected, rtol=1e-4, atol=1e-5)
    # what nobody tells weighs 1
    weights = [name for name in users.column_names if name.endswith("_weight")]
    ones = users
    for name in weights:
        of = pa.array([[1.0] * len(v) for v in users[name].to_pylist()], pa.list_(pa.float32()))
        ones = ones.set_column(ones.column_names.index(name), name, of)
    plain = tower.embed(users.select([c for c in users.column_names if c not in weights]))
    np.testing.assert_allclose(plain, tower.embed(ones), rtol=1e-4, atol=1e-5)
    assert np.abs(plain - expected).max() > 1e-3
