"""The verb export: writes towers, embeddings and vocabularies for serving, and checks them."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from workflows.ground.device import Device
from workflows.model_kinds import open_models, refuse_options
from workflows.recipe import Recipe
from workflows.stages.export import ExportFiles
from workflows.stages.store import Store
from workflows.towers import checks
from workflows.towers.export import AsOf


@dataclass(frozen=True)
class ExportResult:
    """The result of the verb export.

    Attributes:
        folder: the folder of the export stage.
        rows: number of rows of each exported table, and number of dimensions of the embeddings.
        metrics: the training and validation metrics of the exported epoch.
        seconds: duration of the whole verb.
    """

    folder: Path
    rows: dict[str, int]
    metrics: dict[str, float]
    seconds: float


def export(
    recipe: Recipe, store: Store, device: Device, *, as_of: AsOf | None = None
) -> ExportResult:
    """Write runs/<name>/export/ from the trained model, and check it in a new process.

    Args:
        recipe: the recipe of the run.
        store: the folder of the run, with its finished stages.
        device: the device of this process.
        as_of: the cut before which interactions count for histories and a popularity prior: `test`,
            as in the evaluation, or `latest`, which counts all of them, for production. The default
            None means `test` for two-tower models; offer models take no cut.

    Raises:
        RecipeError: `as_of` is given for a kind of model that does not take it.
        ArtifactError: a new process could not reproduce the embeddings.
    """
    start = time.perf_counter()
    refuse_options(recipe, {"--as-of": as_of is not None})
    with store.write("export", recipe, device) as draft:
        models = open_models(store, recipe)
        exported = models.export(store, draft.folder, as_of)
        files = ExportFiles(draft.folder)
        shutil.copytree(models.prepared.files.vocabularies, files.vocabularies)
        checks.check_from_outside(draft.folder)
        draft.rows, draft.options = exported.rows, exported.options
        draft.metrics = store.read("train", recipe, deep=False).metrics
    return ExportResult(
        store.folder("export"), exported.rows, draft.metrics, time.perf_counter() - start
    )
