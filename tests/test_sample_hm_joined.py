"""hm-joined: the join of hm's three files by hand, and by us."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from samples import sample

HEADER = "user_id,item_id,t_dat,price,month_sin,month_cos,age,garment_group_name,index_group_name"
FILES = ("train_df.csv", "val_df.csv")


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample("hm-joined", "tiny", tmp_path_factory.mktemp("joined") / "raw", seed=4).folder


@pytest.fixture(scope="module")
def rows(joined: Path) -> pd.DataFrame:
    text = {"user_id": str, "item_id": str}
    return pd.concat([pd.read_csv(joined / name, dtype=text) for name in FILES])


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Return the join of hm's files, with the same seed."""
    raw = sample("hm", "tiny", tmp_path_factory.mktemp("hm") / "raw", seed=4).folder
    sales = pd.read_csv(raw / "transactions_train.csv", dtype={"article_id": str})
    articles = pd.read_csv(raw / "articles.csv", dtype={"article_id": str})
    customers = pd.read_csv(raw / "customers.csv").dropna(subset=["age"])
    return sales.merge(articles, on="article_id").merge(customers, on="customer_id")


def test_the_files_have_the_tutorials_header(joined: Path) -> None:
    for name in FILES:
        assert (joined / name).read_text().split("\n", 1)[0] == HEADER


def test_eight_and_one_of_ten_rows_are_written(
    joined: Path, rows: pd.DataFrame, by_hand: pd.DataFrame
) -> None:
    n = len(by_hand)
    assert n < 900  # some are of users without an age
    train, valid = (len(pd.read_csv(joined / name)) for name in FILES)
    assert train == pytest.approx(0.8 * n, abs=1)
    assert valid == pytest.approx(0.1 * n, abs=1)
    assert not rows.isna().any().any()


def test_every_row_is_one_of_the_join(rows: pd.DataFrame, by_hand: pd.DataFrame) -> None:
    names = {"customer_id": "user_id", "article_id": "item_id"}
    columns = [c for c in rows.columns if not c.startswith("month_")]
    expected = by_hand.rename(columns=names)[columns].value_counts()
    met = rows[columns].value_counts()
    assert (met <= expected.reindex(met.index, fill_value=0)).all()


def test_january_is_the_top_of_the_circle(rows: pd.DataFrame) -> None:
    turn = 2 * np.pi * (rows.t_dat.str[5:7].astype(int) - 1) / 12
    np.testing.assert_allclose(rows.month_sin, np.sin(turn), atol=1e-12)
    np.testing.assert_allclose(rows.month_cos, np.cos(turn), atol=1e-12)


def test_the_truth_is_that_of_the_three_files(joined: Path, tmp_path: Path) -> None:
    raw = sample("hm", "tiny", tmp_path / "raw", seed=4).folder
    assert (joined / "truth.parquet").read_bytes() == (raw / "truth.parquet").read_bytes()
