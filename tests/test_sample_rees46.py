"""rees46: five compressed months, in which a day's cart and purchase must not leak into history."""

from __future__ import annotations

import gzip
from pathlib import Path

import pandas as pd
import pytest

from samples import learning_marks, mini_batch_auc, sample

MONTHS = ["2019-Dec", "2020-Jan", "2020-Feb", "2020-Mar", "2020-Apr"]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample("rees46", "small", tmp_path_factory.mktemp("rees46") / "raw").folder


@pytest.fixture(scope="module")
def log(raw: Path) -> pd.DataFrame:
    """Return all events in the order of the files, times as text and days as dates."""
    parts = [pd.read_csv(raw / f"{month}.csv.gz") for month in MONTHS]
    assert all(len(set(p.event_time.str[:7])) == 1 for p in parts)
    log = pd.concat(parts, ignore_index=True)
    return log.assign(day=log.event_time.str[:10].astype("datetime64[s]"))


def of_kind(log: pd.DataFrame, kind: str) -> pd.DataFrame:
    return log[log.event_type == kind]


def test_the_files_have_the_real_header_and_form(raw: Path, log: pd.DataFrame) -> None:
    for month in MONTHS:
        with gzip.open(raw / f"{month}.csv.gz", "rt") as file:
            assert next(file) == (
                "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,"
                "user_session\n"
            )
    assert log.event_time.str.fullmatch(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC").all()
    assert log.event_time.is_monotonic_increasing
    days = [str(day.date()) for day in (log.day.min(), log.day.max())]
    assert days == ["2019-12-01", "2020-04-30"]
    assert [str(log[c].dtype) for c in ("product_id", "category_id", "price", "user_id")] == [
        *("int64", "int64", "float64", "int64")
    ]
    assert (log.category_id > 2**53).all()  # lost in a float
    uuid = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-a[0-9a-f]{3}-[0-9a-f]{12}"
    assert log.user_session.dropna().str.fullmatch(uuid).all()


def test_there_are_three_views_to_a_cart(log: pd.DataFrame) -> None:
    views, carts, purchases = (len(of_kind(log, k)) for k in ("view", "cart", "purchase"))
    assert views == 3 * carts
    assert carts == pytest.approx(64_800, rel=0.04)
    assert purchases / carts == pytest.approx(0.45 * 0.85, abs=0.02)


def test_items_have_the_real_gaps_and_one_description(log: pd.DataFrame) -> None:
    items = log.drop_duplicates("product_id")
    assert len(items) > 380
    told = log.groupby("product_id")[["category_id", "category_code", "brand", "price"]]
    assert (told.nunique(dropna=False) == 1).all().all()
    assert items.category_code.isna().mean() == pytest.approx(0.1, abs=0.01)
    assert items.brand.isna().mean() == pytest.approx(0.15, abs=0.01)
    codes = items.category_code.dropna()
    assert set(codes.str.count(r"\.") + 1) == {2, 3, 4}
    assert codes.nunique() >= 23
    levels = codes.str.split(".", expand=True)
    assert levels[0].nunique() == 6
    assert (levels[0] + levels[1]).nunique() == 14
    assert items.brand.nunique() >= 35
    homes = items.assign(top=levels[0]).groupby("brand").top.nunique()
    assert (homes <= 1).all()
    assert (items.price.round(2) == items.price).all()


def test_late_items_come_in_the_third_month(log: pd.DataFrame) -> None:
    first = log.groupby("product_id").day.min()
    assert (first >= "2020-02-01").mean() == pytest.approx(0.1, abs=0.03)
    assert (first < "2020-01-01").mean() > 0.8


def test_a_session_is_a_users_day(log: pd.DataFrame) -> None:
    days = log.groupby("user_session")[["user_id", "day"]].nunique()
    assert (days == 1).all().all()
    visits = log.drop_duplicates(["user_id", "day"])
    assert visits.user_session.isna().mean() == pytest.approx(0.01, abs=0.001)


def test_a_cart_follows_its_view_and_a_purchase_its_cart(log: pd.DataFrame) -> None:
    key = ["user_id", "day", "product_id"]
    views, carts, purchases = (
        of_kind(log, k).drop_duplicates(key).set_index(key).event_time
        for k in ("view", "cart", "purchase")
    )
    assert (views.reindex(carts.index) < carts).all()
    assert (carts.reindex(purchases.index) < purchases).all()  # on the same day


def test_some_users_are_odd(log: pd.DataFrame) -> None:
    purchases = of_kind(log, "purchase")
    buyers = purchases.user_id.nunique()
    assert log.user_id.nunique() == 6_000
    assert 1 - buyers / 6_000 == pytest.approx(0.15, abs=0.02)  # carts only
    a_day = purchases.groupby(["user_id", "day"]).size()
    assert (a_day > 8).sum() == 5
    events = log[log.event_type != "view"].sort_values("day", kind="stable")
    earlier = events.groupby(["user_id", "day"]).size().groupby("user_id").cumsum()
    bought = purchases.groupby("user_id").day.max()
    before = earlier.reset_index(name="n").merge(bought.rename("last"), on="user_id")
    before = before[before.day < before["last"]].groupby("user_id").n.max()
    assert (before > 100).sum() == 5
    days = purchases.groupby("user_id").day.nunique()
    assert (days >= 2).mean() == pytest.approx(0.92, abs=0.02)


def test_tastes_show_in_the_carts(log: pd.DataFrame) -> None:
    carts = of_kind(log, "cart").sort_values("user_id", kind="stable")
    carts = carts.assign(top=carts.category_code.str.split(".").str[0])
    following = carts.shift(-1)
    same_user = carts.user_id == following.user_id
    for column in ("top", "brand"):
        known = same_user & carts[column].notna() & following[column].notna()
        by_chance = (carts[column].value_counts(normalize=True) ** 2).sum()
        assert (carts[column] == following[column])[known].mean() > 1.5 * by_chance


def test_users_come_back_to_what_they_had_in_a_cart(log: pd.DataFrame) -> None:
    carts = of_kind(log, "cart")
    first = carts.groupby(["user_id", "product_id"]).day.transform("min")
    on_first_day = carts.day == carts.groupby("user_id").day.transform("min")
    later = carts[~on_first_day]
    assert (first < carts.day)[later.index].mean() == pytest.approx(0.83, abs=0.04)
    shuffled = carts.assign(product_id=carts.product_id.sample(frac=1, random_state=1).to_numpy())
    met = shuffled.groupby(["user_id", "product_id"]).day.transform("min") < shuffled.day
    assert met[later.index].mean() < 0.3, "by popularity alone they would not"


def test_popularity_does_not_tell_positives_from_negatives(raw: Path) -> None:
    popularity, oracle = mini_batch_auc(raw)
    assert popularity == pytest.approx(0.51, abs=0.02)
    assert oracle == pytest.approx(0.79, abs=0.02)


def test_the_oracle_ranks_better_than_popularity(raw: Path) -> None:
    marks = learning_marks(raw, k=10)
    assert marks.oracle > 1.2 * marks.popularity
    assert marks.oracle_without_month is not None
    assert marks.oracle >= marks.oracle_without_month  # it knows which items are not there yet
