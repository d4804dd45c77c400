"""Read files of a stage, and report content that the stage's verb would never write.

The hashes in a manifest show that a file was not damaged, but not that its content is valid: a
person who can write to a run can also change its hashes. So every error that occurs while the
content of a stage is read is treated as a fault of the content, and is reported as one paragraph.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
import pyarrow as pa

from models.core.retriever import Floats
from workflows.ground.column_names import EMBEDDING
from workflows.ground.errors import ArtifactError, TwoTowerError

Kind = TypeVar("Kind")


@contextmanager
def reading(path: Path, verb: str) -> Iterator[None]:
    """Return a context that turns any error while a stage is read into an ArtifactError.

    Args:
        path: the file or folder that is read.
        verb: the verb that writes this file or folder.

    Raises:
        ArtifactError: the content of the file or folder is not valid.
    """
    try:
        yield
    except TwoTowerError:
        raise
    except Exception as error:  # TensorFlow, Arrow, h5py and NumPy have errors of many classes
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        raise _refusal(path, verb, f"{type(error).__name__}: {reason}") from error


def read_json(path: Path, kind: type[Kind], verb: str) -> Kind:
    """Return the content of a JSON file of a stage as an object of a given type.

    Args:
        path: the JSON file.
        kind: the Python type that the content must have.
        verb: the verb that writes the file.

    Raises:
        ArtifactError: the content of the file is not valid.
    """
    with reading(path, verb):
        return msgspec.json.decode(path.read_bytes(), type=kind)


def embeddings_of(table: pa.Table, path: Path, verb: str) -> Floats:
    """Return the column `embedding` of a table as a matrix, float32 [n_rows, dim].

    Args:
        table: the table with the column of embeddings.
        path: the file that the table was read from.
        verb: the verb that writes this file.

    Raises:
        ArtifactError: the table has no embeddings, or some of them hold NaN or infinity.
    """
    with reading(path, verb):
        column = table[EMBEDDING].combine_chunks()
        vectors = column.flatten().to_numpy().reshape(len(column), column.type.list_size)
        are_numbers = not vectors.size or np.isfinite([vectors.min(), vectors.max()]).all()
    if not are_numbers:
        raise _refusal(path, verb, "embeddings hold NaN or infinity")
    embeddings: Floats = vectors
    return embeddings


def require(holds: bool, path: Path, verb: str, fault: str) -> None:
    """Raise an ArtifactError about the content of a file unless a condition holds.

    Args:
        holds: whether the content meets the condition.
        path: the file that was read.
        verb: the verb that writes the file.
        fault: phrase that says what is wrong with the file, for the message.

    Raises:
        ArtifactError: the content of the file does not meet the condition.
    """
    if not holds:
        raise _refusal(path, verb, fault)


def _refusal(path: Path, verb: str, why: str) -> ArtifactError:
    return ArtifactError(
        f"{path} is not what `two-tower {verb}` writes ({why}). Run `two-tower {verb}` again, and "
        "use only runs that you trust."
    )
