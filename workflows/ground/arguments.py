"""The names of a SavedModel's arguments: those of the columns, where TensorFlow takes them.

TensorFlow takes letters, digits and `_` in an argument's name, no keyword of Python, and no two
names that differ only in case. A column whose name breaks these rules gets an argument of another
name. `inputs.json` in the SavedModel's folder says column → argument for all columns, so that its
readers need not know the rules.
"""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Collection, Sequence
from pathlib import Path

import msgspec

from workflows.ground.errors import ArtifactError

#: File of a SavedModel's folder: column → argument.
INPUTS = "inputs.json"
#: Names that an argument keeps.
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def argument_names(columns: Sequence[str], *, taken: Collection[str] = ()) -> dict[str, str]:
    """Return column → argument; no two columns share one.

    `User ID` becomes `User_ID`, and `class` becomes `class_2`.

    Args:
        columns: what a tower takes. A name that TensorFlow takes has the first claim to itself.
        taken: names that no column gets.
    """
    arguments: dict[str, str] = {}
    used = {"self", *(name.lower() for name in taken)}
    for column in sorted(columns, key=lambda name: not _PLAIN.fullmatch(name)):
        name = column if _PLAIN.fullmatch(column) else _near(column)
        number = 1
        while name.lower() in used or keyword.iskeyword(name):
            number += 1
            name = f"{_near(column)}_{number}"
        used.add(name.lower())
        arguments[column] = name
    return {column: arguments[column] for column in columns}


def read(saved_model: Path) -> dict[str, str]:
    """Return column → argument of a SavedModel.

    Raises:
        ArtifactError: its inputs.json is missing or damaged.
    """
    try:
        return msgspec.json.decode((saved_model / INPUTS).read_bytes(), type=dict[str, str])
    except (OSError, msgspec.DecodeError) as error:
        raise ArtifactError(
            f"{saved_model / INPUTS} cannot be read: {error}. Run `two-tower export` again."
        ) from None


def write(arguments: dict[str, str], saved_model: Path) -> None:
    """Write inputs.json into the folder of a SavedModel."""
    text = json.dumps(arguments, indent=2, ensure_ascii=False)
    (saved_model / INPUTS).write_text(f"{text}\n", encoding="utf-8")


def _near(column: str) -> str:
    """Return an identifier that looks like a name."""
    letters = re.sub(r"[^A-Za-z0-9]+", "_", column).strip("_") or "column"
    return letters if letters[0].isalpha() else f"column_{letters}"
