"""Check the field `format` of a time: its directives and the names of usual formats."""

from __future__ import annotations

import re
from typing import NamedTuple

from workflows.recipe.text import nearest

#: Name of a format → its directives. `excel` is a number of days and has none.
NAMED = {"yyyymmdd": "%Y%m%d"}
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_MONTH = f"(?:{'|'.join(MONTHS)})[A-Z]*"


class Directive(NamedTuple):
    """The meaning of a directive of a time format, such as `%Y`.

    Attributes:
        field: the part of a time (such as the year) that its text gives; "" if the text is skipped.
        tight: a regular expression for the directive's text if it directly adjoins another
            directive.
        loose: a regular expression for the directive's text if it adjoins no other directive.
    """

    field: str
    tight: str
    loose: str


DIRECTIVES = {
    "Y": Directive("Y", r"\d{4}", r"\d{4}"),
    "y": Directive("y", r"\d{2}", r"\d{2}"),
    "m": Directive("m", r"\d{2}", r"\d{1,2}"),
    "b": Directive("b", _MONTH, _MONTH),
    "B": Directive("b", _MONTH, _MONTH),
    "d": Directive("d", r"\d{2}", r"\d{1,2}"),
    "H": Directive("H", r"\d{2}", r"\d{1,2}"),
    "I": Directive("I", r"\d{2}", r"\d{1,2}"),
    "M": Directive("M", r"\d{2}", r"\d{1,2}"),
    "S": Directive("S", r"\d{2}", r"\d{1,2}"),
    "f": Directive("", r"\d+", r"\d+"),
    "p": Directive("p", "AM|PM", "AM|PM"),
    "z": Directive("z", r"Z|UTC|[-+]\d{2}(?::?\d{2})?", r"Z|UTC|[-+]\d{2}(?::?\d{2})?"),
    "Z": Directive("", "(?:UTC|GMT|Z)", "(?:UTC|GMT|Z)"),
    "a": Directive("", "[A-Z]+", "[A-Z]+"),
    "A": Directive("", "[A-Z]+", "[A-Z]+"),
}


def words(form: str) -> list[str]:
    """Return the directives of a time format and the texts between them, in order."""
    return re.findall(r"%.|[^%]+|%$", form)


def check(form: str) -> None:
    """Raise ValueError if a time format is neither a known name nor made of known directives."""
    if form == "excel" or form in NAMED:
        return
    directives = [word for word in words(form) if word.startswith("%") and word != "%%"]
    if not directives:
        raise ValueError(
            f"format {form!r} is no form of times; "
            f"{nearest(form, [*NAMED, 'excel'])}expected {', '.join([*NAMED, 'excel'])}, or "
            "directives of strptime such as '%m/%d/%Y %H:%M'"
        )
    for directive in directives:
        if directive[1:] not in DIRECTIVES:
            raise ValueError(
                f"format {form!r} has {directive!r}, which is not known; known: "
                f"{' '.join('%' + name for name in DIRECTIVES)}"
            )
    fields = [field for word in directives if (field := DIRECTIVES[word[1:]].field)]
    again = {field for field in fields if fields.count(field) > 1}
    if again:
        raise ValueError(f"format {form!r} says {'%' + min(again)} twice, or in two ways")
    if ("Y" in fields) == ("y" in fields):
        raise ValueError(f"format {form!r} needs the year, as one of %Y and %y")
    for asked, by in (("d", ("m", "b")), ("p", ("I",)), ("M", ("H", "I")), ("S", ("M",))):
        if asked in fields and not any(field in fields for field in by):
            raise ValueError(f"format {form!r} has %{asked} without %{by[0]}")
    for one, two in (("m", "b"), ("H", "I")):
        if one in fields and two in fields:
            raise ValueError(f"format {form!r} has both %{one} and %{two}")
    if "I" in fields and "p" not in fields:
        raise ValueError(f"format {form!r} has %I, hours of a half day, without %p")
