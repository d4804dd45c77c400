"""A model repository for NVIDIA Triton: raw values of users in, raw ids of items out.

<to>/two_tower/           the ensemble: what is asked
<to>/two_tower_query/     the query tower for raw values, a TensorFlow SavedModel
<to>/two_tower_items/     the exact search over the items, a Python backend that needs numpy
"""

from __future__ import annotations

import logging
import shutil
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from workflows.ground.column_names import EMBEDDING, SCORE
from workflows.ground.folders import refuse_foreign, replace_folder
from workflows.recipe import Recipe
from workflows.recipe.kinds.form import Form
from workflows.stages.embedding import RawTower
from workflows.stages.export import Export
from workflows.stages.index import Catalogue
from workflows.stages.store import Store
from workflows.triton import config
from workflows.triton.config import Spec, Step

log = logging.getLogger(__name__)

WHOLE, QUERY, ITEMS = "two_tower", "two_tower_query", "two_tower_items"
_BACKEND = Path(__file__).with_name("backend.py")


@dataclass(frozen=True)
class TritonResult:
    """What was written.

    Attributes:
        folder: the model repository: `tritonserver --model-repository`.
        inputs: what the ensemble takes.
        items: how many it ranks.
        seconds: in all.
    """

    folder: Path
    inputs: tuple[str, ...]
    items: int
    seconds: float


def triton(recipe: Recipe, store: Store, *, to: Path) -> TritonResult:
    """Write a model repository from the export, and the items that the index stage added.

    Args:
        recipe: names of columns.
        store: the run.
        to: the repository's folder.

    Raises:
        MissingStage, StaleInput, ArtifactError: there is nothing to write.
        StorageError: the folder holds something else, or the disk refuses.
    """
    start = time.perf_counter()
    export = Export.open(store, recipe)
    catalogue, query = Catalogue.open(store, export), export.query_tower
    tensors = _tensors(query)
    foreign = partial(refuse_foreign, ours=f"{WHOLE}/config.pbtxt")
    with replace_folder(to, refuse=foreign) as folder:
        _write(folder, catalogue, query, tensors, export.files.raw_tower("user"))
    items = int(catalogue.offered.sum())
    log.info("%s items in %s", f"{items:,}", to)
    asked = (*tensors.values(), *_ASKED)
    return TritonResult(to, asked, items, time.perf_counter() - start)


#: What is asked beside the features: list length, and items not to be shown ("" for none).
_ASKED = {"k": Spec("TYPE_INT32", (1,)), "exclude": Spec("TYPE_STRING", (-1, -1))}
_VECTOR = EMBEDDING
_ANSWER = {"item_id": Spec("TYPE_STRING", (-1, -1)), SCORE: Spec("TYPE_FP32", (-1, -1))}


def _tensors(query: RawTower) -> dict[str, str]:
    """Return feature → the ensemble's tensor: its own name, unless the repository needs that."""
    taken = {*_ASKED, _VECTOR, *_ANSWER}
    tensors: dict[str, str] = {}
    for name in query.inputs:
        tensor = name
        while tensor in taken or (tensor != name and tensor in query.inputs):
            tensor += "_"
        if tensor != name:
            log.warning(
                "the feature %r is asked for as %r: %r says something else", name, tensor, name
            )
        taken.add(tensor)
        tensors[name] = tensor
    return tensors


def _write(
    folder: Path, catalogue: Catalogue, query: RawTower, tensors: dict[str, str], tower: Path
) -> None:
    specs = {name: _spec(form) for name, form in query.inputs.items()}
    told = {tensors[name]: spec for name, spec in specs.items()}
    arguments = {query.arguments[name]: spec for name, spec in specs.items()}
    vector = {_VECTOR: Spec("TYPE_FP32", (-1, catalogue.vectors.shape[1]))}
    found = {name: name for name in (*vector, *_ASKED)}
    steps = [
        Step(QUERY, {query.arguments[name]: tensors[name] for name in specs}, [*vector]),
        Step(ITEMS, found, [*_ANSWER]),
    ]
    texts = {
        QUERY: config.savedmodel(QUERY, arguments, vector),
        ITEMS: config.python(ITEMS, {**vector, **_ASKED}, _ANSWER),
        WHOLE: config.ensemble(WHOLE, {**told, **_ASKED}, _ANSWER, steps),
    }
    for name, text in texts.items():
        (folder / name / "1").mkdir(parents=True)  # a version, even where it is empty
        (folder / name / "config.pbtxt").write_text(text, encoding="utf-8")
    shutil.copytree(tower, folder / QUERY / "1" / "model.savedmodel")
    shutil.copyfile(_BACKEND, folder / ITEMS / "1" / "model.py")
    offered = np.flatnonzero(catalogue.offered)
    ids = [str(item).encode() for item in catalogue.ids.take(pa.array(offered))]
    np.savez(
        folder / ITEMS / "1" / "items.npz",
        text=np.frombuffer(b"".join(ids), np.uint8),
        ends=np.cumsum([len(item) for item in ids], dtype=np.int64),
        vectors=catalogue.vectors[offered],
    )


def _spec(form: Form) -> Spec:
    """Return how Triton names what a raw tower takes."""
    dims = tuple(-1 if size is None else size for size in form.shape)
    return Spec("TYPE_STRING" if form.is_text else "TYPE_FP32", dims)
