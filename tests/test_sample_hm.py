"""hm: Kaggle's three files, whose tastes depend on age, garment, style and month."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from samples import hm, learning_marks, sample
from samples.hm_items import GARMENTS

PAIRS = [
    ("product_type_no", "product_type_name"),
    ("graphical_appearance_no", "graphical_appearance_name"),
    ("colour_group_code", "colour_group_name"),
    ("perceived_colour_value_id", "perceived_colour_value_name"),
    ("perceived_colour_master_id", "perceived_colour_master_name"),
    ("department_no", "department_name"),
    ("index_code", "index_name"),
    ("index_group_no", "index_group_name"),
    ("section_no", "section_name"),
    ("garment_group_no", "garment_group_name"),
]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample("hm", "small", tmp_path_factory.mktemp("hm") / "raw").folder


@pytest.fixture(scope="module")
def articles(raw: Path) -> pd.DataFrame:
    return pd.read_csv(raw / "articles.csv", dtype={"article_id": str, "product_code": str})


@pytest.fixture(scope="module")
def customers(raw: Path) -> pd.DataFrame:
    # as text, but for the empty cell: "None" and "NONE" are values
    return pd.read_csv(raw / "customers.csv", dtype=str, keep_default_na=False, na_values=[""])


@pytest.fixture(scope="module")
def transactions(raw: Path) -> pd.DataFrame:
    return pd.read_csv(raw / "transactions_train.csv", dtype={"article_id": str})


def test_the_files_have_kaggles_headers(
    articles: pd.DataFrame, customers: pd.DataFrame, transactions: pd.DataFrame
) -> None:
    assert ",".join(transactions) == "t_dat,customer_id,article_id,price,sales_channel_id"
    assert ",".join(customers) == (
        "customer_id,FN,Active,club_member_status,fashion_news_frequency,age,postal_code"
    )
    assert ",".join(articles) == (
        "article_id,product_code,prod_name,product_type_no,product_type_name,product_group_name,"
        "graphical_appearance_no,graphical_appearance_name,colour_group_code,colour_group_name,"
        "perceived_colour_value_id,perceived_colour_value_name,perceived_colour_master_id,"
        "perceived_colour_master_name,department_no,department_name,index_code,index_name,"
        "index_group_no,index_group_name,section_no,section_name,garment_group_no,"
        "garment_group_name,detail_desc"
    )
    assert (len(articles), len(customers), len(transactions)) == (600, 1_500, 40_000)


def test_articles_are_colours_of_products(articles: pd.DataFrame) -> None:
    assert articles.article_id.is_unique
    assert articles.article_id.is_monotonic_increasing
    assert articles.article_id.str.fullmatch(r"0\d{9}").all()
    assert (articles.product_code == articles.article_id.str[:7]).all()
    assert set(articles.groupby("product_code").size()) == {1, 2, 3, 4}
    assert (articles.groupby("product_code").prod_name.nunique() == 1).all()


@pytest.mark.parametrize(("number", "name"), PAIRS)
def test_numbers_and_names_agree(articles: pd.DataFrame, number: str, name: str) -> None:
    assert (articles.groupby(number)[name].nunique() == 1).all()
    if number != "product_type_no":  # a girl's dress and a lady's are one type of two groups
        assert (articles.groupby(name)[number].nunique() == 1).all()


def test_articles_are_of_the_real_groups(articles: pd.DataFrame) -> None:
    assert set(articles.garment_group_name) == {g.name for g in GARMENTS}
    assert len(GARMENTS) == 21
    assert "Unknown" in set(articles.garment_group_name)
    shares = articles.index_group_name.value_counts(normalize=True)
    real = {"Ladieswear": 0.38, "Baby/Children": 0.33, "Divided": 0.14, "Menswear": 0.12}
    for name, share in real.items():
        assert shares[name] == pytest.approx(share, abs=0.08)
    assert articles.detail_desc.isna().sum() == round(0.004 * 600)
    assert not articles.drop(columns="detail_desc").isna().any().any()


def test_customers_have_the_real_gaps(raw: Path, customers: pd.DataFrame) -> None:
    n = len(customers)
    assert customers.customer_id.str.fullmatch("[0-9a-f]{64}").all()
    assert customers.customer_id.is_unique
    assert customers.customer_id.is_monotonic_increasing
    assert customers.age.isna().sum() == round(0.0116 * n)
    assert customers.age.dropna().str.fullmatch(r"\d\d\.0").all()
    assert customers.age.dropna().astype(float).between(16, 90).all()
    for column in ("FN", "Active"):
        assert customers[column].isna().sum() == 0.65 * n
        assert set(customers[column].dropna()) == {"1.0"}
    status = customers.club_member_status.value_counts(dropna=False)
    assert status["PRE-CREATE"] == round(0.068 * n)
    assert status["LEFT CLUB"] == 1
    assert customers.club_member_status.isna().sum() == round(0.0045 * n)
    news = customers.fashion_news_frequency
    assert set(news.dropna()) == {"NONE", "Regularly", "Monthly"}
    assert news.isna().sum() == round(0.012 * n)
    assert customers.postal_code.str.fullmatch("[0-9a-f]{64}").all()
    assert customers.postal_code.value_counts().iloc[0] > 0.08 * n


def test_transactions_are_receipts_in_order(
    articles: pd.DataFrame, customers: pd.DataFrame, transactions: pd.DataFrame
) -> None:
    keys = transactions.t_dat + transactions.customer_id
    assert keys.is_monotonic_increasing
    assert transactions.t_dat.min() >= "2018-09-20"
    assert transactions.t_dat.max() <= "2020-09-22"
    assert transactions.t_dat.nunique() == len(hm.DAYS) == 734
    assert set(transactions.article_id) <= set(articles.article_id)
    assert set(transactions.customer_id) <= set(customers.customer_id)
    assert 1 - transactions.customer_id.nunique() / len(customers) == pytest.approx(0.01)
    assert transactions.duplicated().mean() == pytest.approx(0.05, abs=0.002)
    assert transactions.price.between(0.0005, 0.5).all()
    assert (transactions.sales_channel_id == 1).mean() == pytest.approx(0.3, abs=0.01)


def test_prices_are_the_shops_in_kaggles_unit(raw: Path) -> None:
    prices = pd.read_csv(raw / "transactions_train.csv", dtype=str).price.unique()
    shop = [float(p) * 590 for p in prices]
    assert all(abs(s * 100 - round(s * 100)) < 1e-6 for s in shop)
    assert "0.05083050847457627" in prices  # 29.99, in every digit that Kaggle has


def joined(articles: pd.DataFrame, customers: pd.DataFrame, sales: pd.DataFrame) -> pd.DataFrame:
    rows = sales.merge(articles, on="article_id").merge(customers, on="customer_id")
    return rows.assign(age=rows.age.astype(float), month=rows.t_dat.str[5:7].astype(int))


def test_age_and_month_show_in_the_sales(
    articles: pd.DataFrame, customers: pd.DataFrame, transactions: pd.DataFrame
) -> None:
    rows = joined(articles, customers, transactions)
    divided, children = rows.index_group_name == "Divided", rows.index_group_name == "Baby/Children"
    assert divided[rows.age < 30].mean() > 1.5 * divided[rows.age >= 30].mean()
    assert children[rows.age.between(33, 43)].mean() > 1.5 * children[rows.age < 25].mean()
    june, december = rows.month == 6, rows.month == 12
    for name in ("Swimwear", "Shorts"):
        of = rows.garment_group_name == name
        assert june[of].mean() > 5 * december[of].mean()
    for name in ("Knitwear", "Outdoor"):
        of = rows.garment_group_name == name
        assert december[of].mean() > 5 * june[of].mean()


def test_the_oracle_earns_twice_what_popularity_does(raw: Path) -> None:
    marks = learning_marks(raw, k=10)
    assert marks.rows == 4_000
    assert marks.popularity == pytest.approx(0.16, abs=0.03)
    assert marks.popularity_in_month is not None
    assert marks.oracle_without_month is not None
    assert marks.popularity_in_month > marks.popularity + 0.02
    assert marks.oracle_without_month > 1.7 * marks.popularity
    assert marks.oracle > marks.oracle_without_month + 0.03


def test_batches_make_no_difference_to_the_sales(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = sample("hm", "tiny", tmp_path / "whole").folder
    monkeypatch.setattr(hm, "_BATCH", 100)
    parts = sample("hm", "tiny", tmp_path / "parts").folder
    tables = [
        pd.read_csv(folder / "transactions_train.csv", dtype=str) for folder in (whole, parts)
    ]
    one, other = tables
    assert len(one) == len(other) == 900
    for table in tables:
        assert (table.t_dat + table.customer_id).is_monotonic_increasing
    assert one.customer_id.value_counts().max() == pytest.approx(
        other.customer_id.value_counts().max(), rel=0.3
    )
