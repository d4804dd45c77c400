"""Name the file of a stage whose content is not what the stage's verb writes.

The hashes of a manifest show that a file is the one that was signed, not that it holds what it
should: whoever can write a run can sign it. So whatever goes wrong while a stage's content is read
is a fault of that content, and is reported in one paragraph.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa

from models.core.retriever import Floats
from workflows.ground.errors import ArtifactError, TwoTowerError


@contextmanager
def understood(path: Path, verb: str) -> Iterator[None]:
    """Turn any error of reading a stage's content into one that names it.

    Args:
        path: the file or folder that is read.
        verb: the verb that writes it.

    Raises:
        ArtifactError: what is read there is not what the verb writes.
    """
    try:
        yield
    except TwoTowerError:
        raise
    except Exception as error:  # TensorFlow, Arrow, h5py and NumPy have errors of many classes
        said = (str(error).strip().splitlines() or [""])[0][:200]
        raise _refusal(path, verb, f"{type(error).__name__}: {said}") from error


def vectors_of(table: pa.Table, path: Path, verb: str) -> Floats:
    """Return the column `embedding` as float32 [n_rows, dim].

    Args:
        table: the table that was read.
        path: where from.
        verb: the verb that writes it.

    Raises:
        ArtifactError: there are no embeddings, or some hold NaN or infinity.
    """
    with understood(path, verb):
        column = table["embedding"].combine_chunks()
        vectors = column.flatten().to_numpy().reshape(len(column), column.type.list_size)
        are_numbers = not vectors.size or np.isfinite([vectors.min(), vectors.max()]).all()
    if not are_numbers:
        raise _refusal(path, verb, "embeddings hold NaN or infinity")
    found: Floats = vectors
    return found


def need(is_so: bool, path: Path, verb: str, otherwise: str) -> None:
    """Refuse content of which something is not so.

    Raises:
        ArtifactError: it is not.
    """
    if not is_so:
        raise _refusal(path, verb, otherwise)


def _refusal(path: Path, verb: str, why: str) -> ArtifactError:
    return ArtifactError(
        f"{path} is not what `two-tower {verb}` writes ({why}). Run `two-tower {verb}` again, and "
        "use only runs that you trust."
    )
