from __future__ import annotations

import io
import math

import msgspec
import numpy as np
import pytest
from rich.console import Console

from models.core import metrics
from models.core.evaluation_set import EvaluationSet
from models.core.intervals import bootstrap
from models.core.retriever import Queries, Ragged
from models.training.two_tower import TwoTower
from workflows.ground.errors import RecipeError
from workflows.ranking.by_score import hits_by_score
from workflows.ranking.figures import Tally
from workflows.ranking.lift import Lift
from workflows.ranking.segments import HISTORY_BANDS, bands, segments
from workflows.ranking.table import tables
from workflows.recipe.protocol import EvaluateConfig
from workflows.stages.evaluate import BaselineChoice, Block, Figure, Protocol, Report

CONFIG = EvaluateConfig(ks=(1, 3), bootstrap=200, seed=5)
PROTOCOL = Protocol(
    part="test",
    split="leave_last (valid 1, test 1)",
    cut="histories hold everything",
    candidates="catalogue",
    n_candidates=10,
    exclude_seen=True,
    level=0.95,
)
DRAW = np.random.default_rng(1)
N_USERS, N_ITEMS = 40, 10


def ragged(lists: list[list[int]]) -> Ragged:
    offsets = np.cumsum([0, *map(len, lists)])
    return Ragged(np.array([value for values in lists for value in values], np.int64), offsets)


LISTS = [DRAW.integers(-1, N_ITEMS, size=DRAW.integers(1, 5)).tolist() for _ in range(N_USERS)]
TARGETS = ragged(LISTS)
SHOWN = {
    name: np.argsort(DRAW.random((N_USERS, N_ITEMS)), axis=1)[:, :3] for name in ("ours", "theirs")
}
PLACES = {name: metrics.find_ranks(items, TARGETS) for name, items in SHOWN.items()}
TALLY = Tally(TARGETS, CONFIG)


def naive_recall(shown: np.ndarray, targets: list[int], k: int) -> float:
    wanted = {t for t in targets if t >= 0}
    return len(wanted & set(shown[:k].tolist())) / (len(wanted) + targets.count(-1))


# ── blocks ──


def test_the_headline_is_the_mean_over_users():
    block = TALLY.over_users(PLACES, PROTOCOL)
    assert (block.users, block.targets) == (N_USERS, len(TARGETS.values))
    for name, shown in SHOWN.items():
        values = [naive_recall(shown[u], LISTS[u], 3) for u in range(N_USERS)]
        figure = block.metrics[name]["recall@3"]
        assert figure.mean == pytest.approx(np.mean(values))
        assert figure.low < figure.mean < figure.high
        assert figure.standard_error == pytest.approx(np.std(values, ddof=1) / np.sqrt(N_USERS))
    assert set(block.metrics["ours"]) == {
        f"{kind}@{k}"
        for kind in ("recall", "ndcg", "mrr", "map", "hit_rate", "precision")
        for k in (1, 3)
    }


def test_differences_are_paired_user_by_user():
    per_user = {m: metrics.per_user(found, TARGETS, CONFIG.ks) for m, found in PLACES.items()}
    block = TALLY.differences(PLACES, PROTOCOL, ours="ours")
    assert list(block.metrics) == ["theirs"]
    for name, figure in block.metrics["theirs"].items():
        pairs = per_user["ours"][name] - per_user["theirs"][name]
        (expected,) = bootstrap(pairs[:, None], seed=5, n_resamples=200, level=0.95)
        got = (figure.mean, figure.low, figure.high, figure.standard_error)
        wanted = (expected.mean, expected.low, expected.high, expected.standard_error)
        assert got == pytest.approx(wanted)


def test_rows_are_counted_one_by_one_and_users_drawn_again():
    block = TALLY.over_rows(PLACES, PROTOCOL)
    rows = [(u, t) for u in range(N_USERS) for t in LISTS[u]]
    for name, shown in SHOWN.items():
        hit = np.array([t >= 0 and t in shown[u][:3] for u, t in rows])
        figure = block.metrics[name]["recall@3"]
        assert figure.mean == pytest.approx(hit.mean())
        # the ratio itself, users drawn again: its spread to first order is the figure's
        owners = np.array([u for u, _ in rows])
        hits, sizes = np.bincount(owners, hit), np.bincount(owners)
        drawn = np.random.default_rng(0).integers(0, N_USERS, size=(2000, N_USERS))
        ratios = hits[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
        assert figure.standard_error == pytest.approx(ratios.std(), rel=0.1)
    # a mean over users is another number
    assert block.metrics["ours"]["recall@3"].mean != pytest.approx(
        TALLY.over_users(PLACES, PROTOCOL).metrics["ours"]["recall@3"].mean
    )


def test_a_segment_is_measured_as_if_only_its_targets_were_wanted():
    even = TARGETS.values % 2 == 0
    block = TALLY.segment(PLACES, even, PROTOCOL, "even items")
    few = {u: [t for t in LISTS[u] if t % 2 == 0] for u in range(N_USERS)}
    few = {u: targets for u, targets in few.items() if targets}
    assert (block.users, block.targets) == (len(few), int(even.sum()))
    assert block.users < N_USERS
    for name, shown in SHOWN.items():
        values = [naive_recall(shown[u], targets, 3) for u, targets in few.items()]
        assert block.metrics[name]["recall@3"].mean == pytest.approx(np.mean(values))
    assert set(block.metrics["ours"]) == {"recall@1", "ndcg@1", "recall@3", "ndcg@3"}


def test_one_user_has_a_figure_but_no_interval():
    one = TARGETS.owners() == 3
    block = TALLY.segment(PLACES, one, PROTOCOL, "user 3")
    assert block.users == 1
    text = msgspec.json.decode(msgspec.json.encode(block.metrics["ours"]["recall@3"]))
    assert text == {"mean": pytest.approx(naive_recall(SHOWN["ours"][3], LISTS[3], 3))}


# ── segments ──


def evaluation_set(lengths: list[int], targets: list[list[int]]) -> EvaluationSet:
    histories = ragged([[0] * n for n in lengths])
    users = np.arange(len(lengths))
    warm = np.array(lengths) > 0
    return EvaluationSet(Queries(users, histories), ragged(targets), None, np.ones(8, bool), warm)


def test_bands_hold_a_third_of_all_interactions_each():
    # 30 interactions: 12 (nothing more popular), 8 (12 of 30), 4 and 4 (20), 1 and 1 (28)
    counts = np.array([4, 12, 1, 8, 0, 4, 1, 0])
    assert bands(counts).tolist() == [2, 0, 2, 1, 3, 2, 2, 3]
    assert bands(np.array([5, 5, 5, 0])).tolist() == [0, 0, 0, 3]  # equal counts stay together
    assert bands(np.zeros(3, int)).tolist() == [3, 3, 3]


def test_v08_segments_add_up():
    lengths = [0, 1, 4, 5, 9, 10, 49, 50, 199, 200, 1000]
    draw = np.random.default_rng(2)
    lists = [draw.integers(-1, 8, size=3).tolist() for _ in lengths]
    one = evaluation_set(lengths, lists)
    found = {s.name: s for s in segments(one, np.array([4, 12, 1, 8, 0, 4, 1, 0]))}
    everything = np.ones(33, int)
    for group in ("users", "history", "targets"):
        parts = [s.targets for name, s in found.items() if name.startswith(group)]
        if group == "history":  # who has none is a cold user
            parts.append(found["users_cold"].targets)
        np.testing.assert_array_equal(np.sum(parts, axis=0), everything)
    users = {name: len(set(one.targets.owners()[s.targets])) for name, s in found.items()}
    assert users["users_warm"] == 10
    bands_of_users = {name: n for name, n in users.items() if name.startswith("history")}
    assert bands_of_users == {
        "history_1-4": 2,
        "history_5-9": 2,
        "history_10-19": 1,
        "history_20-49": 1,
        "history_50-99": 1,
        "history_100-199": 1,
        "history_200+": 2,
    }
    assert len(bands_of_users) == len(HISTORY_BANDS)
    outside = found["targets_outside"].targets
    np.testing.assert_array_equal(outside, one.targets.values == -1)
    np.testing.assert_array_equal(
        found["targets_cold"].targets, np.isin(one.targets.values, [4, 7])
    )


def test_a_segment_without_targets_is_absent():
    names = [
        s.name
        for s in segments(evaluation_set([3, 2], [[1], [3]]), np.array([4, 12, 1, 8, 0, 4, 1, 0]))
    ]
    assert names == ["users_warm", "history_1-4", "targets_head", "targets_middle"]


# ── hits by score ──


class Vectors(TwoTower):
    """A two-tower whose users are given vectors."""

    def __init__(self, users: np.ndarray, items: np.ndarray) -> None:
        super().__init__(None, {}, {}, np.float32(items))
        object.__setattr__(self, "of_users", np.float32(users))

    def embed(self, queries: Queries) -> np.ndarray:
        return self.of_users[queries.users]


def test_v04_a_target_that_nobody_can_be_shown_is_a_hit_by_its_score():
    # one dimension: the items' scores of user 0 are their vectors
    tower = Vectors(np.array([[1.0], [1.0]]), np.array([[5.0], [4.0], [3.0], [9.0]]))
    candidates = np.array([True, True, True, False])
    targets = ragged([[1, 3], [-1]])
    one = EvaluationSet(
        Queries(np.arange(2), Ragged.empty(2)), targets, None, candidates, np.zeros(2, bool)
    )
    rows = {
        "user_row": np.array([0, 1, 0]),
        "item_row": np.array([1, -1, 3]),
        "colour": np.array([0, 7, 0]),
    }
    asked = []

    def embed_items(columns):
        asked.append(columns["colour"].tolist())
        return np.array([[4.5]], np.float32)

    got = hits_by_score(tower, one, rows, (1, 2), embed_items=embed_items)
    # user 0: item 1 (4) is second; item 3 (9) beats all, though it is no candidate
    # user 1: an item of no table scores 4.5, which only the first candidate exceeds
    assert asked == [[7]]
    assert {name: values.tolist() for name, values in got.items()} == {
        "accuracy@1": [1.0, 0.0],
        "accuracy@2": [2.0, 1.0],
    }
    by_id = metrics.hits_by_user(one.rank(tower, 2).ranks, targets, k=2)
    assert by_id.tolist() == [1.0, 0.0]


def test_v04_by_score_and_by_id_agree_where_all_targets_are_candidates():
    draw = np.random.default_rng(3)
    tower = Vectors(draw.normal(size=(30, 8)), draw.normal(size=(50, 8)))
    items = draw.integers(0, 50, size=30)
    targets = Ragged(items, np.arange(31))
    queries = Queries(np.arange(30), Ragged.empty(30))
    one = EvaluationSet(queries, targets, None, np.ones(50, bool), np.zeros(30, bool))
    rows = {"user_row": np.arange(30), "item_row": items}
    got = hits_by_score(tower, one, rows, (1, 5, 20), embed_items=None)
    for k in (1, 5, 20):
        by_id = metrics.hits_by_user(one.rank(tower, 20).ranks, targets, k=k)
        np.testing.assert_array_equal(got[f"accuracy@{k}"], by_id)


# ── lifts and the table ──


def report(**recalls: float) -> Report:
    def block(values: dict[str, float], **changes) -> Block:
        names = [f"{kind}@{k}" for kind in ("recall", "ndcg", "mrr") for k in (10, 20)]
        figures = {
            model: {name: Figure(value, value - 0.01, value + 0.01, 0.005) for name in names}
            for model, value in values.items()
        }
        protocol = msgspec.structs.replace(PROTOCOL, **changes)
        return Block(protocol=protocol, what="", users=9, targets=9, metrics=figures)

    named = {name.replace("_", "-"): value for name, value in recalls.items()}
    others = {m: named["two-tower"] - v for m, v in named.items() if m != "two-tower"}
    return Report(
        ours="two-tower",
        counts={
            "users": 1234,
            "users_cold": 5,
            "users_unknown": 2,
            "targets": 2345,
            "targets_cold": 6,
            "targets_outside_candidates": 7,
        },
        fallback="popularity",
        headline=block(named),
        differences=block(others),
        beside={"seen_kept": block(named, exclude_seen=False)},
        segments={"users_cold": block(named)},
        catalogue={model: {"coverage@10": 0.25} for model in named},
        baselines={
            "ease": BaselineChoice(
                parameters={"regularization": 50.0}, tried=6, valid=0.2, seconds=1.0
            )
        },
        left_out={"als": "the library [implicit] is not installed"},
        seconds={},
    )


REPORT = report(ease=0.12, two_tower=0.2, popularity=0.08, random=0.0)


def missed(text: str, of: Report = REPORT) -> str | None:
    return Lift.parse(text).missed(of, metric="recall@10")


def test_a_lift_is_cleared_or_missed_by_the_ratio():
    assert missed("popularity:2.5") is None  # exactly
    assert missed("popularity:2.51") == (
        "two-tower must have at least 2.51 times the recall@10 of popularity; it has 0.2000 "
        "against 0.0800, 2.50 times"
    )
    assert missed("random:100") is None  # any hit is more than none
    assert missed("random:1", report(two_tower=0.0, random=0.0)) is not None


def test_a_lift_over_a_model_that_did_not_run_is_missed_and_says_why():
    assert missed("als:1").endswith("did not run: the library [implicit] is not installed")
    assert missed("content:1").endswith("did not run: it is not among evaluate.baselines")


@pytest.mark.parametrize("text", ["popularity", "popularity:", "popularity:x", "pop:1.5", "als:0"])
def test_a_lift_is_a_baseline_and_a_factor(text):
    with pytest.raises(RecipeError, match=f"--min-lift '{text}': expected a baseline and a factor"):
        Lift.parse(text)


@pytest.mark.parametrize("width", [60, 80, 120, 160])
def test_the_table_shows_models_by_falling_recall_under_their_protocol(width):
    console = Console(width=width, file=io.StringIO(), record=True)
    for table in tables(REPORT, (10, 20)):
        console.print(table)
    text = console.export_text()
    assert "…" not in text
    words = " ".join(text.split())
    assert PROTOCOL.sentence in words
    assert "1,234 users (5 without a history, 2 of them unknown: answered by popularity)" in words
    rows = [line.split()[0] for line in text.splitlines() if line.startswith(" ") and line.strip()]
    order = [name for name in rows if name in REPORT.headline.metrics]
    four = ["two-tower", "ease", "popularity", "random"]
    assert order[:4] == four
    assert set(order) == set(four)  # narrow, they stand again in further tables
    assert "ease (best of 6" in text
    assert "regularization=50" in text
    assert "[+0.070, +0.090]" in text  # two-tower minus ease
    assert "seen_kept: recall@10 two-tower 0.2000, ease 0.1200" in words
    assert "als is left out: the library [implicit] is not installed" in words


def figures_of(report: Report) -> list[str]:
    """Return every figure of the comparison and of the segments as it is to be printed."""
    found = []
    for model, by_name in report.headline.metrics.items():
        found += [f"{f.mean:.4f}" for name, f in by_name.items() if not math.isnan(f.mean)]
        first = by_name["recall@10"]
        found.append(f"[{first.low:.3f}, {first.high:.3f}]")
        if model in report.differences.metrics:
            gain = report.differences.metrics[model]["recall@10"]
            found += [f"{gain.mean:+.4f}", f"[{gain.low:+.3f}, {gain.high:+.3f}]"]
    return found + [f"{block.users:,}" for block in report.segments.values()]


@pytest.mark.parametrize("width", [60, 80, 120, 160])
def test_every_figure_stands_whole_at_every_width(width):
    figures = {f"model_{i}_of_a_long_name": 0.1 + i / 1000 for i in range(9)}
    many = report(two_tower=0.2, **figures)
    notes = dict.fromkeys(many.headline.metrics, many.baselines["ease"])
    many = msgspec.structs.replace(many, baselines=notes)
    console = Console(width=width, file=io.StringIO(), record=True)
    for table in tables(many, (10, 20)):
        console.print(table)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    expected = figures_of(many)
    assert len(expected) > 50
    assert [figure for figure in expected if figure not in text] == []


def test_a_choice_at_an_edge_is_told():
    note = msgspec.structs.replace(REPORT.baselines["ease"], edge=("regularization",))
    text = printed(msgspec.structs.replace(REPORT, baselines={"ease": note}))
    assert "ease (best of 6, at the edge of regularization)" in text
    assert "ease (best of 6, inside)" in printed(REPORT)


@pytest.mark.parametrize("nothing", [None, math.nan])
def test_a_figure_that_does_not_exist_is_a_dash_and_comes_last(nothing):
    none = Figure(nothing)
    metrics = {m: dict.fromkeys(f, none) for m, f in REPORT.headline.metrics.items() if m == "ease"}
    block = msgspec.structs.replace(REPORT.headline, metrics={**REPORT.headline.metrics, **metrics})
    gains = msgspec.structs.replace(
        REPORT.differences, metrics={**REPORT.differences.metrics, **metrics}
    )
    text = printed(
        msgspec.structs.replace(
            REPORT,
            headline=block,
            differences=gains,
            beside={"seen_kept": block},
            segments={"users_cold": block},
            catalogue={model: {"coverage@10": nothing} for model in block.metrics},
        )
    )
    rows = [line.split() for line in text.splitlines() if line.startswith(" ") and line.strip()]
    (ease,) = (row for row in rows if row[0] == "ease")
    assert ease[-1] == "-"
    assert set(ease[5:]) == {"-"}
    names = [row[0] for row in rows if row[0] in REPORT.headline.metrics]
    assert names == ["two-tower", "popularity", "random", "ease"]
    assert "nan" not in text.lower().split()
    assert "None" not in text
    assert "ease -" in text


def printed(report: Report) -> str:
    console = Console(width=160, file=io.StringIO(), record=True)
    for table in tables(report, (10, 20)):
        console.print(table)
    return console.export_text()


def test_a_protocol_says_all_that_a_figure_depends_on():
    line = PROTOCOL.sentence
    for said in (
        "test of split leave_last (valid 1, test 1)",
        "histories hold everything",
        "catalogue of 10 items",
        "seen items excluded",
        "no refit",
        "hits by id",
        "ties: mean over all orders",
        "per user",
        "95%",
    ):
        assert said in line
    other = msgspec.structs.replace(PROTOCOL, exclude_seen=False, refit=True)
    assert "seen items kept; refitted on train and valid" in other.sentence
