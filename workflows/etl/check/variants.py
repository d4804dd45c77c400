"""Texts of a column that look like one another, or like halves: told once, with a count.

Distinct texts are looked at, not cells, and a text only where its bytes allow what is looked for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from workflows.raw import dictionaries

log = logging.getLogger(__name__)

#: Characters that nobody sees: zero-width ones, a soft hyphen, a byte order mark within a text.
INVISIBLE = r"[\x{200B}-\x{200F}\x{2060}\x{FEFF}\x{00AD}]"
#: So many texts that may have a twin are looked at.
_SAMPLE = 100_000
#: Twins that may be chance are told where there are few texts, or of at least such a share.
_FEW, _SHARE = 1_000, 0.1
#: The first or the last value of a text that was cut within brackets.
_OPENED = r"^[^\])}]*[\[({][^\])}]*$"
_CLOSED = r"^[^\[({]*[\])}][^\[({]*$"
#: The first value of a list as Python writes it.
_BEGUN = r"""^[\[({]\s*['"]"""
_QUOTED = r"""^("[^"]*"|'[^']*')$"""
#: What separates values in other files.
_SEPARATORS = ("|", ";", ",", "\t")


class _Cause(NamedTuple):
    """A way to write one value in two ways.

    Attributes:
        told: what the two differ in.
        bytes: no text has it that has none of these; None for bytes beyond ASCII.
        without: texts → texts in which the difference is gone.
        is_certain: one pair of texts is enough to tell.
    """

    told: str
    bytes: bytes | None
    without: Callable[[pa.Array], pa.Array]
    is_certain: bool


def visible(texts: pa.Array) -> pa.Array:
    """Return texts without characters that nobody sees, letters and accents composed (NFC)."""
    shown = pc.replace_substring_regex(texts, pattern=INVISIBLE, replacement="")
    return pc.utf8_normalize(shown, form="NFC")


def _without_zeros(texts: pa.Array) -> pa.Array:
    if not pc.any(pc.starts_with(texts, "0")).as_py():  # an expression takes ten times as long
        return texts
    return pc.replace_substring_regex(texts, pattern=r"^0+(\d+)$", replacement=r"\1")


CAUSES = (
    _Cause("characters that nobody sees, or composed accents", None, visible, True),
    _Cause(
        "quotes around them",
        b"\"'",
        lambda texts: pc.utf8_trim(texts, characters="\"'="),
        is_certain=True,
    ),
    _Cause("zeros before numbers", b"0", _without_zeros, is_certain=False),
    _Cause("capital letters", bytes(range(65, 91)), pc.utf8_lower, is_certain=False),
)


def warn_of_twins(name: str, columns: Mapping[str, pa.DictionaryArray]) -> None:
    """Warn of values that differ from another one only in how they are written.

    Args:
        name: of the column.
        columns: source → the column there.
    """
    parts = [column.dictionary for column in columns.values()]
    texts = parts[0] if len(parts) == 1 else pc.unique(pa.chunked_array(parts))
    for cause in CAUSES:
        if not _may_have(texts, cause.bytes):
            continue
        plain = cause.without(texts)
        changed = np.flatnonzero(pc.not_equal(plain, texts).to_numpy(zero_copy_only=False))
        some = changed[:: len(changed) // _SAMPLE + 1]
        twice = _met_twice(plain, plain.take(pa.array(some)))
        n = round(len(twice) / max(1, len(some)) * len(changed))
        if not n or not (cause.is_certain or len(texts) <= _FEW or n >= _SHARE * len(texts)):
            continue
        same = texts.filter(pc.equal(plain, twice[0]))
        log.warning(
            "column %r of %s has %s values in spellings that differ only by %s, such as %s and %s. "
            "They stay values of their own: write them alike if they are the same.",
            *(name, " and ".join(columns), f"{n:,}", cause.told),
            *(ascii(text) for text in same[:2].to_pylist()),
        )


def _may_have(texts: pa.Array, wanted: bytes | None) -> bool:
    """Say whether any text has one of some bytes, or one beyond ASCII."""
    data = texts.buffers()[2]
    if data is None:
        return False
    if wanted is None:
        found = np.frombuffer(data, np.uint8)
        return len(found) > 0 and int(found.max()) >= 128
    whole = data.to_pybytes()
    return any(bytes([one]) in whole for one in wanted)


def _met_twice(texts: pa.Array, some: pa.Array) -> pa.Array:
    """Return those of some texts, each once, that stand among all texts more than once."""
    counts = pc.value_counts(texts.filter(pc.is_in(texts, value_set=some)))
    return counts.field("values").filter(pc.greater(counts.field("counts"), 1))


def warn_of_parts(name: str, separator: str, columns: Mapping[str, pa.ChunkedArray]) -> None:
    """Warn of lists that a separator cut in wrong places, or nowhere.

    Args:
        name: of the column of lists.
        separator: what its text was cut at.
        columns: source → the lists there.
    """
    for source, column in columns.items():
        texts = dictionaries.flatten(column).dictionary
        _warn_of_halves(name, source, separator, texts)
        lists = dictionaries.combine(column)
        if pa.types.is_list(lists.type) and (pc.max(pc.list_value_length(lists)).as_py() or 0) < 2:
            _warn_of_no_cut(name, source, separator, texts)


def warn_of_lists(name: str, columns: Mapping[str, pa.DictionaryArray]) -> None:
    """Warn of ids of which most look like lists of several ids.

    Args:
        name: of the column of ids.
        columns: source → the column there.
    """
    for source, column in columns.items():
        texts = column.dictionary
        for separator in _SEPARATORS:
            if not _may_have(texts, separator.encode()):
                continue
            found = texts.filter(pc.greater(pc.count_substring(texts, separator), 1))
            if 0 < len(texts) <= 2 * len(found):
                log.warning(
                    "column %r of %s: %s of %s ids have %r more than once, such as %r. If they are "
                    "lists of ids, name the column in the source's `explode:`, with `separator:`.",
                    *(name, source, f"{len(found):,}", f"{len(texts):,}", separator),
                    found[0].as_py()[:60],
                )
                return


def _warn_of_halves(name: str, source: str, separator: str, texts: pa.Array) -> None:
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
            "column %r of %s has %s values with quotes around them, such as %r, which belong to "
            "the value. Write the lists without quotes, or as ['a', 'b'].",
            *(name, source, f"{len(quoted):,}", quoted[0].as_py()),
        )


def _warn_of_no_cut(name: str, source: str, separator: str, texts: pa.Array) -> None:
    for other in _SEPARATORS:
        if other == separator:
            continue
        found = texts.filter(pc.match_substring(texts, other))
        if 0 < len(texts) <= 2 * len(found):
            log.warning(
                "column %r of %s: no text has the separator %r, and %s of %s have %r, such as %r. "
                "Set features.%s.separator to what stands between two values.",
                *(name, source, separator, f"{len(found):,}", f"{len(texts):,}", other),
                *(found[0].as_py(), name),
            )
            return
