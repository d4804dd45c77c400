"""The options that all command-line verbs share.

A verb is a function of a `Call` and of its own options.
"""

from __future__ import annotations

import dataclasses
import inspect
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from workflows.cli.interrupt import interruptible

if TYPE_CHECKING:
    from workflows.ground.device import Device
    from workflows.ground.invocation import Invocation
    from workflows.recipe import Recipe
    from workflows.stages.run_recipe import RunRecipe
    from workflows.stages.store import Store


log = logging.getLogger(__name__)

#: Verbs that need a recipe; all others read it from the run.
_FROM_RECIPE = ("fetch", "sample", "etl", "")


@dataclasses.dataclass(frozen=True)
class Call:
    """The options that every verb has; methods open the recipe, run and device that they name."""

    recipe_name: Annotated[
        str,
        typer.Option(
            "--recipe",
            help="A name in recipes/ or a .yaml file; NAME:VARIANT for a variant. Default: the "
            "recipe of the run, with its settings; for etl in a checkout: movielens-100k.",
        ),
    ] = ""
    run: Annotated[
        str,
        typer.Option(
            "--run",
            help="Name of a run in runs/, or the path of a run or of a copied export. Default: the "
            "name of the recipe.",
        ),
    ] = ""
    device_name: Annotated[str, typer.Option("--device", help="Device: auto, cpu or gpu.")] = "auto"
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Set a field of the recipe, such as train.epochs=3. May be repeated."
        ),
    ] = None
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False
    #: Name of the verb that is called; "" for a process that calls several.
    verb: str = ""

    def device(self) -> Device:
        """Choose CPU or GPU for this process; call this before TensorFlow is imported."""
        from workflows.ground import device

        requested = None if self.device_name == "auto" else self.device_name
        return device.choose(requested, verb=self.verb)

    def open(self, device: Device | None = None) -> tuple[Recipe, Store, Path]:
        """Return the recipe, run and folder of raw data that the options name, and log them.

        Args:
            device: the device of this process; None for a verb that needs no device.

        Raises:
            RecipeError: the verb does not support the recipe's kind of model.
        """
        from workflows.model_kinds import refuse_verb
        from workflows.stages.run_recipe import refuse_another

        recipe, store, data = self._opened()
        refuse_verb(recipe, self.verb)
        if self.verb == "etl":
            refuse_another(store, recipe, store.invocation)
        on = f", device {device.kind} ({device.why})" if device else ""
        log.info("two-tower %s: recipe %s, run %s%s", self.verb, recipe.name, store.path, on)
        return recipe, store, data

    def store(self, run: str) -> Store:
        """Return the store (access to the stages) of a run, given its name in runs/ or its path."""
        from workflows.stages.store import Store

        return Store(_folder(run))

    def root(self) -> Path:
        """Return the folder of the run, even if it does not exist.

        Raises:
            RecipeError: neither a run nor a recipe is named, or the recipe does not exist.
        """
        return _folder(self.run or self._read()[0].name)

    def _opened(self) -> tuple[Recipe, Store, Path]:
        """Return what `open` returns, without its check of the kind of model and its log line."""
        from workflows import recipe as recipes
        from workflows.ground.invocation import Invocation
        from workflows.stages.store import Store

        invocation = Invocation(self.verb, self.recipe_name, self.run, tuple(self.settings or ()))
        found = self._run_recipe(invocation)
        if found is None:
            recipe, path = self._read()
            store = Store(
                _folder(self.run or recipe.name), dataclasses.replace(invocation, file=path)
            )
            return recipe, store, recipes.data_folder(recipe, path)
        store = Store(self.root(), dataclasses.replace(invocation, file=found.file))
        where = str(store.folder(found.stage))
        recipe = recipes.override(found.recipe, invocation.settings, where=where)
        return recipe, store, recipes.data_folder(recipe, found.file or store.root)

    def _run_recipe(self, invocation: Invocation) -> RunRecipe | None:
        """Return the recipe that a run holds; None if the options name another recipe instead.

        Raises:
            MissingStage: the run that is named does not exist.
        """
        from workflows.ground.errors import MissingStage
        from workflows.stages import run_recipe
        from workflows.stages.store import Store

        if self.recipe_name or self.verb in _FROM_RECIPE:
            return None
        store = Store(self.root(), invocation)
        found = run_recipe.of_run(store, self.verb)
        if found is None and store.is_copy:
            raise MissingStage(
                f"{store.path} is an export without its run, and `{self.verb}` reads other stages "
                "of the run. Name the run that made it."
            )
        if found is None and self.run:
            raise MissingStage(
                f"{store.root} holds no finished stage. Run {invocation.command('etl')} first, or "
                f"name another run (in runs/: {_runs()})."
            )
        return found

    def _read(self) -> tuple[Recipe, Path]:
        """Return the recipe that the options name, or the default of a checkout, and its file."""
        from workflows import recipe as recipes
        from workflows.ground.errors import RecipeError

        named = self.recipe_name or recipes.default_name()
        if not named:
            known = ", ".join(recipes.known_names())
            or_run = "" if self.verb in _FROM_RECIPE else f", or --run (in runs/: {_runs()})"
            raise RecipeError(
                f"{self.verb or 'two-tower'} needs a recipe. Give --recipe with a name ({known}) "
                f"or a .yaml file{or_run}."
            )
        name, _, variant = named.partition(":")
        path = recipes.find(name)
        return recipes.load(path, self.settings or [], variant=variant), path


def _runs() -> str:
    """Return the names of the folders in runs/ that hold an etl stage, or an export."""
    patterns = ("*/etl", "*/export", "*/manifest.json")
    found = {path.parent.name for pattern in patterns for path in Path("runs").glob(pattern)}
    return ", ".join(sorted(found)) or "none"


def _folder(run: str) -> Path:
    """Return the folder of a run, given the run's name in runs/ or its path.

    Raises:
        RecipeError: the path has characters that TensorFlow takes as wildcards.
    """
    if wildcards := [character for character in "*?[]" if character in run]:
        from workflows.ground.errors import RecipeError

        raise RecipeError(
            f"--run {run}: TensorFlow takes {wildcards[0]} in a path as a wildcard, and could not "
            "load the model from there. Choose a folder without *, ?, [ and ]. The folders above "
            "it may have these characters if --run is a relative path."
        )
    return Path(run) if "/" in run else Path("runs") / run


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Return a typer command with the shared options and the options of one verb.

    Args:
        function: a function of a `Call`, whose keyword-only parameters, annotated for typer, are
            the options of the verb.
    """
    fields = [field for field in dataclasses.fields(Call) if field.name != "verb"]
    verb = function.__name__.replace("_", "-")
    shared = get_type_hints(Call, include_extras=True)
    own = inspect.signature(function, eval_str=True).parameters.values()

    def called(**options: Any) -> None:
        call = Call(**{field.name: options.pop(field.name) for field in fields}, verb=verb)
        with interruptible(call):
            function(call, **options)

    parameters = [
        inspect.Parameter(f.name, _KEYWORD, default=f.default, annotation=shared[f.name])
        for f in fields
    ]
    parameters += [p for p in own if p.kind is _KEYWORD]
    called.__doc__ = function.__doc__
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return called


_KEYWORD = inspect.Parameter.KEYWORD_ONLY
