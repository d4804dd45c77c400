"""Write a recipe's model for other programs: towers, embeddings, vocabularies; and check them."""

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
    """Where the export lies, and how much there is.

    Attributes:
        folder: the folder of the stage.
        rows: rows of each table, such as users and items, and the width of the embeddings.
        metrics: the metrics of the epoch that was exported.
        seconds: in all.
    """

    folder: Path
    rows: dict[str, int]
    metrics: dict[str, float]
    seconds: float


def export(
    recipe: Recipe, store: Store, device: Device, *, as_of: AsOf | None = None
) -> ExportResult:
    """Write runs/<name>/export/ from the trained model, and sign it after a check from outside.

    Args:
        recipe: names of columns.
        store: the run.
        device: chosen for this process.
        as_of: the cut that users' histories and a recency prior know of: `test`, as evaluated, or
            `latest`, with every interaction there is, for production. None for what is usual for
            the kind of model: `test` for two towers; models of offers take no other than None.

    Raises:
        RecipeError: a cut that the kind of model has not.
        ArtifactError: a fresh process could not reproduce the embeddings.
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
