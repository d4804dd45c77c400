"""aliccp: the text files, parsed by hand, say what the parquet says; clicks follow tastes."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from samples import learning_marks, sample

SINGLES = {
    "101": "user_id",
    "121": "user_profile",
    "122": "user_group",
    "124": "user_gender",
    "125": "user_age",
    "126": "user_consumption_1",
    "127": "user_consumption_2",
    "128": "user_is_occupied",
    "129": "user_geography",
    "205": "item_id",
    "206": "item_category",
    "207": "item_shop",
    "210": "item_intention",
    "216": "item_brand",
    "301": "position",
    "508": "user_item_categories",
    "509": "user_item_shops",
    "702": "user_item_brands",
    "853": "user_item_intentions",
}
LISTS = {
    "109_14": "user_categories",
    "110_14": "user_shops",
    "127_14": "user_brands",
    "150_14": "user_intentions",
}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample("aliccp", "tiny", tmp_path_factory.mktemp("aliccp") / "raw").folder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample("aliccp", "small", tmp_path_factory.mktemp("aliccp") / "raw").folder


def parse(features: str) -> dict[str, list[tuple[int, float]]]:
    found = defaultdict(list)
    for feature in features.split("\x01"):
        field, rest = feature.split("\x02")
        number, weight = rest.split("\x03")
        found[field].append((int(number), float(weight)))
    return found


def lines(folder: Path, split: str) -> list[dict[str, Any]]:
    """Return what the skeleton says, line by line, joined with the common features."""
    common = {}
    for line in (folder / split / f"common_features_{split}.csv").read_text().splitlines():
        name, n, features = line.split(",")
        assert int(n) == len(features.split("\x01"))
        assert name not in common
        common[name] = parse(features)
    rows = []
    for line in (folder / split / f"sample_skeleton_{split}.csv").read_text().splitlines():
        number, click, conversion, name, n, features = line.split(",")
        assert int(n) == len(features.split("\x01"))
        assert int(number) == len(rows) + 1
        rows.append({"click": int(click), "conversion": int(conversion)})
        rows[-1]["fields"] = {**common[name], **parse(features)}
    return rows


def table(folder: Path, split: str) -> pa.Table:
    return pa.concat_tables([pq.read_table(p) for p in sorted((folder / split).glob("*.parquet"))])


@pytest.mark.parametrize(("split", "n"), [("train", 1_003), ("test", 301)])
def test_parquet_says_what_the_text_says(raw: Path, split: str, n: int) -> None:
    rows = lines(raw, split)
    assert len(rows) == n
    kept = [r for r in rows if (r["click"], r["conversion"]) != (0, 1)]
    assert len(kept) < len(rows)
    found = table(raw, split).to_pylist()
    assert len(found) == len(kept)
    for row, expected in zip(found, kept, strict=True):
        fields = expected["fields"]
        assert set(fields) <= set(SINGLES) | set(LISTS)
        assert (row["click"], row["conversion"]) == (expected["click"], expected["conversion"])
        for field, name in SINGLES.items():
            numbers = [number for number, _ in fields.get(field, [])]
            assert numbers == ([] if row[name] is None else [row[name]])
        for field, name in LISTS.items():
            assert row[name] == [number for number, _ in fields[field]]
            assert row[f"{name}_weight"] == pytest.approx([w for _, w in fields[field]])


def test_columns_are_those_of_nvidias_converter_and_the_weights(raw: Path) -> None:
    schema = pq.read_schema(raw / "train" / "train_0.parquet")
    lists = {name for of in LISTS.values() for name in (of, f"{of}_weight")}
    assert set(schema.names) == {*SINGLES.values(), *lists, "click", "conversion"}
    for field in schema:
        if field.name.endswith("_weight"):
            assert field.type == pa.list_(pa.float32())
        else:
            assert field.type == (pa.list_(pa.int32()) if field.name in lists else pa.int32())


def test_the_last_file_is_a_short_one(small: Path) -> None:
    counts = [pq.read_metadata(small / "train" / f"train_{n}.parquet").num_rows for n in range(7)]
    assert len(set(counts[:6])) == 1
    assert 0 < counts[6] < counts[0] / 100
    label = (small / "sample.json").read_text()
    assert f'"train/train_6.parquet": {counts[6]}' in label
    assert '"train/sample_skeleton_train.csv": 60003' in label


def test_a_cross_is_there_where_the_users_list_has_the_items_value(raw: Path) -> None:
    pairs = (("206", "109_14", "508"), ("207", "110_14", "509"), ("216", "127_14", "702"))
    rows = lines(raw, "train")
    for item, user, cross in pairs:
        # ids of the three fields count the same values, each from its own start
        starts = {f: min(v[0] for r in rows for v in r["fields"].get(f, [])) for f in (item, user)}
        met = 0
        for row in rows:
            fields = row["fields"]
            value = fields[item][0][0] - starts[item]
            weights = {number - starts[user]: w for number, w in fields[user]}
            assert (cross in fields) == (value in weights)
            if cross in fields:
                assert fields[cross][0][1] == weights[value]
                met += 1
        assert 0 < met < len(rows)


def test_a_few_snapshots_do_not_tell_the_user(small: Path) -> None:
    text = (small / "train" / "common_features_train.csv").read_text().splitlines()
    nameless = [line for line in text if ",101\x02" not in line]
    assert len(text) == 2_400
    assert len(nameless) == round(0.002 * 2_400)
    users = [line.split("101\x02")[1].split("\x03")[0] for line in text if line not in nameless]
    assert 1_995 <= len(set(users)) <= 2_000  # every fifth has a second snapshot
    assert table(small, "train")["user_id"].null_count > 0


def test_rates_are_those_that_were_planted(small: Path) -> None:
    rows = table(small, "train").to_pandas()
    assert rows.click.mean() == pytest.approx(0.14, abs=0.015)
    assert rows.conversion[rows.click == 1].mean() == pytest.approx(0.02, abs=0.001)
    by_position = rows.groupby("position").click.mean()
    assert list(by_position.index) == [1, 2, 3]
    assert by_position[1] > by_position[2] > by_position[3]
    assert rows.user_item_shops.isna().mean() > 0.6
    assert rows.user_consumption_1.isna().mean() == pytest.approx(0.3, abs=0.05)


def test_shops_belong_to_a_category(small: Path) -> None:
    items = table(small, "train").to_pandas().drop_duplicates("item_id")
    for column in ("item_shop", "item_brand", "item_intention"):
        assert (items.groupby(column).item_category.nunique() == 1).all()
    assert items.item_category.nunique() == 30


def test_clicks_follow_what_the_user_met_and_his_group(small: Path) -> None:
    rows = table(small, "train").to_pandas()
    liked = rows.user_item_shops.notna()
    assert rows.click[liked].mean() > 1.5 * rows.click[~liked].mean()
    clicks = rows[rows.click == 1]
    shares = pd.crosstab(clicks.user_group, clicks.item_category, normalize="index")
    assert (shares.max() > 2 * shares.mean()).mean() > 0.5


def test_the_oracle_earns_five_times_what_popularity_does(small: Path) -> None:
    marks = learning_marks(small, k=10)
    assert marks.popularity == pytest.approx(0.07, abs=0.02)
    assert marks.oracle == pytest.approx(0.45, abs=0.03)
    assert marks.popularity_in_month is None
