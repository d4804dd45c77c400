"""Sections on where a run comes from: recipe, model, stages, versions, files and hashes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from models.losses.sampled_loss import SampledLoss
from workflows.report import numbers
from workflows.report.finished import Finished
from workflows.report.markup import Markup, element, paragraph, table


def run(finished: Finished) -> Iterator[Markup]:
    """Yield the model as it was built, and the stages with their device."""
    yield table("What was trained", ("part", "settings"), list(model_facts(finished).items()))
    stages = [
        (
            stage,
            manifest.created.replace("T", " ").replace("+00:00", " UTC"),
            f"{manifest.device} ({manifest.device_why})",
            numbers.counts(manifest.rows),
        )
        for stage, manifest in finished.manifests.items()
    ]
    yield table("Stages", ("stage", "made", "device, and why", "counts"), stages)
    versions = finished.manifests["train"].versions
    yield paragraph(
        element("strong", "Versions in training: "),
        ", ".join(f"{name} {version}" for name, version in versions.items()),
        ".",
    )


def model_facts(finished: Finished) -> dict[str, str]:
    """Return what was trained: part → settings as text."""
    recipe, model = finished.recipe, finished.model
    plain = recipe.to_dict()
    facts = {
        "query tower reads": ", ".join(model.query_encoder.schema.column_names),
        "item tower reads": ", ".join(model.candidate_encoder.schema.column_names),
        "towers": numbers.settings(plain["model"]),
        "weights": f"{_trainable(model):,} trained numbers",
        "loss": f"{_loss_kind(model)} softmax; {numbers.settings(plain['loss'])}",
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


def _trainable(model: Any) -> int:
    return sum(int(weight.shape.num_elements()) for weight in model.trainable_weights)


def _loss_kind(model: Any) -> str:
    """Return what `auto` became."""
    return next(b for b in model.submodules if isinstance(b, SampledLoss)).kind


def files(finished: Finished) -> Iterator[Markup]:
    """Yield the SHA-256 of what was read and of each stage."""
    rows = [(name, element("code", digest)) for name, digest in hashes(finished).items()]
    yield table("SHA-256", ("of", "hash"), rows)


def hashes(finished: Finished) -> dict[str, str]:
    """Return raw files, recipe and stages → SHA-256."""
    found = {f"raw file {name}": digest for name, digest in finished.data.files.items()}
    found["recipe"] = finished.recipe.digest()
    stages = finished.manifests.items()
    return {**found, **{f"stage {name}": manifest.digest for name, manifest in stages}}
