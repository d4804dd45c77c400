"""The search keeps its trials, goes on after an interruption, and looks at valid only."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import optuna
import pytest
import yaml
from tiny_run import CPU, Run, Tiny

from models.training.config import OptimizerConfig
from models.training.epoch import Epoch
from workflows import tune as verb
from workflows.ground.errors import DataError, RecipeError
from workflows.model_kinds.two_tower import TwoTowers
from workflows.recipe import Recipe, parse
from workflows.recipe.search_space import Range, TuneConfig, usual_space
from workflows.stages.etl import Prepared
from workflows.tune import Tried, tune

COSINES = (
    "tune.space={optimizer.lr: {low: 0.001, high: 0.1, log: true}, model.normalize: [false, true], "
    "loss.temperature: {low: 0.05, high: 0.3, only_if: {model.normalize: true}, otherwise: 1.0}}"
)
SPACE = "tune.space={optimizer.lr: {low: 0.001, high: 0.1, log: true}, model.dim: [4, 8]}"


def trials(run: Run) -> list[Tried]:
    path = run.store.folder("tune") / "trials.json"
    return msgspec.json.decode(path.read_bytes(), type=list[Tried])


@pytest.mark.usefixtures("eagerly")
def test_an_interrupted_search_goes_on(tiny: Tiny, tmp_path, monkeypatch):
    run = tiny.prepared.branch(tmp_path / "run", SPACE, "tune.trials=3", "train.epochs=1")
    value, calls = verb._value, []

    def dies_at_the_third(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return value(*arguments)

    monkeypatch.setattr(verb, "_value", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        tune(run.recipe, run.store, CPU)
    assert not run.store.folder("tune").exists()
    result = tune(run.recipe, run.store, CPU)
    assert len(calls) == 4  # two, the one that died, and one more
    assert result.trials == 3
    tried = trials(run)
    assert result.best.value == max(t.value for t in tried)
    assert {t.settings["model.dim"] for t in tried} <= {4, 8}
    assert all(0.001 <= t.settings["optimizer.lr"] <= 0.1 for t in tried)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("{optimizer.rate: [0.1]}", "unknown field `rate`"),
        ("{model.dim: [0]}", "field model.dim: Expected `int` >= 1"),
    ],
)
def test_a_space_that_the_recipe_does_not_have_is_refused(tiny: Tiny, tmp_path, space, message):
    run = tiny.prepared.branch(tmp_path / "run", f"tune.space={space}")
    with pytest.raises(RecipeError, match=message):
        tune(run.recipe, run.store, CPU)


@pytest.mark.parametrize("field", ["history.max_len", "optimiser.lr", "train.monitor", "split"])
def test_a_field_that_changes_no_fit_is_refused(tiny: Tiny, field: str):
    with pytest.raises(RecipeError, match=rf"space names '{field}'; expected a field of model"):
        tiny.prepared.world.recipe(f"tune.space={{{field}: [1, 2]}}")


class QuickFit:
    """What a search sees of a fit, without one: the value is a function of the learning rate."""

    def __init__(self, rates: OptimizerConfig) -> None:
        self.value = 1 - abs(rates.lr - 0.02)
        self.clock = SimpleNamespace(epochs=[0])

    def run(self) -> Epoch:
        return Epoch(0, {"val_mean": self.value}, 0.0)


def test_a_search_of_several_sessions_is_that_of_one(tiny: Tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(TwoTowers, "build", lambda *_: None)
    monkeypatch.setattr(TwoTowers, "fit", lambda self, *_, **__: QuickFit(self.recipe.optimizer))

    def searched(folder: str, *sessions: int) -> list[dict[str, Any]]:
        run = tiny.prepared.branch(tmp_path / folder)
        for n in sessions:
            recipe = run.world.recipe(COSINES, "train.epochs=1", f"tune.trials={n}")
            tune(recipe, run.store, CPU)
        return [one.settings for one in trials(run)]

    whole = searched("one", 4)
    assert searched("several", 1, 4) == whole
    assert len({str(settings) for settings in whole}) == 4
    for settings in whole:
        low, high = (0.05, 0.3) if settings["model.normalize"] else (1.0, 1.0)
        assert low <= settings["loss.temperature"] <= high


def asked(space: dict[str, Any], *drawn: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what a search sets where its sampler draws these values."""
    return [verb._suggest(optuna.trial.FixedTrial(values), space) for values in drawn]


def test_a_temperature_is_drawn_with_cosines_only():
    usual = {"optimizer.lr": 0.003, "model.dim": 64, "model.dropout": 0.2, "train.batch_size": 512}
    usual |= {"train.max_rows_per_user": None, "model.encoder.decay": 20.0}
    space = usual_space(ordered=True)
    cosine, product = asked(
        space,
        usual | {"model.normalize": True, "loss.temperature": 0.1},
        usual | {"model.normalize": False},  # a temperature that is asked for is an error here
    )
    assert cosine == usual | {"model.normalize": True, "loss.temperature": 0.1}
    assert product == usual | {"model.normalize": False, "loss.temperature": 1.0}


def test_a_range_without_otherwise_leaves_the_recipe_as_it_is():
    space = {
        "model.normalize": (False, True),
        "loss.temperature": Range(low=0.1, high=0.2, only_if={"model.normalize": True}),
    }
    assert asked(space, {"model.normalize": False}) == [{"model.normalize": False}]


def models_of(recipe: Recipe) -> TwoTowers:
    return TwoTowers(Prepared(Path("nowhere"), recipe))


@pytest.mark.parametrize(
    ("history", "ordered"),
    [
        ("{columns: [item_id]}", True),
        ("{columns: [item_id], before: day}", True),
        ("{columns: [item_id], before: others}", False),
        ("null", False),
    ],
)
def test_the_decay_of_a_history_is_searched_where_it_has_an_order(history, ordered):
    text = SHOP.replace("HISTORY", history)
    split = "random" if "others" in history else "time"
    recipe = parse(yaml.safe_load(text.replace("SPLIT", split)), where="here")
    space = verb._with_space(recipe, models_of(recipe)).tune.space
    assert ("model.encoder.decay" in space) == ordered
    assert space == usual_space(ordered=ordered)
    own = msgspec.structs.replace(recipe, tune=TuneConfig(space={"model.dim": (4,)}))
    assert verb._with_space(own, models_of(own)) is own


SHOP = """
name: shop
sources: {events: {files: events.csv}}
interactions: events
split: {kind: SPLIT, valid: 0.1, test: 0.1}
history: HISTORY
features:
  user_id: {role: user, id: true}
  item_id: {role: item, id: true}
  at: {role: time}
"""


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (
            "{loss.temperature: {low: 0.1, high: 1, only_if: {model.normalize: true}}, "
            "model.normalize: [true]}",
            "space draws 'loss.temperature' only if 'model.normalize' has a value; expected that "
            "field in the space before it, which holds: nothing",
        ),
        ("{model.dropout: {low: 0, high: 0.5, otherwise: 0.1}}", "otherwise is for a range with"),
    ],
)
def test_a_condition_that_cannot_be_met_is_refused(tiny: Tiny, space: str, message: str):
    with pytest.raises(RecipeError, match=message):
        tiny.prepared.world.recipe(f"tune.space={space}")


def test_a_range_goes_up(tiny: Tiny):
    with pytest.raises(RecipeError, match=r"a range goes up .*, got 2.0, 1.0"):
        tiny.prepared.world.recipe("tune.space={model.dropout: {low: 2, high: 1}}")


def test_without_a_valid_part_there_is_nothing_to_choose_by(tiny: Tiny, tmp_path):
    from tiny_run import prepare

    text = tiny.prepared.world.text.replace(
        "split: {kind: leave_last, valid: 1, test: 1}", "split: {kind: random, valid: 0, test: 0.2}"
    )
    run = prepare(tmp_path, text)
    with pytest.raises(DataError, match="tune chooses on the valid part; the split has none"):
        tune(run.recipe, run.store, CPU)


# ── the journal ─────────────────────────────────────────────────────────────────────────


def journal_of(folder: Path, *lines: bytes) -> Path:
    path = folder / verb.JOURNAL
    path.write_bytes(b"".join(lines))
    return path


WHOLE = [b'{"op_code": 0, "study_name": "a"}\n', b'{"op_code": 4}\n']


@pytest.mark.parametrize("torn", [b'{"op_co', b'{"op_code": 5}', b"\0\0\0\0", b"\n"])
def test_a_torn_last_line_is_left_out_and_the_search_kept(tmp_path: Path, torn: bytes) -> None:
    journal = journal_of(tmp_path, *WHOLE, torn)
    verb._mend(journal)
    assert journal.read_bytes() == b"".join(WHOLE)
    assert [p.name for p in tmp_path.iterdir()] == [verb.JOURNAL]


def test_a_sound_journal_is_left_as_it_is_and_a_missing_one_is_made(tmp_path: Path) -> None:
    journal = journal_of(tmp_path, *WHOLE)
    verb._mend(journal)
    assert journal.read_bytes() == b"".join(WHOLE)
    journal.unlink()
    verb._mend(journal)
    assert journal.read_bytes() == b""


def test_a_journal_with_damage_in_its_middle_is_set_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = journal_of(tmp_path, WHOLE[0], b"rubbish\n", WHOLE[1])
    verb._mend(journal)
    assert not journal.exists()
    kept = tmp_path / f"{verb.JOURNAL}.damaged"
    assert kept.read_bytes() == WHOLE[0] + b"rubbish\n" + WHOLE[1]
    assert "cannot be read and is set aside" in caplog.text


def test_a_journal_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / verb.JOURNAL).symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic"):
        verb._mend(tmp_path / verb.JOURNAL)
    assert (tmp_path / "victim").read_bytes() == b"precious"
