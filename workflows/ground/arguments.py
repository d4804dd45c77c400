"""Name the arguments of a SavedModel after the columns that they take, and describe them.

TensorFlow accepts letters, digits and `_` in an argument's name, but neither Python keywords nor
two names that differ only in case. If the name of a column breaks these rules, the argument gets
another name. The file `inputs.json` in the SavedModel's folder describes the argument of every
column, so that programs that read the file need not know the rules.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Collection, Sequence
from pathlib import Path

import msgspec

from workflows.ground.errors import ArtifactError

#: The file in a SavedModel's folder that describes the argument of each input column of a tower.
INPUTS = "inputs.json"
#: Column names that TensorFlow accepts as they are.
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


class Input(msgspec.Struct, frozen=True, omit_defaults=True):
    """An input of a tower, as inputs.json describes it.

    Attributes:
        argument: the name of the SavedModel's argument.
        type: the type of the tensor, as TensorFlow names it.
        shape: the dimensions of the tensor, of which the first one is rows; null means any size.
        missing: the value, as text (such as NaN), that means a missing value and pads lists.
        holds: the format of the values, such as ISO 8601; empty if the type says enough.
        derived_from: name of the input from which missing values are computed; empty if there is
            none.
    """

    argument: str
    type: str
    shape: tuple[int | None, ...]
    missing: str | None = None
    holds: str = ""
    derived_from: str = ""


def argument_names(columns: Sequence[str], *, taken: Collection[str] = ()) -> dict[str, str]:
    """Return a map from columns to argument names of a SavedModel; all names are different.

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


def read(saved_model: Path) -> dict[str, Input]:
    """Read the file inputs.json of a SavedModel: a map from columns to the inputs that take them.

    Raises:
        ArtifactError: inputs.json is missing or damaged.
    """
    try:
        return msgspec.json.decode((saved_model / INPUTS).read_bytes(), type=dict[str, Input])
    except (OSError, msgspec.DecodeError) as error:
        raise ArtifactError(
            f"{saved_model / INPUTS} cannot be read: {error}. Run `two-tower export` again."
        ) from None


def write(inputs: dict[str, Input], saved_model: Path) -> None:
    """Write the map from columns to the inputs that take them as inputs.json into a SavedModel."""
    lines = [f"  {_json(column)}: {_json(told)}" for column, told in inputs.items()]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    (saved_model / INPUTS).write_text(text, encoding="utf-8")


def _json(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=0).decode()


def _identifier(column: str) -> str:
    """Return a valid argument name that is close to a column's name."""
    letters = re.sub(r"[^A-Za-z0-9]+", "_", column).strip("_") or "column"
    return letters if letters[0].isalpha() else f"column_{letters}"
