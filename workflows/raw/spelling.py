"""Give booleans and whole floats one spelling, and recognise words for a missing value.

A data frame that is saved as parquet has `true` and 1991; saved as csv it has `True` and `1991.0`.
The spelling in parquet is the canonical one. In a column of ids or categories, either all texts are
respelt or none, because '1.0' and '1' in the same column may be different values, such as versions
of a program.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

#: Words that programs write for a missing value. `none` is not among them, because it is a value:
#: the occupation of some users of MovieLens-100K, for example.
NULLISH = (
    *("\\N", "NULL", "Null", "null", "(null)", "<null>", "None", "NONE", "<NA>", "NA"),
    *("N/A", "n/a", "#N/A", "NaN", "nan", "NAN", "NaT", "nil", "NIL", "undefined"),
)
_BOOLEANS = ("true", "false")
#: Spellings of booleans that are replaced by the canonical ones.
_TRUE, _FALSE = ("True", "TRUE"), ("False", "FALSE")
#: A whole number as pandas writes it if the column has a gap; any number with a decimal point.
_WHOLE = r"^-?\d+\.0$"
_WITH_POINT = r"^-?\d+\.\d+$"
_INTEGER = r"^-?\d+$"
#: A whole number with a decimal point, and with more digits than a float may hold.
_LONG = r"^-?\d{16,}\.0$"
#: Scientific notation (9.78014E+12), in which spreadsheets and Python write numbers with many
#: digits.
_SCIENTIFIC = r"^[-+]?\d([.,]\d+)?[eE]\+\d{2,}$"
#: A text that is written as a formula, which keeps spreadsheets from changing an id.
_FORMULA = r'^="([^"]*)"$'
#: From this number on, not all whole numbers are exact as float64.
EXACT = 2**53
#: Number of texts of a column that are checked first: they show for most columns that the spelling
#: needs no change.
_FEW = 32


def canonical(texts: pa.StringArray) -> pa.StringArray:
    """Return the canonical spelling of each text, such as 1991 for 1991.0; null for no change."""
    found = pa.nulls(len(texts), pa.string())
    if pc.any(pc.ends_with(texts, ".0")).as_py():  # an expression takes ten times as long
        found = pc.if_else(
            pc.match_substring_regex(texts, _WHOLE),
            _without_point(texts),
            pa.scalar(None, pa.string()),
        )
    if pc.any(are_formulas := is_formula(texts)).as_py():
        inner = pc.replace_substring_regex(texts, pattern=_FORMULA, replacement=r"\1")
        found = pc.if_else(are_formulas, inner, found)
    for spellings, canonical in zip((_TRUE, _FALSE), _BOOLEANS, strict=True):
        is_boolean = _among(texts, spellings)
        if pc.any(is_boolean).as_py():
            found = pc.if_else(is_boolean, canonical, found)
    return found


def unify(texts: Sequence[pa.StringArray], *, fractions: bool) -> list[pa.StringArray] | None:
    """Return a column's texts in canonical spelling, if all are booleans or all are numbers.

    Args:
        texts: arrays that together hold the distinct texts of the column in one file, without
            nulls; an array may repeat texts of another.
        fractions: whether a column counts as numbers even if some are not whole, such as 36.5.

    Returns:
        Canonical texts in the same order; None if all keep their spelling, because they are
        canonical, or because not all of them are booleans or numbers with a decimal point.
    """
    if not _may_unify([array.slice(0, _FEW) for array in texts[:1]], fractions=fractions):
        return None
    if not _may_unify(texts, fractions=fractions):
        return None
    found = [pc.coalesce(canonical(array), array) for array in texts]
    is_same = all(new.equals(old) for new, old in zip(found, texts, strict=True))
    return None if is_same else found


def _may_unify(texts: Sequence[pa.StringArray], *, fractions: bool) -> bool:
    kept = [array.filter(pc.invert(_among(array, NULLISH))) for array in texts]
    kept = [array for array in kept if len(array)]
    pattern = _WITH_POINT if fractions else _WHOLE
    booleans = (*_BOOLEANS, *_TRUE, *_FALSE)
    return bool(kept) and (
        all(pc.all(_among(array, booleans)).as_py() for array in kept)
        or all(pc.all(pc.match_substring_regex(array, pattern)).as_py() for array in kept)
    )


def respell(texts: pa.StringArray, known: pa.StringArray) -> pa.StringArray:
    """Respell texts of a file or a request as the same column is spelt in the training data.

    A text that the training column has is kept. Another text gets its canonical spelling if the
    training column has the text in this spelling, or if all texts of the training column are whole
    numbers, or all are booleans.

    Args:
        texts: texts of a file or a request, and nulls.
        known: the distinct texts of the same column in training data.
    """
    twins = canonical(texts)
    if twins.null_count == len(twins):
        return texts
    is_known = _among(texts, known)
    whole = bool(pc.all(pc.match_substring_regex(known, _INTEGER)).as_py())
    boolean = bool(pc.all(_among(known, _BOOLEANS)).as_py())
    fits = _among(twins, known)
    if whole or boolean:
        pattern = _INTEGER if whole else "^(true|false)$"
        fits = pc.or_(fits, pc.match_substring_regex(twins, pattern))
    fits = pc.and_(pc.fill_null(fits, False), pc.invert(is_known))
    return pc.if_else(fits, twins, texts)


def respell_one(text: str, known: pa.Array | pa.ChunkedArray) -> str:
    """Respell a text of a recipe as a column is spelt, given the distinct texts of the column."""
    if isinstance(known, pa.ChunkedArray):
        known = known.combine_chunks()
    return str(respell(pa.array([text], pa.string()), known)[0].as_py())


def find_inexact(texts: pa.StringArray) -> str | None:
    """Return the first text that is a whole number too large for a float to be exact; else None."""
    for text in texts.filter(pc.match_substring_regex(texts, _LONG)).to_pylist():
        if abs(int(text.removesuffix(".0"))) >= EXACT:
            return str(text)
    return None


def is_scientific(texts: pa.StringArray) -> pa.BooleanArray:
    """Return the mask of the texts such as 9.78014E+12, numbers whose last digits may be lost."""
    if not _hold(texts, b"e+", b"E+"):
        return pa.repeat(False, len(texts))
    return pc.match_substring_regex(texts, _SCIENTIFIC)


def is_formula(texts: pa.StringArray) -> pa.BooleanArray:
    """Return the mask of the texts that are formulas of a spreadsheet, such as ="0017"."""
    if not _hold(texts, b'="'):
        return pa.repeat(False, len(texts))
    return pc.match_substring_regex(texts, _FORMULA)


def is_nullish(texts: pa.StringArray) -> pa.BooleanArray:
    """Return the mask of the texts that are words for a missing value, such as 'null' or 'nan'."""
    return _among(texts, NULLISH)


def _hold(texts: pa.StringArray, *parts: bytes) -> bool:
    """Say whether the bytes of an array of texts contain one of the given byte strings."""
    data = texts.buffers()[2]
    whole = data.to_pybytes() if data is not None else b""
    return any(part in whole for part in parts)


def _without_point(texts: pa.StringArray) -> pa.StringArray:
    return pc.replace_substring_regex(texts, pattern=r"\.0$", replacement="")


def _among(texts: pa.Array, known: pa.Array | tuple[str, ...]) -> pa.BooleanArray:
    given = known if isinstance(known, pa.Array) else pa.array(known, pa.string())
    return pc.is_in(texts, value_set=given)
