from __future__ import annotations

import json
import sys

import msgspec
import numpy as np
import pytest
from tiny_run import CPU, RECIPE, SETTINGS, Run, Tiny, World

import models.baselines.cost
from models.baselines.registry import BASELINES
from models.core.retriever import BrokenModel, Queries
from models.training.two_tower import TwoTower
from workflows import cli
from workflows.etl import etl
from workflows.evaluate import EvaluateResult, evaluate
from workflows.ground.errors import ArtifactError, DataError
from workflows.ranking.evaluation import TWO_TOWER, _Evaluation
from workflows.ranking.lists import further_protocols
from workflows.stages.etl import Prepared
from workflows.stages.evaluate import EvaluateFiles, Report, Sample
from workflows.stages.store import Store
from workflows.stages.train import load_model
from workflows.train import train


@pytest.fixture(scope="module")
def run(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a trained run that this file may evaluate."""
    return tiny.trained.branch(tmp_path_factory.mktemp("evaluate"), stages=("etl", "train"))


@pytest.fixture(scope="module")
def result(run: Run) -> EvaluateResult:
    return evaluate(run.recipe, run.store, CPU)


def rows_of(prepared: Prepared, *parts: str) -> list[tuple[int, int]]:
    """Return (user row, item row) of each interaction, part by part."""
    tables = [prepared.part(part) for part in parts]
    return [
        (int(u), int(i))
        for table in tables
        for u, i in zip(table["user_row"], table["item_row"], strict=True)
    ]


@pytest.fixture(scope="module")
def scores(run: Run) -> dict[str, np.ndarray]:
    """Return what two models give each item, by user row: float32 [n_users, n_items]."""
    prepared = Prepared.open(run.store, run.recipe)
    before = rows_of(prepared, "train", "valid")
    counts = np.bincount([i for _, i in before if i >= 0], minlength=len(prepared.raw_items))
    model = load_model(run.store, run.recipe, prepared)
    tower = TwoTower.of(model, prepared.users, prepared.items)
    histories = prepared.histories("train", "valid")
    shop, test = prepared.users["shop"][:-1].copy(), prepared.part("test")
    shop[test["user_row"]] = test["shop"]  # asked on the occasion of the one row that is withheld
    everybody = Queries(np.arange(len(histories)), histories, {"shop": shop})
    ours = tower.embed(everybody).astype(np.float64) @ tower.vectors.T.astype(np.float64)
    return {
        TWO_TOWER: ours.astype(np.float32),
        "popularity": np.tile(counts.astype(np.float32), (len(histories), 1)),
    }


def naive_recalls(run: Run, scores: np.ndarray, k: int, *, exclude: bool) -> dict[int, float]:
    """Return each test user's recall, with ties in no order: loops, and none of our metrics."""
    prepared = Prepared.open(run.store, run.recipe)
    before, test = rows_of(prepared, "train", "valid"), rows_of(prepared, "test")
    found: dict[int, float] = {}
    for user in sorted({u for u, _ in test}):
        mine = scores[user]
        seen = {i for u, i in before if u == user} if exclude else set()
        allowed = [i for i in range(len(mine)) if i not in seen]
        targets = [i for u, i in test if u == user]
        earned = 0.0
        for target in set(targets) - {-1}:
            if target in allowed:
                better = sum(mine[i] > mine[target] for i in allowed)
                tied = sum(mine[i] == mine[target] for i in allowed)
                earned += min(max(k - better, 0), tied) / tied
        found[user] = earned / (len(set(targets) - {-1}) + targets.count(-1))
    return found


@pytest.mark.parametrize("exclude", [True, False])
@pytest.mark.parametrize("model", [TWO_TOWER, "popularity"])
def test_recall_is_that_of_ten_naive_lines(run, result, scores, model, exclude):
    block = result.report.headline if exclude else result.report.beside["seen_kept"]
    assert block.protocol.exclude_seen == exclude
    for k in run.recipe.evaluate.ks:
        naive = naive_recalls(run, scores[model], k, exclude=exclude)
        figure = block.metrics[model][f"recall@{k}"]
        assert figure.mean == pytest.approx(np.mean(list(naive.values()))), k
        assert block.users == len(naive)


def test_the_report_is_written_and_signed(run, result):
    manifest = run.store.read("evaluate", run.recipe)
    raw = (run.store.folder("evaluate") / "report.json").read_bytes()
    assert msgspec.json.decode(raw, type=Report) == result.report
    means = {n: f.mean for n, f in result.report.headline.metrics[TWO_TOWER].items()}
    assert manifest.metrics == means
    assert manifest.rows == result.report.counts
    assert b"null" not in raw  # what was not computed is absent
    assert b"NaN" not in raw


def test_all_models_stand_in_every_block_with_its_protocol(result):
    report = result.report
    assert set(report.headline.metrics) == {TWO_TOWER, *BASELINES}
    assert set(report.differences.metrics) == set(BASELINES)
    assert set(report.beside) == {"per_row", "seen_kept", "tfrs_compat"}
    for block in (*report.segments.values(), report.beside["per_row"], report.beside["seen_kept"]):
        assert set(block.metrics) == {TWO_TOWER, *BASELINES}
    assert set(report.beside["tfrs_compat"].metrics) == {TWO_TOWER}
    assert report.beside["per_row"].protocol.averaged == "per row"
    assert report.beside["tfrs_compat"].protocol.hit == "by score"
    assert report.headline.protocol.hit == "by id"
    assert report.headline.protocol.split == "leave_last (valid 1, test 1)"
    assert "train and valid, the last of 1997" in report.headline.protocol.cut
    assert not report.headline.protocol.refit


def test_a_sample_of_users_is_measured_and_stated(run, scores, tmp_path):
    some = run.branch(tmp_path / "run", "evaluate.max_users=7", stages=("etl", "train"))
    report = evaluate(some.recipe, some.store, CPU).report
    naive = naive_recalls(run, scores[TWO_TOWER], 3, exclude=True)
    drawn = np.sort(np.random.default_rng(1).choice(len(naive), 7, replace=False))
    expected = np.array(list(naive.values()))[drawn]  # users in the order of their rows
    assert report.headline.metrics[TWO_TOWER]["recall@3"].mean == pytest.approx(expected.mean())
    blocks = [report.headline, report.differences, *report.beside.values()]
    assert {block.users for block in blocks} == {7}
    assert {block.protocol.sample for block in blocks} == {Sample(7, len(naive), 1)}
    assert (
        f"a random sample of 7 of {len(naive)} users (seed 1)" in report.headline.protocol.sentence
    )
    assert {one.valid_users for one in report.baselines.values()} == {7}


def test_differences_are_those_of_the_means(result):
    report = result.report
    for name, figures in report.differences.metrics.items():
        for metric, figure in figures.items():
            ours, theirs = (report.headline.metrics[m][metric].mean for m in (TWO_TOWER, name))
            assert figure.mean == pytest.approx(ours - theirs)


def test_users_and_targets_add_up(result):
    report = result.report
    counts, segments = report.counts, report.segments
    assert counts["users"] == counts["users_warm"] + counts["users_cold"] == report.headline.users

    def total(group: str) -> int:
        return sum(b.targets for name, b in segments.items() if name.startswith(group))

    assert counts["targets"] == total("users") == total("targets") == report.headline.targets
    assert sum(b.users for name, b in segments.items() if name.startswith("users")) == 9
    assert all(block.users and block.targets for block in segments.values())


@pytest.mark.usefixtures("eagerly")
def test_strangers_get_the_declared_fallback_and_are_counted(tmp_path):
    world = World(tmp_path / "raw")
    last = {"rating": 5, "shop": "web", "when": 990_000_000}
    for n, item in enumerate((3, 1, 2, 0, 4)):
        world.log.append({**last, "user_id": f"new {n}", "item_id": world.films[item]["item_id"]})
    world.text = RECIPE + SETTINGS
    world.write()
    quick = ("train.epochs=1", "evaluate.baselines=[popularity]")
    recipe = world.recipe("split={kind: time, valid: 0.1, test: 0.1}", *quick)
    store = Store(tmp_path / "run")
    etl(recipe, store, CPU, data=world.folder)
    train(recipe, store, CPU)
    by = {}
    for fallback in ("popularity", "tower"):
        report = evaluate(msgspec.structs.replace(recipe, fallback=fallback), store, CPU).report
        assert report.fallback == fallback
        assert report.counts["users_unknown"] == report.segments["users_unknown"].users == 5
        by[fallback] = report.segments["users_unknown"].metrics
    assert by["popularity"][TWO_TOWER] == by["popularity"]["popularity"]
    assert by["tower"][TWO_TOWER] != by["tower"]["popularity"]


def test_baselines_say_how_they_were_chosen(result):
    baselines = result.report.baselines
    assert set(baselines) == set(BASELINES)
    assert result.report.left_out == {}
    assert baselines["ease"].parameters["regularization"] > 0
    assert baselines["ease-decayed"].tried >= 15
    assert all(0 <= note.valid <= 1 for note in baselines.values())


def test_a_baseline_that_cannot_run_is_named_with_the_reason(run, monkeypatch, caplog):
    monkeypatch.setattr(models.baselines.cost, "available_memory", lambda: 3)
    recipe = run.world.recipe("evaluate.baselines=[ease, popularity]")
    report = evaluate(recipe, run.store, CPU).report
    assert set(report.headline.metrics) == {TWO_TOWER, "popularity"}
    assert "0.0 GiB of memory are free" in report.left_out["ease"]
    assert "ease is left out: a dense matrix of" in caplog.text
    assert "ease" not in report.baselines


def test_other_baselines_leave_the_trained_model_as_it_is(run):
    # else every change of them would ask for a new training
    recipe = run.world.recipe("evaluate.baselines=[popularity]", "evaluate.bootstrap=7")
    assert run.store.read("train", recipe) == run.store.read("train", run.recipe)


class Popular(TwoTower):
    """A two-tower of one dimension, in which every user likes what is popular."""

    def embed(self, queries: Queries) -> np.ndarray:
        return np.ones((len(queries), 1), np.float32)


@pytest.fixture
def popular(run: Run, result: EvaluateResult, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a model in the place of the trained one whose figures are known: popularity's."""
    rows = rows_of(Prepared.open(run.store, run.recipe), "train", "valid")
    counts = np.bincount([i for _, i in rows if i >= 0], minlength=14)[:, None]
    tower = Popular(None, {}, {}, counts.astype(np.float32))
    monkeypatch.setattr("workflows.ranking.evaluation.load_model", lambda *_: None)
    monkeypatch.setattr("workflows.ranking.evaluation.TwoTower.of", lambda *_: tower)
    views = EvaluateFiles(result.folder).read_inside()  # there is nothing to look into
    monkeypatch.setattr("workflows.ranking.evaluation.inside.analyse", lambda *_: views)


@pytest.mark.usefixtures("popular")
def test_seen_items_may_be_kept_in_the_headline(run, result):
    recipe = run.world.recipe("evaluate.exclude_seen=false", "evaluate.baselines=[popularity]")
    prepared = Prepared(run.store.folder("etl"), recipe)
    evaluation_set = prepared.evaluation_set("test", recipe.evaluate)
    others = further_protocols(recipe, prepared, evaluation_set)
    report, _ = _Evaluation(recipe, prepared, evaluation_set, others).run(run.store)
    assert not report.headline.protocol.exclude_seen
    assert report.beside["seen_excluded"].protocol.exclude_seen
    assert "seen_kept" not in report.beside
    kept = result.report.beside["seen_kept"].metrics["popularity"]
    assert report.headline.metrics["popularity"] == kept == report.headline.metrics[TWO_TOWER]


def last_rows(world: World) -> list[dict[str, object]]:
    """Return each user's last positive row, which is his test row."""
    last: dict[object, dict[str, object]] = {}
    for row in world.log:
        if None not in (row["user_id"], row["item_id"], row["when"]) and row["rating"] >= 3:
            last[row["user_id"]] = row
    return list(last.values())


def test_the_test_part_chooses_nothing(tmp_path):
    targets, notes = [], []
    for folder in (tmp_path / "one", tmp_path / "other"):
        folder.mkdir()
        world = World(folder / "raw", text=RECIPE + SETTINGS)
        if folder.name == "other":
            for row in last_rows(world):
                row["item_id"] = "000"
        quick = f"evaluate.baselines=[{', '.join(BASELINES[:-1])}]"  # als is slow
        recipe, store = world.write().recipe(quick), Store(folder / "run")
        etl(recipe, store, CPU, data=world.folder)
        prepared = Prepared.open(store, recipe)
        evaluation = _Evaluation(
            recipe, prepared, prepared.evaluation_set("test", recipe.evaluate), {}
        )
        assert [name for name, _ in evaluation._baselines()] == list(BASELINES[:-1])
        targets.append(prepared.raw_items["item_id"].take(evaluation.evaluation_set.targets.values))
        notes.append({n: (o.parameters, o.valid) for n, o in evaluation.baselines.items()})
    assert targets[0].to_pylist() != targets[1].to_pylist() == ["000"] * 9
    assert notes[0] == notes[1]


def test_a_model_of_no_numbers_is_an_error_that_names_it(run, monkeypatch):
    class Broken:
        def top_k(self, *_, **__):
            raise BrokenModel("3 of 9 scores are NaN; the model is broken.")

    monkeypatch.setattr("workflows.ranking.evaluation.TwoTower.of", lambda *_: Broken())
    with pytest.raises(ArtifactError, match="two-tower cannot be ranked: 3 of 9 scores are NaN"):
        evaluate(run.recipe, run.store, CPU)


def test_a_split_without_a_test_part_is_refused(tiny, monkeypatch):
    monkeypatch.setattr(Prepared, "evaluation_set", lambda *_: None)
    with pytest.raises(DataError, match="The split has no test part"):
        evaluate(tiny.trained.recipe, tiny.trained.store, CPU)


# ── the command ──


def command(run: Run, monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    """Run `two-tower evaluate` and return its exit code."""
    shared = ["--recipe", str(run.world.recipe_file), "--run", f"{run.store.root}/"]
    quick = ["--set", "evaluate.baselines=[popularity]", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["two-tower", "evaluate", *shared, *quick, *options])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


@pytest.mark.usefixtures("popular")
def test_the_command_prints_the_comparison(run, monkeypatch, capsys):
    assert command(run, monkeypatch) == 0
    out = capsys.readouterr().out
    assert "test of split leave_last (valid 1, test 1)" in out
    assert "two-tower minus it" in out
    assert "tfrs_compat: accuracy@1 two-tower" in out


@pytest.mark.usefixtures("popular")
def test_a_missed_lift_fails_the_command_after_the_report_is_written(run, monkeypatch, capsys):
    assert command(run, monkeypatch, "--min-lift", "popularity:1") == 0
    assert "missed" not in capsys.readouterr().err
    written = run.store.folder("evaluate") / "report.json"
    written.unlink()
    lifts = ("--min-lift", "popularity:1", "--min-lift", "popularity:1.01")
    assert command(run, monkeypatch, *lifts) == 3
    captured = capsys.readouterr()
    (line,) = [text for text in captured.err.splitlines() if "missed" in text]
    assert line == (
        "two-tower: missed lift: two-tower must have at least 1.01 times the recall@1 of "
        "popularity; it has 0.1111 against 0.1111, 1.00 times"
    )
    assert "two-tower minus it" in captured.out
    assert written.is_file()


def test_a_lift_that_says_nothing_is_refused_before_anything_runs(run, monkeypatch, capsys):
    assert command(run, monkeypatch, "--min-lift", "popularity=2") == 2
    assert "expected a baseline and a factor above 0" in capsys.readouterr().err


@pytest.mark.usefixtures("popular")
def test_as_json_the_command_prints_the_result_alone(run, monkeypatch, capsys):
    assert command(run, monkeypatch, "--json", "--min-lift", "als:1") == 3
    captured = capsys.readouterr()
    printed = json.loads(captured.out)
    assert set(printed) == {"folder", "report", "missed", "seconds"}
    (missed,) = printed["missed"]
    assert missed.endswith("which did not run: it is not among evaluate.baselines")
    assert missed in captured.err
