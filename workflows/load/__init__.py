"""Hand the items over to a vector database, so that its answers are those of evaluate."""

from __future__ import annotations

import logging
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from workflows.ground.errors import RecipeError
from workflows.load import milvus, opensearch
from workflows.load.documents import Documents
from workflows.recipe import Recipe
from workflows.stages.index import Catalogue
from workflows.stages.store import ANSWERING, Store

log = logging.getLogger(__name__)

Database = Literal["milvus", "opensearch"]
#: Where a cluster's token is told; an argument would be seen by everybody on the machine.
TOKEN = "MILVUS_TOKEN"


@dataclass(frozen=True)
class LoadResult:
    """What was loaded.

    Attributes:
        place: file, folder or URI.
        name: the name of the collection or index.
        items: how many; those that may be recommended.
        dim: width of the embeddings.
        seconds: in all.
    """

    place: str
    name: str
    items: int
    dim: int
    seconds: float


def database_named(name: str) -> Database:
    """Return the database that a name stands for.

    Raises:
        RecipeError: it stands for none.
    """
    if name == "milvus":
        return "milvus"
    if name == "opensearch":
        return "opensearch"
    raise RecipeError(f"--to {name!r}: expected milvus or opensearch.")


def load(
    recipe: Recipe, store: Store, *, to: Database, place: str = "", name: str = ""
) -> LoadResult:
    """Load the items of the export, and those that the index stage added.

    Args:
        recipe: names of columns.
        store: the run.
        to: milvus fills a file or a cluster; opensearch writes files for it.
        place: milvus: a file or a URI, runs/<name>/milvus.db if not told; opensearch: a folder,
            runs/<name>/opensearch if not told.
        name: the name of the collection or index; the recipe's if not told.

    Raises:
        MissingStage, StaleInput, ArtifactError: there is nothing to load.
        DataError, RecipeError: an id or a name that the database does not take.
        StorageError: the database or the disk refuses.
    """
    start = time.perf_counter()
    name = _checked(name or re.sub(r"\W", "_", recipe.name), to)
    documents = store.steadily(ANSWERING, lambda: _documents(recipe, store))
    place = place or str(store.root / ("milvus.db" if to == "milvus" else "opensearch"))
    log.info("loading %s items into %s", f"{len(documents):,}", place)
    if to == "milvus":
        milvus.write(documents, place, name, token=os.environ.get(TOKEN, ""))
    else:
        opensearch.write(documents, Path(place), name)
    seconds = time.perf_counter() - start
    return LoadResult(place, name, len(documents), documents.vectors.shape[1], seconds)


def _documents(recipe: Recipe, store: Store) -> Documents:
    store.read("export", recipe)
    return Documents.of(Catalogue.open(store, recipe))


def _checked(name: str, to: Database) -> str:
    pattern, rule = {
        "milvus": (r"[A-Za-z_]\w{0,200}", "letters, digits and _, no digit first"),
        "opensearch": (r"[a-z0-9][a-z0-9_-]{0,200}", "lower-case letters, digits, _ and -"),
    }[to]
    if not re.fullmatch(pattern, name, re.ASCII):
        raise RecipeError(f"--name {name!r}: {to} takes {rule}. Give another --name.")
    return name
