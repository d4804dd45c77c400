"""lists: other rules, other candidates and the training rows, beside loops over the tiny world."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_run import CPU, SETTINGS, Run, Tiny
from world import RECIPE, UNSEEN, USERS, World

from models.core import metrics
from models.core.evaluation_set import build_evaluation_set
from models.core.exact import Exact
from models.core.intervals import bootstrap
from models.core.retriever import Interactions
from workflows.etl import etl
from workflows.evaluate import evaluate
from workflows.ranking.table import tables
from workflows.recipe.protocol import EvaluateConfig
from workflows.stages.etl import Prepared
from workflows.stages.evaluate import Report
from workflows.stages.store import Store
from workflows.train import train

KS = (1, 3, 10)
ALSO = (
    "evaluate.also=[{candidates: train, exclude_seen: false}, {candidates: catalogue}, "
    "{candidates: cold}]",
    "evaluate.train_rows=true",
    "evaluate.baselines=[popularity]",
)


@pytest.fixture(scope="module")
def run(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("lists") / "run"
    return tiny.trained.branch(folder, *ALSO, stages=("etl", "train"))


@pytest.fixture(scope="module")
def report(run: Run) -> Report:
    return evaluate(run.recipe, run.store, CPU).report


def rows_of(prepared: Prepared, *parts: str) -> list[tuple[int, int]]:
    return [
        (int(u), int(i))
        for part in parts
        for table in [prepared.part(part)]
        for u, i in zip(table["user_row"], table["item_row"], strict=True)
    ]


def share_found(run: Run, part: str, k: int, *, candidates: str, exclude: bool) -> float:
    """Return the share of rows that popularity finds among its first k, ties by halves: loops."""
    prepared = Prepared.open(run.store, run.recipe)
    before = rows_of(prepared, "train", "valid")
    counts = np.bincount([i for _, i in before if i >= 0], minlength=len(prepared.raw_items))
    trained = {i for _, i in rows_of(prepared, "train")}
    earned = 0.0
    wanted = rows_of(prepared, part)
    among = set(range(len(counts)))
    if candidates != "catalogue":
        among = trained if candidates == "train" else among - trained
    if candidates == "cold":
        wanted = [(user, item) for user, item in wanted if item in among]
    for user, item in wanted:
        seen = {i for u, i in before if u == user} if exclude else set()
        allowed = sorted(among - seen)
        if item in allowed:
            better = sum(counts[i] > counts[item] for i in allowed)
            tied = sum(counts[i] == counts[item] for i in allowed)
            earned += min(max(k - better, 0), tied) / tied
    return earned / len(wanted)


@pytest.mark.parametrize(
    ("block", "part", "candidates", "exclude"),
    [
        ("per_row", "test", "catalogue", True),
        ("train_seen_kept", "test", "train", False),
        ("catalogue_seen_excluded", "test", "catalogue", True),
        ("train_rows", "train", "catalogue", False),
    ],
)
def test_v01_shares_of_rows_are_those_of_loops(
    run: Run, report: Report, block: str, part: str, candidates: str, exclude: bool
):
    figures = report.beside[block].metrics["popularity"]
    for k in KS:
        expected = share_found(run, part, k, candidates=candidates, exclude=exclude)
        assert figures[f"recall@{k}"].mean == pytest.approx(expected), k


def test_v03_candidates_are_the_same_for_all_models_and_named(run: Run, report: Report):
    prepared = Prepared.open(run.store, run.recipe)
    protocol = report.beside["train_seen_kept"].protocol
    assert (protocol.candidates, protocol.exclude_seen) == ("train", False)
    assert protocol.n_candidates == np.count_nonzero(prepared.item_counts)
    assert protocol.n_candidates < report.headline.protocol.n_candidates == len(prepared.raw_items)
    for block in report.beside.values():
        if block.protocol.hit == "by id":
            assert set(block.metrics) == {"two-tower", "popularity"}


def test_cold_items_are_ranked_among_themselves_with_chance_beside(tmp_path: Path):
    world = World(tmp_path / "raw", text=RECIPE + SETTINGS)
    for user in USERS[:3]:  # their last events, of films that training does not have
        new = {"item_id": UNSEEN, "rating": 5, "shop": None, "when": 890_000_000}
        world.log += [{"user_id": user, **new}]
    world.films += [{**world.films[-1], "item_id": f"new{n}"} for n in range(3)]
    world.write()
    cold = ("evaluate.also=[{candidates: cold}]", "evaluate.baselines=[popularity]")
    run = Run(world, world.recipe("model={kind: popularity}", *cold), Store(tmp_path / "run"))
    etl(run.recipe, run.store, CPU, data=world.folder)
    train(run.recipe, run.store, CPU)
    report = evaluate(run.recipe, run.store, CPU).report
    block = report.beside["cold_seen_excluded"]
    n_cold = block.protocol.n_candidates
    counts = Prepared.open(run.store, run.recipe).item_counts
    assert n_cold == np.count_nonzero(counts == 0) >= 4
    assert (block.users, block.targets) == (3, 3)
    assert block.chance == {"recall@1": 1 / n_cold, "recall@3": 3 / n_cold, "recall@10": 1}
    found = block.metrics["popularity"]["recall@1"].mean
    assert found == pytest.approx(share_found(run, "test", 1, candidates="cold", exclude=True))
    lines = _lines(report)
    at = next(n for n, line in enumerate(lines) if f"rows among {n_cold} cold items" in line)
    assert lines[at + 1].split()[:2] == ["chance", f"{1 / n_cold:.4f}"]


def test_the_report_says_why_there_are_no_figures_of_cold_items(report: Report):
    assert "cold_seen_excluded" not in report.beside
    why = report.left_out["cold_seen_excluded"]
    assert why == "no test row has an item without training interactions"
    assert any(f"cold_seen_excluded is left out: {why}" in line for line in _lines(report))


def test_v05_leaving_out_seen_items_changes_the_ranks(report: Report):
    kept, left_out = (report.beside[f"{name}"] for name in ("seen_kept", "per_row"))
    assert kept.protocol.exclude_seen is False
    assert left_out.protocol.exclude_seen is True
    assert kept.metrics["popularity"] != report.headline.metrics["popularity"]


def test_v09_train_and_test_stand_side_by_side_with_their_errors(report: Report):
    text = "\n".join(_lines(report))
    assert report.beside["train_rows"].protocol.part == "train"
    for name, part in (("train_seen_kept", "test"), ("train_rows", "train")):
        n_items = report.beside[name].protocol.n_candidates
        assert f"{part} rows among {n_items} items, seen ones, too" in text
    figure = report.beside["train_rows"].metrics["two-tower"]["recall@3"]
    assert f"{figure.mean:.4f} ± {figure.standard_error:.4f}" in text


def _lines(report: Report) -> list[str]:
    from rich.console import Console

    console = Console(width=160)
    with console.capture() as captured:
        for table in tables(report, KS):
            console.print(table)
    return captured.get().splitlines()


def test_v09_the_error_of_a_share_is_that_of_the_binomial():
    """With a row a user, the bootstrap's standard error is sqrt(p (1 - p) / n)."""
    hits = np.random.default_rng(0).random((2_000, 1)) < 0.125
    (found,) = bootstrap(hits.astype(float), seed=1, n_resamples=1_000, level=0.95)
    p = hits.mean()
    assert found.standard_error == pytest.approx(np.sqrt(p * (1 - p) / 2_000), rel=0.06)


def test_v01_a_hundred_thousand_rows_are_ranked_in_blocks():
    """No loop over rows: 100,000 of them against 5,000 items, and some checked by hand."""
    n, n_items = 100_000, 5_000
    draw = np.random.default_rng(0)
    users = draw.normal(size=(n + 1, 8)).astype(np.float32)
    items = draw.normal(size=(n_items, 8)).astype(np.float32)
    wanted = draw.integers(0, n_items, n)
    nothing = np.zeros(0, np.int64)
    one = build_evaluation_set(
        np.arange(n),
        wanted,
        history=Interactions(nothing, nothing, None, n, n_items),
        item_counts=np.ones(n_items, np.int64),
        rules=EvaluateConfig(),
    )
    places = one.rank(Exact(users, items), 10).ranks
    hits = metrics.hits_by_user(places, one.targets, k=10)
    some = np.flatnonzero(hits)[:20].tolist() + list(range(80))
    for row in some:
        scores = users[row].astype(float) @ items.T.astype(float)
        assert (np.sum(scores > scores[wanted[row]]) < 10) == bool(hits[row])
