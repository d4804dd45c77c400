"""Name the arguments of a SavedModel after columns, as far as TensorFlow accepts the names.

TensorFlow accepts letters, digits and `_` in an argument's name, but neither Python keywords nor
two names that differ only in case. If the name of a column breaks these rules, the argument gets
another name. The file `inputs.json` in the SavedModel's folder maps every column to its argument,
so that programs that read the file need not know the rules.
"""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Collection, Sequence
from pathlib import Path

import msgspec

from workflows.ground.errors import ArtifactError

#: The file in a SavedModel's folder that maps tower input columns to argument names.
INPUTS = "inputs.json"
#: Column names that TensorFlow accepts as they are.
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def argument_names(columns: Sequence[str], *, taken: Collection[str] = ()) -> dict[str, str]:
    """Return a map from columns to argument names of a SavedModel; no two columns share a name.

    `User ID` becomes `User_ID`, and `class` becomes `class_2`.

    Args:
        columns: names of the input columns of a tower. A name that TensorFlow accepts is never
            given to another column.
        taken: argument names that the SavedModel uses already.
    """
    arguments: dict[str, str] = {}
    used = {"self", *(name.lower() for name in taken)}
    for column in sorted(columns, key=lambda name: not _PLAIN.fullmatch(name)):
        name = column if _PLAIN.fullmatch(column) else _identifier(column)
        number = 1
        while name.lower() in used or keyword.iskeyword(name):
            number += 1
            name = f"{_identifier(column)}_{number}"
        used.add(name.lower())
        arguments[column] = name
    return {column: arguments[column] for column in columns}


def read(saved_model: Path) -> dict[str, str]:
    """Read the file inputs.json of a SavedModel: a map from columns to argument names.

    Raises:
        ArtifactError: inputs.json is missing or damaged.
    """
    try:
        return msgspec.json.decode((saved_model / INPUTS).read_bytes(), type=dict[str, str])
    except (OSError, msgspec.DecodeError) as error:
        raise ArtifactError(
            f"{saved_model / INPUTS} cannot be read: {error}. Run `two-tower export` again."
        ) from None


def write(arguments: dict[str, str], saved_model: Path) -> None:
    """Write the map from columns to argument names as inputs.json into a SavedModel's folder."""
    text = json.dumps(arguments, indent=2, ensure_ascii=False)
    (saved_model / INPUTS).write_text(f"{text}\n", encoding="utf-8")


def _identifier(column: str) -> str:
    """Return a valid argument name that is close to a column's name."""
    letters = re.sub(r"[^A-Za-z0-9]+", "_", column).strip("_") or "column"
    return letters if letters[0].isalpha() else f"column_{letters}"
