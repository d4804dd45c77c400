"""The headline figure, made again from the exported embeddings and the raw file alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from tiny_run import CPU, Tiny

from workflows.evaluate import evaluate
from workflows.ranking.evaluation import TWO_TOWER

K = 3


def test_embeddings_and_raw_file_give_the_reported_recall(tiny: Tiny, tmp_path):
    run = tiny.exported.branch(
        tmp_path / "run", "evaluate.baselines=[popularity]", stages=("etl", "train")
    )
    report = evaluate(run.recipe, run.store, CPU).report
    export = tiny.exported.store.folder("export")
    vectors = {
        side: dict(
            zip(table[f"{side}_id"].to_pylist(), table["embedding"].to_pylist(), strict=True)
        )
        for side in ("user", "item")
        for table in [pq.read_table(export / f"{side}_embeddings.parquet")]
    }
    log = pd.read_csv(run.world.folder / "log.csv", dtype={"user_id": str, "item_id": str})
    log = log.dropna(subset=["user_id", "item_id", "when"]).query("rating >= 3")
    hits = []
    for user, mine in log.sort_values("when", kind="stable").groupby("user_id"):
        *seen, target = mine["item_id"]
        if len(seen) < 2 or user not in vectors["user"]:
            continue
        scores = {i: np.dot(vectors["user"][user], v) for i, v in vectors["item"].items()}
        ahead = [i for i in scores if i not in seen and scores[i] > scores.get(target, np.inf)]
        hits.append(target in scores and target not in seen and len(ahead) < K)
    assert len(hits) == report.counts["users"]
    assert np.mean(hits) == pytest.approx(report.headline.metrics[TWO_TOWER][f"recall@{K}"].mean)
    assert 0 < np.mean(hits) < 1
