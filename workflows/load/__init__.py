"""Loads item embeddings into a vector database, which ranks items by the same scores as serve."""

from __future__ import annotations

import logging
import re
import time
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from workflows.ground.errors import RecipeError

if TYPE_CHECKING:
    from workflows.load.documents import Documents
    from workflows.recipe import Recipe
    from workflows.stages.store import Store

log = logging.getLogger(__name__)

#: The databases that can be loaded: each is a module of this folder that keeps the protocol
#: `Target`. The command line reads their names before the device is chosen, so this module imports
#: nothing heavy by itself.
TARGETS = ("milvus", "opensearch")

if TYPE_CHECKING:
    TargetName: TypeAlias = str
else:
    TargetName = Literal[TARGETS]


class Target(Protocol):
    """The interface of a module that loads items into one kind of vector database.

    Attributes:
        NAMES: a regular expression of allowed collection names.
        NAME_RULE: a sentence that says which collection names are allowed, for messages.
        DEFAULT_PLACE: the name of the default file or folder, in the run's folder, to write to.
    """

    NAMES: str
    NAME_RULE: str
    DEFAULT_PLACE: str

    def write(self, documents: Documents, place: str, name: str) -> None:
        """Write item ids, embeddings and readable (not encoded) columns into the vector database.

        Args:
            documents: the items as documents.
            place: the file, folder or URI of the database.
            name: the name of the collection or index.
        """
        ...


@dataclass(frozen=True)
class LoadResult:
    """The place and the size of the collection that was loaded into a vector database.

    Attributes:
        place: the file, folder or URI of the database.
        name: the name of the collection or index.
        items: number of items that were loaded: those that may be recommended.
        dim: number of dimensions of the embeddings.
        seconds: duration of the whole verb.
    """

    place: str
    name: str
    items: int
    dim: int
    seconds: float


def load(recipe: Recipe, store: Store, *, to: str, place: str = "", name: str = "") -> LoadResult:
    """Load the items of the export and of the index stage into a vector database.

    Args:
        recipe: the recipe of the run.
        store: the folder of the run, or a copied export.
        to: one of `TARGETS`; milvus fills a file or a cluster, opensearch writes files to upload.
        place: a file, a folder or a URI; the default is in the run's folder.
        name: the name of the collection or index; by default the name of the recipe.

    Raises:
        MissingStage, StaleInput, ArtifactError: the export is missing, stale or damaged.
        DataError, RecipeError: the database does not accept an id or a name.
        StorageError: the database reports an error, or the place cannot be written.
    """
    from workflows.stages.dependencies import ANSWERING

    start = time.perf_counter()
    target = _target(to)
    name = name or re.sub(r"\W", "_", recipe.name)
    if not re.fullmatch(target.NAMES, name, re.ASCII):
        raise RecipeError(f"--name {name!r}: {to} takes {target.NAME_RULE}. Give another --name.")
    documents = store.read_consistently(ANSWERING, lambda: _documents(recipe, store))
    place = place or str(store.folder(target.DEFAULT_PLACE))
    log.info("loading %s items into %s", f"{len(documents):,}", place)
    target.write(documents, place, name)
    seconds = time.perf_counter() - start
    return LoadResult(place, name, len(documents), documents.vectors.shape[1], seconds)


def _target(name: str) -> Target:
    if name not in TARGETS:
        raise RecipeError(f"--to {name!r}: expected {' or '.join(TARGETS)}.")
    found: Target = import_module(f"workflows.load.{name}")
    return found


def _documents(recipe: Recipe, store: Store) -> Documents:
    from workflows.load.documents import Documents
    from workflows.stages.export import Export
    from workflows.stages.index import Catalogue

    return Documents.of(Catalogue.open(store, Export.open(store, recipe)))
