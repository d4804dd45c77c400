"""The run remembers its recipe: the newest stage that a verb reads decides, options go on top."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from pathlib import Path

import pytest
from world import World

from workflows.cli import Call, main
from workflows.ground.device import Device
from workflows.ground.errors import MissingStage, RecipeError, StaleInput
from workflows.recipe import Recipe
from workflows.stages import run_recipe
from workflows.stages.store import Store

CPU = Device("cpu", "asked for by a test")
RUN = Path("runs/x")


@pytest.fixture(autouse=True)
def here(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The world, with its parent as working folder."""
    monkeypatch.chdir(world.folder.parent)
    return world


def make(stage: str, *settings: str, recipe: str = "", run: str = "x", text: str = "") -> Recipe:
    """Finish a stage as its verb would, with a file that stands for what it makes."""
    call = Call(recipe_name=recipe, run=run, settings=list(settings), verb=stage)
    of, store, _ = call.open(CPU)
    with store.write(stage, of, CPU) as draft:
        (draft.folder / "made").write_text(text + repr(of.digest()), encoding="utf-8")
    return of


def opened(verb: str, *settings: str, recipe: str = "", run: str = "x") -> Recipe:
    call = Call(recipe_name=recipe, run=run, settings=list(settings), verb=verb)
    return call.open(CPU)[0]


@pytest.fixture
def trained() -> Recipe:
    """A run whose etl and train stages were made with settings of their own."""
    make("etl", "split.test=2", "evaluate.bootstrap=20", recipe="raw/tiny.yaml")
    return make("train", "model.dim=8", "train.epochs=3")


# ── where it comes from ─────────────────────────────────────────────────────────────────


def test_verbs_after_train_need_nothing_but_the_run(trained: Recipe) -> None:
    assert (trained.split.test, trained.model.dim, trained.train.epochs) == (2, 8, 3)
    for verb in ("evaluate", "export"):
        assert opened(verb) == trained
        make(verb)
    for verb in ("index", "recommend", "serve", "load", "triton", "similar-items"):
        assert opened(verb) == trained, verb
    assert opened("report") == trained
    before = opened("tune")  # tune and train read etl alone
    assert (before.split.test, before.evaluate.bootstrap) == (2, 20)
    assert before.train.epochs != 3
    assert opened("train") == before


def test_settings_go_on_top_and_stay_with_the_stage_they_made(trained: Recipe) -> None:
    assert opened("evaluate", "evaluate.ks=[5]").evaluate.ks == (5,)
    assert opened("evaluate", "evaluate.bootstrap=7").model.dim == 8
    make("evaluate", "evaluate.bootstrap=7")
    assert opened("report").evaluate.bootstrap == 7
    assert opened("export").evaluate.bootstrap == 20


def test_another_kind_takes_the_place_of_the_block_of_the_first() -> None:
    make("etl", recipe="raw/tiny.yaml")
    assert opened("train", "model.dim=8").model.dim == 8
    changed = opened("train", "model.kind=popularity")
    assert type(changed.model).__name__ == "PopularityConfig"
    tracked = opened("train", "tracking.kind=mlflow")
    assert tracked.tracking is not None
    assert tracked.tracking.kind == "mlflow"


def test_a_recipe_that_is_given_is_taken_as_it_is(trained: Recipe, here: World) -> None:
    assert opened("evaluate", recipe="raw/tiny.yaml") == here.recipe()


def test_a_run_is_found_by_the_recipes_name_too(here: World) -> None:
    made = make("etl", "split.test=2", recipe="raw/tiny.yaml", run="")
    assert Store(Path("runs/tiny")).recipe("etl") == made
    assert opened("train", run="tiny") == made
    assert opened("train", run="./runs/tiny") == made


def test_in_a_checkout_the_first_recipe_names_the_run(here: World) -> None:
    Path("recipes").mkdir()
    text = here.text.replace("name: tiny", "name: movielens-100k")
    Path("recipes/movielens-100k.yaml").write_text(text, encoding="utf-8")
    made = make("etl", "split.test=2", run="")
    assert opened("train", run="") == made
    assert opened("train", recipe="movielens-100k", run="").split.test == 1


def test_an_index_of_an_earlier_export_does_not_count(trained: Recipe) -> None:
    make("export")
    make("index", "index.kind=hnsw")
    assert opened("recommend").index.kind == "hnsw"
    make("export", text="another ")
    assert opened("recommend").index.kind == trained.index.kind


def test_raw_files_are_found_again_when_all_of_it_has_moved(here: World) -> None:
    make("etl", recipe="raw/tiny.yaml")
    assert Call(run="x", verb="train").open(CPU)[2] == here.folder
    shutil.copytree(".", "../moved")
    moved = Call(run="../moved/runs/x", verb="train").open(CPU)[2]
    assert moved == here.folder.parents[1] / "moved" / "raw"


def test_the_first_line_says_what_is_worked_on(
    trained: Recipe, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        opened("export")
    assert caplog.messages == [
        "two-tower export: recipe tiny, run runs/x, device cpu (asked for by a test)"
    ]


# ── what is refused ─────────────────────────────────────────────────────────────────────


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str) -> str:
    """Run a command that is refused, and return its paragraph."""
    monkeypatch.setattr(sys, "argv", ["two-tower", *line.split()])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    (said,) = [
        line for line in capsys.readouterr().err.splitlines() if line.startswith("two-tower: ")
    ]
    return said


def test_a_stale_stage_is_told_with_both_values_and_the_whole_command(
    trained: Recipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "evaluate --run x --recipe raw/tiny.yaml --set split.test=2 --set train.epochs=9"
    assert refused(monkeypatch, capsys, line) == (
        "two-tower: runs/x/train was made from another recipe: model.dim was 8 and is 64 now; "
        "train.epochs was 3 and is 9 now. Run `two-tower train --recipe raw/tiny.yaml --run x "
        "--set split.test=2 --set train.epochs=9` (or `make train RECIPE=raw/tiny.yaml RUN=x "
        "SET='split.test=2 train.epochs=9'`) again. Or take the run's own recipe: `two-tower "
        "evaluate --run x`."
    )


def test_of_many_changes_the_first_are_told(trained: Recipe) -> None:
    fields = ("dim=4", "depth=1", "width=1", "dropout=0.5", "normalize=false", "item_bias=false")
    known = [f for f in fields if hasattr(trained.model, f.partition("=")[0])]
    settings = [*(f"model.{field}" for field in known), "train.epochs=1", "train.seed=9"]
    settings += ["train.batch_size=7", "train.patience=1"]
    with pytest.raises(StaleInput, match=r"model\.dim was 8 and is 4 now; .*, and \d more fields"):
        Store(RUN).read("train", opened("export", *settings))


def test_etl_made_anew_makes_train_stale_and_says_so(
    trained: Recipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make("etl", "split.test=3", recipe="raw/tiny.yaml")
    assert refused(monkeypatch, capsys, "evaluate --run x") == (
        "two-tower: runs/x/train was made from an earlier etl stage than the one in runs/x/etl. "
        "Run `two-tower train --run x` (or `make train RUN=x`) again."
    )


def test_a_run_that_is_not_there_is_told_with_those_that_are(trained: Recipe) -> None:
    with pytest.raises(
        MissingStage,
        match=r"^runs/z holds no finished stage\. Run `two-tower etl --recipe RECIPE --run z` .*"
        r"first, or name another run \(in runs/: x\)\.$",
    ):
        opened("evaluate", run="z")


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        (
            "etl",
            r"^etl needs a recipe\. Give --recipe with a name \(.*rees46\) or",
        ),
        ("train", r"or a \.yaml file, or --run \(in runs/: x\)\.$"),
    ],
)
def test_outside_a_checkout_nothing_is_taken_for_granted(
    trained: Recipe, verb: str, said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        opened(verb, run="")


def test_another_recipe_of_the_same_name_does_not_overwrite_a_run(here: World) -> None:
    make("etl", recipe="raw/tiny.yaml", run="")
    other = here.folder / "other.yaml"
    other.write_text(here.text + "description: another\n", encoding="utf-8")
    with pytest.raises(
        RecipeError,
        match=r"^runs/tiny was made by the recipe file .*raw/tiny\.yaml, and .*other\.yaml is "
        r"another one, also called 'tiny'\. Give it a run of its own: `two-tower etl --recipe "
        r"raw/other\.yaml --run NAME`",
    ):
        make("etl", recipe="raw/other.yaml", run="")
    make("etl", recipe="raw/other.yaml", run="mine")
    assert Store(Path("runs/tiny")).recipe("etl").description == ""


def test_an_edited_file_and_a_copy_of_it_are_no_other_recipe(here: World) -> None:
    make("etl", recipe="raw/tiny.yaml")
    copy = here.folder / "copy.yaml"
    copy.write_text(here.text, encoding="utf-8")
    make("etl", "split.test=2", recipe="raw/copy.yaml")
    copy.write_text(here.text + "description: edited\n", encoding="utf-8")
    assert make("etl", recipe="raw/copy.yaml").description == "edited"


def test_a_manifest_that_names_no_file_is_nobodys(here: World) -> None:
    with Store(RUN).write("etl", here.recipe(), CPU):
        pass
    assert json.loads((RUN / "etl" / "manifest.json").read_bytes())["options"] == {}
    found = run_recipe.of_run(Store(RUN), "train")
    assert found == run_recipe.RunRecipe("etl", here.recipe(), None)
    make("etl", recipe="raw/tiny.yaml")
