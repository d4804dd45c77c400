"""The benchmark against RecTools: what a peer is told, how its lists are measured, what is kept."""

from __future__ import annotations

import gzip
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from models.core.evaluation_set import EvaluationSet
from models.core.retriever import Queries, Ragged
from workflows.ground.device import Device

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import published

CPU = Device("cpu", "tests run on a CPU")
#: The events of three users, not in order; item z has no row, as nobody meets it in training.
EVENTS = """user_id,item_id,position
anna,a,0
anna,d,3
ben,b,0
anna,b,1
anna,c,2
ben,a,1
ben,d,2
ben,c,3
carl,c,0
carl,d,1
carl,z,2
carl,a,3
"""
ITEMS = "item_id,attributes\na,1|2\nb,2\nc,3\nd,1\n"


def lists(*of: list[int]) -> Ragged:
    return Ragged(np.array([i for one in of for i in one], np.int64), np.cumsum([0, *map(len, of)]))


def queries(*, seen: Ragged, targets: Ragged, n_items: int = 200) -> EvaluationSet:
    n = len(targets)
    everything = np.ones(n_items, bool)
    return EvaluationSet(Queries(np.arange(n), seen), targets, seen, everything, np.ones(n, bool))


def test_lists_are_measured_by_the_place_of_the_target() -> None:
    test = queries(seen=lists([0], [0], [0]), targets=lists([7], [8], [9]))
    items = np.arange(20, 320).reshape(3, 100) % 180 + 20
    items[0, 1], items[1, 99] = 7, 8  # second, hundredth, not at all
    items[2, 50:] = -1
    found = published.means(published.measure(test, items))
    expected = {"recall@10": 1 / 3, "ndcg@10": 1 / math.log2(3) / 3, "recall@100": 2 / 3}
    assert found == pytest.approx(expected, abs=1e-5)


def test_a_list_with_a_seen_item_is_refused() -> None:
    test = queries(seen=lists([3], [4]), targets=lists([1], [1]))
    published.measure(test, np.array([[4, -1], [3, -1]]))  # each other's items
    with pytest.raises(ValueError, match="2 items of the peer's lists were seen"):
        published.measure(test, np.array([[3, 5], [1, 4]]))


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of Beauty and MovieLens-1M with a few events."""
    monkeypatch.setattr(published.bench, "DATA", tmp_path / "runs")
    files = {"beauty": EVENTS, "ml1m_seq": EVENTS, "beauty_items": ITEMS}
    for file, text in files.items():
        with gzip.open(tmp_path / f"{file}.csv.gz", "wt") as out:
            out.write(text)
    return tmp_path


@pytest.mark.parametrize("name", ["beauty", "ml-1m"])
def test_a_peer_is_told_each_users_events_in_order_except_the_last(name: str, data: Path) -> None:
    prepared, _ = published.Fits(name, CPU, data, 1.0).prepare("")
    told = published.hand_over(prepared, published.held_out(prepared, "test"))
    users = np.array(prepared.raw_users["user_id"].to_pylist())
    items = np.array(prepared.raw_items["item_id"].to_pylist())
    events = {
        (part, user): items[told[f"{part}_items"]][users[told[f"{part}_users"]] == user].tolist()
        for part in ("train", "valid")
        for user in ("anna", "ben", "carl")
    }
    assert events == {
        ("train", "anna"): ["a", "b"],
        ("train", "ben"): ["b", "a"],
        ("train", "carl"): ["c", "d"],
        ("valid", "anna"): ["c"],
        ("valid", "ben"): ["d"],
        ("valid", "carl"): [],
    }
    assert sorted(users[told["users"]]) == ["anna", "ben", "carl"]


def test_a_baseline_has_the_figures_of_the_table(data: Path) -> None:
    figures = published.Fits("ml-1m", CPU, data, 1.0).baseline("popularity")
    # one item is left for anna and for ben; a and b, which are equally popular, for carl
    assert figures["recall@10"] == figures["recall@100"] == pytest.approx(1.0)
    assert figures["ndcg@10"] == pytest.approx((2 + (1 + 1 / math.log2(3)) / 2) / 3, abs=1e-5)


def test_figures_are_kept_fit_by_fit_and_not_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int]] = []

    def peer(fits: published.Fits, model: str, seed: int) -> dict[str, object]:
        asked.append((model, seed))
        if seed == 3:
            return {"failed": "out of memory"}
        return {"recall@10": seed / 10, "ndcg@10": 0.1, "recall@100": 0.5, "seconds": 2 * seed}

    monkeypatch.setattr(published, "RESULTS", tmp_path / "results" / "published.json")
    monkeypatch.setattr(published.Fits, "peer", peer)
    fits, model = published.Fits("beauty", CPU, tmp_path, 1.0), "RecTools SASRec, softmax"
    for seed in (1, 2, 1, 3):
        fits.fit(model, seed)
    assert asked == [(model, 1), (model, 2), (model, 3)]
    found = published.read_results()["beauty"]
    assert set(found[model]) == {"1", "2"}  # a failed fit is tried again by the next run
    table = published.as_table(published.DATASETS["beauty"], found).splitlines()
    assert f"| {model} | 0.1500 ± 0.0707 | 0.1000 ± 0.0000 | 0.5000 ± 0.0000 | 3 |  | 2 |" in table
    assert "| eSASRec (bench) | (0.0928) | (0.0523) |  |  |  |  |" in table


def test_a_peer_that_ran_out_of_time_goes_on_with_a_larger_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[float] = []

    def peer(fits: published.Fits, model: str, seed: int) -> dict[str, object]:
        limits.append(fits.limit)
        return {"seconds": min(fits.limit + 5, 30), "is_finished": fits.limit > 30}

    monkeypatch.setattr(published, "RESULTS", tmp_path / "published.json")
    monkeypatch.setattr(published.Fits, "peer", peer)
    for limit in (10.0, 10.0, 15.0, 20.0, 40.0, 60.0):
        published.Fits("ml-1m", CPU, tmp_path, limit).fit("RecTools SASRec, softmax", 1)
    assert limits == [10, 20, 40]


def test_baselines_are_fitted_once_and_words_choose_models() -> None:
    assert published.models(["SASRec", "ease"], first=True) == [*published.PEERS, "ease"]
    assert published.models([""], first=False) == [*published.OURS, *published.PEERS]
