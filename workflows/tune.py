"""The verb tune: searches hyper-parameters with Optuna; an interrupted search can be continued."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from tqdm import tqdm

from models.core import atomic
from models.training.callbacks import DivergedError
from models.training.fit import UnknownMetricError
from models.training.judge import Judge
from workflows.ground.device import Device
from workflows.ground.errors import DataError, RecipeError
from workflows.model_kinds import open_models
from workflows.model_kinds.protocol import Models, build_fresh
from workflows.recipe import Recipe, replace_fields
from workflows.recipe.search_space import Plain, Range, Space
from workflows.stages.dependencies import PARTS
from workflows.stages.store import Store

log = logging.getLogger(__name__)

JOURNAL = ".tune.journal"


class Tried(msgspec.Struct, frozen=True):
    """One trial of a search: its hyper-parameters, and its metric, absent if the fit diverged."""

    settings: dict[str, Plain]
    value: float | None
    epochs: int


@dataclass(frozen=True)
class TuneResult:
    """The tune stage that was written, with the best trial.

    Attributes:
        folder: the folder of the tune stage; `trials.json` has all trials.
        metric: the metric that was maximised on the validation part.
        best: the trial with the highest metric.
        trials: number of trials, including those of earlier calls.
        seconds: duration of this call of the verb.
    """

    folder: Path
    metric: str
    best: Tried
    trials: int
    seconds: float


def tune(recipe: Recipe, store: Store, device: Device) -> TuneResult:
    """Search `tune.space` for hyper-parameters with the best metric `train.monitor` on valid.

    Args:
        recipe: the recipe; fields outside the search space keep their values.
        store: the run, with its etl stage.
        device: the device of this process.

    Raises:
        DataError: there is no valid part, or no trial converged.
        RecipeError: a field of the space is not in the recipe.
    """
    start = time.perf_counter()
    with store.write("tune", recipe, device) as draft:
        models = open_models(store, recipe)
        judge = models.judge()
        if judge is None:
            raise DataError("tune chooses on the valid part; the split has none.")
        searched = _with_space(recipe, models)
        study = _study(searched, store)
        done = _done(study)
        log.info("%s of %s trials are done", len(done), recipe.tune.trials)
        with tqdm(
            total=recipe.tune.trials, initial=len(done), disable=None, file=sys.stderr
        ) as bar:
            for number in range(len(done), recipe.tune.trials):
                # a sampler's own place in its draws is lost with the process
                seed = np.random.SeedSequence([recipe.train.seed, number]).generate_state(1)[0]
                study.sampler = optuna.samplers.TPESampler(seed=int(seed))
                begun = time.perf_counter()
                study.optimize(lambda t: _value(t, searched, models, judge), n_trials=1)
                bar.update()
                if bar.disable:  # there is no terminal
                    log.info("%s, %.1f s", _line(study, recipe), time.perf_counter() - begun)
        tried = [_tried(t) for t in _done(study)]
        best = max(tried, key=lambda t: -1.0 if t.value is None else t.value)
        if best.value is None:
            raise DataError("every trial diverged; narrow tune.space.optimizer.lr.")
        text = msgspec.json.format(msgspec.json.encode(tried), indent=2)
        (draft.folder / "trials.json").write_bytes(text)
        draft.rows, draft.metrics = {"trials": len(tried)}, {recipe.train.monitor: best.value}
    return TuneResult(
        store.folder("tune"), recipe.train.monitor, best, len(tried), time.perf_counter() - start
    )


def _with_space(recipe: Recipe, models: Models) -> Recipe:
    """Return the recipe, with the default search space of its model kind if it names none."""
    if recipe.tune.space is not None:
        return recipe
    tuned = msgspec.structs.replace(recipe.tune, space=models.space())
    return msgspec.structs.replace(recipe, tune=tuned)


def _line(study: optuna.Study, recipe: Recipe) -> str:
    """Return a log line with the last trial of a search, its metric, and the best metric so far."""
    done = _done(study)
    last, values = _tried(done[-1]), [t.value for t in map(_tried, done) if t.value is not None]
    settings = ", ".join(f"{name}={_short(value)}" for name, value in last.settings.items())
    gave = "diverged" if last.value is None else f"{recipe.train.monitor} {last.value:.4f}"
    best = f" (best {max(values):.4f})" if values else ""
    return f"trial {len(done)} of {recipe.tune.trials}: {gave}{best}; {settings}"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _study(recipe: Recipe, store: Store) -> optuna.Study:
    """Open or create the Optuna study of this recipe and data in the run's journal file."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal = store.root / JOURNAL
    _mend(journal)
    identity = recipe.digest(*(p for p in PARTS["tune"] if p != "tune.trials"))
    return optuna.create_study(
        study_name=f"{identity} {store.read('etl', recipe, deep=False).digest}",
        storage=JournalStorage(JournalFileBackend(str(journal))),
        direction="maximize",
        load_if_exists=True,
    )


def _mend(journal: Path) -> None:
    """Repair an Optuna journal: cut off an incomplete last line, or rename an unreadable journal.

    Optuna appends one line of JSON for each step of a search. After a kill, a full disk or a power
    loss the last line may be incomplete, and Optuna would append the next step to it.

    Raises:
        OSError: the journal is a link or not a regular file, or cannot be written.
    """
    with os.fdopen(atomic.open_regular_file(journal), "r+b") as file:
        lines = file.read().splitlines(keepends=True)
        whole = len(lines)
        while whole and not _is_record(lines[whole - 1]):
            whole -= 1
        if whole < len(lines) and whole >= len(lines) - 1:
            file.truncate(sum(len(line) for line in lines[:whole]))
            log.warning("%s: its last line was torn and is left out.", journal)
    if whole < len(lines) - 1 or not all(map(_is_record, lines[:whole])):
        damaged = journal.with_name(f"{JOURNAL}.damaged")
        atomic.remove(damaged)
        journal.rename(damaged)
        log.warning("%s cannot be read and is set aside as %s.", journal, damaged)


def _is_record(line: bytes) -> bool:
    """Return whether a line of an Optuna journal file is complete JSON."""
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _done(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Return the finished trials of a study; interrupted trials are run again."""
    state = optuna.trial.TrialState
    return study.get_trials(states=(state.COMPLETE, state.PRUNED))


def _value(trial: optuna.Trial, recipe: Recipe, models: Models, judge: Judge) -> float:
    """Fit the first model with a trial's settings; return the best epoch's metric.

    A trial whose fit diverges is pruned.

    Raises:
        RecipeError: the settings contradict each other, or the metric to monitor is not measured.
    """
    settings = _suggest(trial, recipe.tune.space or {})
    trial.set_user_attr("settings", settings)
    chosen = replace_fields(recipe, settings)
    tried = models.with_recipe(chosen)
    fit = tried.fit(build_fresh(tried, tried.names[0]), judge, lines=False)
    try:
        best = fit.run()
    except UnknownMetricError as error:
        raise RecipeError(f"recipe {recipe.name}, field train.monitor: {error}.") from None
    except DivergedError as error:
        log.warning("trial %s: %s", trial.number, error)
        raise optuna.TrialPruned from error
    trial.set_user_attr("epochs", len(fit.clock.epochs))
    return best.metrics[chosen.train.monitor]


def _suggest(trial: optuna.Trial, space: Space) -> dict[str, Plain]:
    """Return a trial's values of recipe fields; `otherwise` where `only_if` does not hold."""
    chosen: dict[str, Plain] = {}
    for name, values in space.items():
        if not isinstance(values, Range):
            chosen[name] = trial.suggest_categorical(name, list(values))
        elif all(chosen.get(other) == value for other, value in values.only_if.items()):
            chosen[name] = trial.suggest_float(name, values.low, values.high, log=values.log)
        elif values.otherwise is not None:
            chosen[name] = values.otherwise
    return chosen


def _tried(trial: optuna.trial.FrozenTrial) -> Tried:
    value = trial.value if trial.state is optuna.trial.TrialState.COMPLETE else None
    return Tried(trial.user_attrs["settings"], value, trial.user_attrs.get("epochs", 0))
