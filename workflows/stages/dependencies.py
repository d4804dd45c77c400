"""Defines which parts of the recipe and which earlier stages each stage depends on."""

from __future__ import annotations

#: The parts of the recipe that each stage reads. INPUTS has the earlier stages that it reads.
PARTS: dict[str, tuple[str, ...]] = {
    "etl": (
        "data",
        "sources",
        "interactions",
        "features",
        "split",
        "pivot",
        "derive",
        "join",
        "filter",
        "history",
        "vocabulary",
    ),
    "train": (
        *("model", "loss", "optimizer", "prior", "train"),
        # what its validation reads; other baselines or intervals leave the model as it is
        *("evaluate.ks", "evaluate.exclude_seen", "evaluate.candidates"),
    ),
    "tune": (
        *("model", "loss", "optimizer", "train", "tune.trials", "tune.space"),
        *("evaluate.ks", "evaluate.exclude_seen", "evaluate.candidates"),
    ),
    # batches cut the pairs of models of offers
    "evaluate": ("evaluate", "fallback", "tasks", "train.batch_size"),
    "export": ("name", "model", "tasks"),
    "index": ("index",),
    "recommend": ("fallback", "evaluate.candidates"),
    "report": ("name", "description"),
}
INPUTS: dict[str, tuple[str, ...]] = {
    "etl": (),
    "train": ("etl",),
    "tune": ("etl",),
    "evaluate": ("etl", "train"),
    "export": ("etl", "train"),
    "index": ("export",),
    "recommend": ("export",),
    "report": ("etl", "train", "evaluate"),
}
#: The stages that the verbs recommend and serve read.
ANSWERING = ("export", "index")
