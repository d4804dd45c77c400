"""The report's sections on how a run was made: recipe, model, stages, versions, file hashes."""

from __future__ import annotations

from workflows.report import numbers
from workflows.report.finished import Finished, Stages
from workflows.report.tables import Table


def model_facts(finished: Finished) -> dict[str, str]:
    """Return the settings of the trained model as text, by section of the recipe."""
    recipe, inside = finished.recipe, finished.inside
    plain = recipe.to_dict()
    facts = {
        "query tower reads": ", ".join(inside.query_inputs),
        "item tower reads": ", ".join(inside.item_inputs),
        "towers": numbers.settings(plain["model"]),
        "weights": f"{inside.n_weights:,} trained numbers",
        "loss": f"{inside.loss} softmax; {numbers.settings(plain['loss'])}",
        "optimizer": numbers.settings(plain["optimizer"]),
        "training": numbers.settings(plain["train"]),
    }
    if finished.prior:
        prior = finished.prior
        decay = "no decay" if prior.days is None else f"decay {prior.days:g} days"
        facts["prior"] = (
            f"recent popularity, {decay}, weight {prior.weight:g}"
            if prior.weight
            else "recent popularity was tried; none was best"
        )
    return facts


def stages(finished: Stages) -> Table:
    """Return a table of the run's stages with their times, devices and row counts."""
    rows = [
        (
            stage,
            manifest.created.replace("T", " ").replace("+00:00", " UTC"),
            f"{manifest.device} ({manifest.device_why})",
            numbers.counts(manifest.rows),
        )
        for stage, manifest in finished.manifests.items()
    ]
    return Table("Stages", ("stage", "made", "device, and why", "counts"), rows)


def hashes(finished: Stages) -> dict[str, str]:
    """Return the SHA-256 of each raw file, of the recipe and of each stage, by name."""
    found = {f"raw file {name}": digest for name, digest in finished.data.files.items()}
    found["recipe"] = finished.recipe.digest()
    of_stages = finished.manifests.items()
    return {**found, **{f"stage {name}": manifest.digest for name, manifest in of_stages}}
