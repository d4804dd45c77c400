"""Warn of similar spellings of one value, of lists split wrongly, and of ids that are lists.

The checks look at the distinct texts of a column. The bytes of the texts are looked at first,
because they quickly rule out most differences in spelling.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from workflows.etl.check.column_texts import Columns
from workflows.raw import dictionaries

log = logging.getLogger(__name__)

#: Invisible characters: zero-width characters, soft hyphen, and byte order mark within a text.
INVISIBLE = r"[\x{200B}-\x{200F}\x{2060}\x{FEFF}\x{00AD}]"
#: Largest number of texts that are checked for another spelling.
_SAMPLE = 100_000
#: Spellings that may differ by chance are reported only if the column has at most `_FEW` texts, or
#: if at least the share `_SHARE` of its texts has another spelling.
_FEW, _SHARE = 1_000, 0.1
#: The first or the last value of a list in brackets that was split as plain text.
_OPENED = r"^[^\])}]*[\[({][^\])}]*$"
_CLOSED = r"^[^\[({]*[\])}][^\[({]*$"
#: The first value of a list as Python writes it.
_BEGUN = r"""^[\[({]\s*['"]"""
_QUOTED = r"""^("[^"]*"|'[^']*')$"""
#: Usual separators of values.
_SEPARATORS = ("|", ";", ",", "\t")


class _Cause(NamedTuple):
    """A way in which two spellings of one value can differ.

    Attributes:
        difference: phrase that names the difference in messages, such as letter case.
        bytes: the bytes of which a text must have one to differ in this way; None means all bytes
            beyond ASCII.
        normalize: the function that removes the difference in spelling from texts.
        is_certain: whether a single pair of texts with the difference is worth a warning.
    """

    difference: str
    bytes: bytes | None
    normalize: Callable[[pa.Array], pa.Array]
    is_certain: bool


def remove_invisible(texts: pa.Array) -> pa.Array:
    """Return texts without invisible characters, and with letters and accents composed (NFC)."""
    shown = pc.replace_substring_regex(texts, pattern=INVISIBLE, replacement="")
    return pc.utf8_normalize(shown, form="NFC")


def _without_zeros(texts: pa.Array) -> pa.Array:
    if not pc.any(pc.starts_with(texts, "0")).as_py():  # the regex takes ten times as long
        return texts
    return pc.replace_substring_regex(texts, pattern=r"^0+(\d+)$", replacement=r"\1")


CAUSES = (
    _Cause("invisible characters, or composed accents", None, remove_invisible, True),
    _Cause(
        "quotes around them",
        b"\"'",
        lambda texts: pc.utf8_trim(texts, characters="\"'="),
        is_certain=True,
    ),
    _Cause("zeros before numbers", b"0", _without_zeros, is_certain=False),
    _Cause("capital letters", bytes(range(65, 91)), pc.utf8_lower, is_certain=False),
)


def warn_of_spellings(name: str, columns: Columns) -> None:
    """Warn of ids or categories that differ only in spelling, such as letter case.

    Args:
        name: name of the column.
        columns: source of the recipe → the texts of the column in the source's table.
    """
    parts = [column.dictionary for column in columns.values()]
    texts = parts[0] if len(parts) == 1 else pc.unique(pa.chunked_array(parts))
    for cause in _possible_causes(texts):
        plain = cause.normalize(texts)
        changed = np.flatnonzero(pc.not_equal(plain, texts).to_numpy(zero_copy_only=False))
        some = changed[:: len(changed) // _SAMPLE + 1]
        twice = _occurring_twice(plain, plain.take(pa.array(some)))
        n = round(len(twice) / max(1, len(some)) * len(changed))
        if not n or not (cause.is_certain or len(texts) <= _FEW or n >= _SHARE * len(texts)):
            continue
        same = texts.filter(pc.equal(plain, twice[0]))
        log.warning(
            "column %r of %s has %s values in spellings that differ only by %s, such as %s and %s. "
            "They stay different values: use one spelling if they are the same.",
            *(name, " and ".join(columns), f"{n:,}", cause.difference),
            *(ascii(text) for text in same[:2].to_pylist()),
        )


def _possible_causes(texts: pa.Array) -> list[_Cause]:
    """Return the causes of different spellings that the bytes of the texts do not rule out."""
    whole = dictionaries.text_bytes(texts)
    return [
        cause
        for cause in CAUSES
        if (
            not whole.isascii()
            if cause.bytes is None
            else any(bytes([one]) in whole for one in cause.bytes)
        )
    ]


def _occurring_twice(texts: pa.Array, some: pa.Array) -> pa.Array:
    """Return the distinct texts in `some` that occur at least twice in `texts`."""
    counts = pc.value_counts(texts.filter(pc.is_in(texts, value_set=some)))
    return counts.field("values").filter(pc.greater(counts.field("counts"), 1))


def warn_of_parts(name: str, separator: str, columns: Columns) -> None:
    """Warn of list cells that the recipe's separator splits in wrong places, or does not split.

    Args:
        name: name of the column of lists.
        separator: the separator of the recipe, at which the text of a list is split.
        columns: source of the recipe → the texts of the column of lists in its table.
    """
    for source, column in columns.items():
        _warn_of_halves(name, source, separator, column.dictionary)
        if column.longest is not None and column.longest < 2:
            _warn_of_no_cut(name, source, separator, column.dictionary)


def warn_of_lists(name: str, columns: Columns) -> None:
    """Warn if most cells of an id column look like lists of several ids.

    Args:
        name: name of the column of ids.
        columns: source of the recipe → the texts of the column in the source's table.
    """
    for source, column in columns.items():
        texts = column.dictionary
        whole = dictionaries.text_bytes(texts)
        for separator in _SEPARATORS:
            if separator.encode() not in whole:
                continue
            found = texts.filter(pc.greater(pc.count_substring(texts, separator), 1))
            if 0 < len(texts) <= 2 * len(found):
                log.warning(
                    "column %r of %s: %s of %s ids have %r more than once, such as %r. If they are "
                    "lists of ids, set the source's `explode:` to the column, and `separator:`.",
                    *(name, source, f"{len(found):,}", f"{len(texts):,}", separator),
                    found[0].as_py()[:60],
                )
                return


def _warn_of_halves(name: str, source: str, separator: str, texts: pa.Array) -> None:
    """Warn of list values with an unpaired bracket or with quotes, which a wrong split leaves."""
    opened, closed, quoted = (
        texts.filter(pc.match_substring_regex(texts, one)) for one in (_OPENED, _CLOSED, _QUOTED)
    )
    begun = opened.filter(pc.match_substring_regex(opened, _BEGUN))
    if len(begun) or (len(opened) and len(closed)):
        log.warning(
            "column %r of %s has %s values with one bracket of a pair, such as %r: the "
            "separator %r cut texts within brackets, or a bracket is missing. Write the lists "
            "without brackets, or as ['a', 'b'].",
            *(name, source, f"{len(opened) + len(closed):,}"),
            *((begun if len(begun) else opened)[0].as_py(), separator),
        )
    if len(quoted):
        log.warning(
            "column %r of %s has %s values with quotes around them, such as %r, which are part of "
            "the value. Write the lists without quotes, or as ['a', 'b'].",
            *(name, source, f"{len(quoted):,}", quoted[0].as_py()),
        )


def _warn_of_no_cut(name: str, source: str, separator: str, texts: pa.Array) -> None:
    """Warn if list cells seem to have another separator than the recipe states."""
    for other in _SEPARATORS:
        if other == separator:
            continue
        found = texts.filter(pc.match_substring(texts, other))
        if 0 < len(texts) <= 2 * len(found):
            log.warning(
                "column %r of %s: no text has the separator %r, and %s of %s have %r, such as %r. "
                "Set features.%s.separator to the text between two values.",
                *(name, source, separator, f"{len(found):,}", f"{len(texts):,}", other),
                *(found[0].as_py(), name),
            )
            return
