"""babyshop: hashed 64-bit ids, a log that pivots to train and test, a few liked brands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from samples import learning_marks, sample

FEATURES = ["gender_description", "brand", "product_group"]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample("babyshop", "tiny", tmp_path_factory.mktemp("babyshop") / "raw").folder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample("babyshop", "small", tmp_path_factory.mktemp("babyshop") / "raw").folder


def read(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / f"{name}.csv", dtype={"user_no": str, "item_no": str})


def test_the_files_have_the_real_headers(raw: Path) -> None:
    def header(name: str) -> str:
        return (raw / name).read_text(encoding="utf-8").split("\n", 1)[0]

    pairs = "user_no,item_no,gender_description,brand,product_group,first_interaction_month"
    assert header("train.csv") == header("test.csv") == pairs
    assert header("user_item_interactions.csv") == "user_no,item_no,date,eventtype"
    assert header("user_info.csv") == "user_no,country,aov,avg_markdown"
    assert header("item_info.csv") == (
        "item_no,colour,gender_description,brand,product_group,min_age,max_age"
    )


def test_train_and_test_are_the_pivoted_log(small: Path) -> None:
    log, info = read(small, "user_item_interactions"), read(small, "item_info")
    train, test = read(small, "train"), read(small, "test")
    assert log.date.is_monotonic_increasing
    first = log.drop_duplicates(["user_no", "item_no"]).set_index(["user_no", "item_no"])
    month = first.date.str[5:7].astype(int)
    pairs = pd.concat([train, test]).merge(info, on="item_no", suffixes=("", "_info"))
    assert not pairs.duplicated(["user_no", "item_no"]).any()
    by_pair = pairs.set_index(["user_no", "item_no"])
    pd.testing.assert_series_equal(
        by_pair.first_interaction_month.sort_index(), month.sort_index(), check_names=False
    )
    for name in FEATURES:
        assert (pairs[name] == pairs[f"{name}_info"]).all()
    assert len(test) == round(0.15 * len(pairs))
    assert pairs.groupby("user_no").size().between(1, 20).all()


def test_ids_are_signed_hashes_of_64_bits(small: Path) -> None:
    for name, column in (("item_info", "item_no"), ("train", "user_no")):
        ids = read(small, name)[column].drop_duplicates()
        numbers = np.array([int(i) for i in ids], np.int64)
        assert [str(n) for n in numbers] == ids.tolist()
        assert (numbers < 0).mean() == pytest.approx(0.5, abs=0.05)
        assert (np.abs(numbers.astype(float)) > 2**53).mean() > 0.99


def test_items_have_the_real_gaps(small: Path) -> None:
    info = read(small, "item_info")
    assert len(info) == 3_000
    assert info.item_no.is_unique
    assert info.min_age.isna().mean() == pytest.approx(0.195)
    assert (info.min_age.isna() == info.max_age.isna()).all()
    assert 1 <= (info.min_age == -1).sum() <= 6
    known = info[info.min_age >= 0]
    assert {0.125, 0.375, 0.625, 0.875, 14.0} <= set(known.min_age) | set(known.max_age)
    assert (known.min_age <= known.max_age).all()
    shares = info.gender_description.value_counts(normalize=True)
    assert shares["unisex"] == pytest.approx(0.465, abs=0.03)
    assert shares["girls"] == pytest.approx(0.345, abs=0.03)
    assert (info.colour.nunique(), info.product_group.nunique()) == (31, 40)
    assert info.brand.nunique() > 70
    assert any(not brand.isascii() for brand in info.brand.unique())


def test_events_are_of_the_four_kinds_in_the_right_shares(small: Path) -> None:
    log = read(small, "user_item_interactions")
    assert set(log.eventtype) == {"pageView", "addToCart", "addToWishlist", "purchased"}
    assert log.date.is_monotonic_increasing
    assert (log.date.min() >= "2021-01-01") & (log.date.max() <= "2021-11-30")
    kinds = log.groupby(["user_no", "item_no"]).eventtype.agg(set)
    bought = kinds[kinds.map(lambda k: "purchased" in k)]
    assert len(bought) / len(kinds) == pytest.approx(0.45, abs=0.001)
    assert (bought.map(len) == 1).mean() == pytest.approx(0.58, abs=0.001)


def test_users_are_half_known(small: Path) -> None:
    users = read(small, "user_info")
    assert len(users) == 420
    assert set(users.country) == {"sweden"}
    assert not users.isna().any().any()


def test_seasons_show_in_the_log(small: Path) -> None:
    pairs = pd.concat([read(small, "train"), read(small, "test")])
    june = pairs.first_interaction_month == 6
    swims = pairs.product_group.isin(["sandals", "swimwear"])
    assert june[swims].mean() > 3 * june[~swims].mean()
    autumn = pairs.first_interaction_month >= 9
    boots = pairs.product_group.isin(["boots", "coveralls"])
    assert autumn[boots].mean() > 1.5 * autumn[~boots].mean()
    busy = pairs.first_interaction_month.value_counts()
    assert busy[[9, 10, 11]].sum() > 1.3 * busy[[1, 2, 3]].sum()


def test_few_brands_and_groups_are_a_users_own(small: Path) -> None:
    train = read(small, "train").sort_values("user_no", kind="stable")
    following = train.shift(-1)
    same_user = train.user_no == following.user_no
    for column in ("brand", "product_group"):
        by_chance = (train[column].value_counts(normalize=True) ** 2).sum()
        assert (train[column] == following[column])[same_user].mean() > 1.5 * by_chance


def test_the_oracle_earns_three_times_what_popularity_does(small: Path) -> None:
    marks = learning_marks(small, k=100)
    assert marks.popularity == pytest.approx(0.16, abs=0.03)
    assert marks.oracle_without_month == pytest.approx(0.55, abs=0.03)
    assert marks.oracle > marks.oracle_without_month
