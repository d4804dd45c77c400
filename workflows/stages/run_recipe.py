"""The recipe of a run, which verbs after etl use unless another recipe is named."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from workflows.ground.errors import MissingStage, RecipeError, StaleInput
from workflows.ground.invocation import DIGEST, FILE, Invocation
from workflows.recipe import Recipe
from workflows.stages.dependencies import INPUTS
from workflows.stages.manifest import Manifest
from workflows.stages.store import Store

#: Verbs that read an export.
_OF_EXPORT = ("recommend", "similar-items", "audience", "similar-offers", "serve", "load", "triton")


@dataclass(frozen=True)
class RunRecipe:
    """The recipe that a finished stage of a run was made from.

    Attributes:
        stage: the stage whose manifest holds the recipe.
        recipe: the recipe, with the settings that the stage was made with.
        file: path of the recipe's file at that time; None if it is not known.
    """

    stage: str
    recipe: Recipe
    file: Path | None


def of_run(store: Store, verb: str) -> RunRecipe | None:
    """Return the recipe in the newest stage that a verb reads; None if the run has no such stage.

    Raises:
        StaleInput, ArtifactError: the newest stage that the verb reads cannot be used.
    """
    for stage in _newest_first(verb):
        try:
            manifest = store.manifest(stage)
        except MissingStage:
            continue
        recipe = store.recipe(stage)
        try:
            store.read(stage, recipe, deep=False)
        except StaleInput:
            if stage == "index":  # its readers ignore an index of an earlier export
                continue
            raise
        return RunRecipe(stage, recipe, _file(store, manifest))
    return None


def _newest_first(verb: str) -> tuple[str, ...]:
    if verb in _OF_EXPORT:
        return ("index", "export", "train", "etl")
    reads = INPUTS.get(verb, ())
    earlier = ("train", "etl") if "export" in reads else ()
    return (*reversed(reads), *earlier)


def _file(store: Store, manifest: Manifest) -> Path | None:
    stored = manifest.options.get(FILE)
    return (store.root / stored).resolve() if stored else None


def refuse_another(store: Store, recipe: Recipe, invocation: Invocation) -> None:
    """Refuse to overwrite the etl stage of a run if it was made from another recipe file.

    An edited version or a copy of the recipe file that made the run is accepted.

    Raises:
        RecipeError: the run was made from another recipe file; the message names both files.
    """
    try:
        manifest = store.manifest("etl")
    except MissingStage:
        return
    before, now = _file(store, manifest), invocation.options(store.root)
    if before is None or not now or invocation.file is None or before == invocation.file.resolve():
        return
    if manifest.options.get(DIGEST) == now[DIGEST]:
        return
    name = manifest.recipe.get("name")
    same = f"also called {name!r}" if name == recipe.name else f"called {recipe.name!r}"
    raise RecipeError(
        f"{store.root} was made by the recipe file {before}, and {invocation.file} is another "
        f"one, {same}. Give it a run of its own: `two-tower etl --recipe {invocation.recipe} --run "
        f"NAME`; or remove {store.root} first, if that run is not needed any more."
    )
