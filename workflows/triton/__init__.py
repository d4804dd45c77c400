"""Writes a model repository for NVIDIA Triton, which maps raw user features to raw item ids.

<to>/two_tower/           the ensemble, which clients call
<to>/two_tower_query/     the query tower for raw values, a TensorFlow SavedModel
<to>/two_tower_items/     the exact search over the items, a Python backend that needs only numpy
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
    """The result of the verb triton: the model repository that it wrote.

    Attributes:
        folder: the model repository, for `tritonserver --model-repository`.
        inputs: the input tensors of the ensemble.
        items: number of items that the ensemble ranks.
        seconds: duration of the whole verb.
    """

    folder: Path
    inputs: tuple[str, ...]
    items: int
    seconds: float


def triton(recipe: Recipe, store: Store, *, to: Path) -> TritonResult:
    """Write a Triton model repository from the items of the export and of the index stage.

    Args:
        recipe: the recipe of the run.
        store: the folder of the run, or a copied export.
        to: the folder of the model repository.

    Raises:
        MissingStage, StaleInput, ArtifactError: the export is missing, stale or damaged.
        StorageError: the folder has other content, or cannot be written.
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
    inputs = (*tensors.values(), *_OPTIONS)
    return TritonResult(to, inputs, items, time.perf_counter() - start)


#: Inputs of the ensemble besides the features: list length, and ids of items to leave out ("" is
#: padding).
_OPTIONS = {"k": Spec("TYPE_INT32", (1,)), "exclude": Spec("TYPE_STRING", (-1, -1))}
_VECTOR = EMBEDDING
_ANSWER = {"item_id": Spec("TYPE_STRING", (-1, -1)), SCORE: Spec("TYPE_FP32", (-1, -1))}


def _tensors(query: RawTower) -> dict[str, str]:
    """Map each feature to its input tensor: the same name, or with `_` added if it is taken."""
    taken = {*_OPTIONS, _VECTOR, *_ANSWER}
    tensors: dict[str, str] = {}
    for name in query.inputs:
        tensor = name
        while tensor in taken or (tensor != name and tensor in query.inputs):
            tensor += "_"
        if tensor != name:
            log.warning(
                "the feature %r is the input %r of the ensemble: %r is taken", name, tensor, name
            )
        taken.add(tensor)
        tensors[name] = tensor
    return tensors


def _write(
    folder: Path, catalogue: Catalogue, query: RawTower, tensors: dict[str, str], tower: Path
) -> None:
    specs = {name: _spec(form) for name, form in query.inputs.items()}
    features = {tensors[name]: spec for name, spec in specs.items()}
    arguments = {query.arguments[name]: spec for name, spec in specs.items()}
    vector = {_VECTOR: Spec("TYPE_FP32", (-1, catalogue.vectors.shape[1]))}
    found = {name: name for name in (*vector, *_OPTIONS)}
    steps = [
        Step(QUERY, {query.arguments[name]: tensors[name] for name in specs}, [*vector]),
        Step(ITEMS, found, [*_ANSWER]),
    ]
    texts = {
        QUERY: config.savedmodel(QUERY, arguments, vector),
        ITEMS: config.python(ITEMS, {**vector, **_OPTIONS}, _ANSWER),
        WHOLE: config.ensemble(WHOLE, {**features, **_OPTIONS}, _ANSWER, steps),
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
    """Return the Triton type and dimensions of a query tower input, given its form."""
    dims = tuple(-1 if size is None else size for size in form.shape)
    return Spec("TYPE_STRING" if form.is_text else "TYPE_FP32", dims)
