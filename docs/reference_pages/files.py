"""The page of the files that the verbs write into a run, stage by stage."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import get_type_hints

import msgspec

from models.core.prior import Prior
from models.training.epoch import Epoch
from reference_pages.page import Entry, Page, Section
from workflows.recipe.meanings import meanings, summary
from workflows.stages.etl import EtlFiles, EtlReport
from workflows.stages.evaluate import BaselineChoice, Block, EvaluateFiles, Protocol, Report
from workflows.stages.export import ExportFiles
from workflows.stages.index import IndexFiles, SearchSettings
from workflows.stages.manifest import Manifest
from workflows.stages.offers_report import OffersReport, Score
from workflows.stages.train_files import TrainFiles

INTRODUCTION = """
A run is the folder `runs/<name>/`. Each verb writes one folder in it, completely or not at all, and
`manifest.json` last. JSON files are described below the folders, field by field.
""".strip()
#: The files of every stage.
EVERYWHERE = {
    "manifest.json": "The description of the stage: its files with their hashes, the earlier stages"
    " that it was made from, the recipe, the device and the versions (`Manifest`). A folder without"
    " it is unfinished.",
    "times.json": "Durations, in a file of their own, because they differ between equal runs. Not"
    " every stage has it.",
}
#: Stage → the class with the paths of its files; None for a stage of few files.
STAGES = {
    "etl": EtlFiles,
    "train": TrainFiles,
    "evaluate": EvaluateFiles,
    "export": ExportFiles,
    "index": IndexFiles,
}
#: Files that no class of paths names.
OTHERS: dict[str, dict[str, str]] = {
    "etl": {
        "derived.json": "What the fitted steps of `derive` learnt from the training rows; absent if"
        " no step learns.",
    },
    "train": {},
    "tune": {
        "trials.json": "The trials in their order: `settings`, `value` (the metric on the"
        " validation part; null if the fit diverged) and `epochs`.",
    },
    "evaluate": {},
    "export": {
        "derived.json": "What the fitted steps of `derive` learnt from the training rows; absent if"
        " no step learns.",
        "query_tower_raw/inputs.json": "The argument, type and shape of each input of this tower;"
        " every SavedModel of a tower has such a file.",
        "user_tower": "Offer models: the SavedModel that embeds users.",
        "offer_tower": "Offer models: the SavedModel that embeds offers.",
        "scorer": "Offer models: the SavedModel that scores each user for each offer.",
        "users.parquet": "Offer models: the ids of all users, and the codes of their histories.",
        "user_vectors.npy": "Offer models: the embeddings of all users.",
        "offers.parquet": "Offer models: the tower inputs of the first attribute's offers, with"
        " which the export is checked.",
        "offer_embeddings": "Offer models: a table of offers for each attribute, with their"
        " numbers of events and their embeddings.",
        "similarity": "Offer models: the cosines of the most frequent offers of each attribute, as"
        " a table and as a heat map.",
    },
    "index": {},
    "recommend": {
        "part-00000.parquet": "A part of the recommendation lists, one row for each user and item."
        " With `--format jsonl` it is `part-00000.jsonl`, one line for each user.",
        "part-00000.json": "The size and the hash of the part, so that an interrupted verb goes on"
        " after the last whole part.",
    },
    "report": {
        "report.html": "The report of the run, one page that needs no other files.",
        "model_card.md": "The model card, in Markdown.",
    },
}
#: The content of JSON files.
CONTENTS: tuple[type, ...] = (
    *(Manifest, EtlReport, Epoch, Prior, Report, Block, Protocol, BaselineChoice),
    *(OffersReport, Score, SearchSettings),
)
#: Arguments with which the methods of these classes are called: name → values to show.
_EXAMPLES: dict[str, tuple[object, ...]] = {
    "side": ("user", "item"),
    "name": ("<table>",),
    "partition": (0,),
    "number": (0,),
}


def page() -> Page:
    """Return the page of the files of all stages."""
    common = [Entry(name, text) for name, text in EVERYWHERE.items()]
    sections = [Section("Every stage", "All stages have these files.", common, _COLUMNS)]
    for stage, others in OTHERS.items():
        entries = [*_of_paths(STAGES[stage])] if stage in STAGES else []
        entries += [Entry(name, text) for name, text in others.items()]
        text = f"The verb `{stage}` writes these files into `runs/<name>/{stage}/`."
        sections.append(Section(f"`{stage}/`", text, entries, _COLUMNS, anchor=stage))
    sections += [_content(kind) for kind in CONTENTS]
    return Page("Files of a run", INTRODUCTION, sections)


_COLUMNS = ("file or folder", "what it holds")


def _of_paths(kind: type) -> Iterator[Entry]:
    """Yield the files that a class with the paths of a stage's files names."""
    paths = kind(Path())
    for name, member in inspect.getmembers(kind):
        function = member.fget if isinstance(member, property) else member
        if name.startswith("_") or not callable(function):
            continue
        if get_type_hints(function).get("return") is not Path:
            continue
        text = (inspect.getdoc(function) or "").replace("\n", " ")
        given = [one for one in inspect.signature(function).parameters if one != "self"]
        for value in _EXAMPLES[given[0]] if given else ("",):
            rest = [_EXAMPLES[one][0] for one in given[1:]]
            yield Entry(str(function(paths, *([value] if given else []), *rest)), text)


def documented(stage: str) -> set[str]:
    """Return the names of all files and folders at the top of a stage that the page describes."""
    listed = (one for one in page().sections if one.title in (f"`{stage}/`", "Every stage"))
    return {Path(entry.name).parts[0] for section in listed for entry in section.entries}


def _content(kind: type) -> Section:
    if issubclass(kind, msgspec.Struct):
        found = meanings(kind)
        entries = [Entry(f.encode_name, found.get(f.encode_name, "")) for f in _fields(kind)]
    return Section(f"`{kind.__name__}`", summary(kind), entries, ("field", "meaning"))


def _fields(kind: type[msgspec.Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    return msgspec.structs.fields(kind)
