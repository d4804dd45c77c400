"""Check, byte by byte, that quotes in csv and tsv files are opened and closed correctly.

A csv cell that begins with a quote ends with a quote, and a quote inside is doubled (RFC 4180) or
escaped. Arrow's csv parser is less strict: text after a closing quote is appended to the cell. So
if a closing quote is missing, the cell ends at the next quoted cell, and the rows in between become
part of the cell without an error.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

#: Number of bytes of csv text whose quotes are checked together; the arrays for them fit into a
#: processor's cache.
_STEP = 1 << 19

Bytes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


class Quotes:
    """Checks that quotes are opened and closed correctly in csv text that comes in pieces.

    Adjacent quote characters form a group. A group of an odd number of quotes opens a quoted cell
    at the beginning of a cell, and closes the cell if one is open; an even group changes nothing.
    Whether a cell is open follows from a count of odd groups, so that NumPy can check all bytes of
    a piece at once.

    Args:
        delimiter: the byte between two cells.
        quote: the byte around quoted cells.
        escape: the byte that makes the next byte an ordinary character; empty for none.

    Attributes:
        fault: position, from 0, of the first closing quote that text follows; None for none.
        is_open: whether a quoted cell is open at the end of the pieces of text so far.
        has_quotes: whether there was a quote character in the pieces of text so far.
    """

    def __init__(self, delimiter: bytes, quote: bytes, escape: bytes = b"") -> None:
        self._quote, self._escape = quote, escape
        self._ends = delimiter + b"\r\n"
        self._kept = b"\n"  # a text begins as a line does
        self._place = -1
        self._tail = re.compile(
            rb"%s.[%s]*\Z" % (re.escape(escape) + b"*" * bool(escape), re.escape(quote + escape)),
            re.DOTALL,
        )
        self.fault: int | None = None
        self.is_open = False
        self.has_quotes = False

    def check(self, data: bytes) -> None:
        """Check the quotes of the next piece of the csv text; an empty piece ends the text."""
        self.has_quotes = self.has_quotes or self._quote in data
        if self._escape or not data or self._quote in data:
            for start in range(0, max(1, len(data)), _STEP):
                self._check_block(data[start : start + _STEP])
        else:
            self._check_block(data)

    def _check_block(self, data: bytes) -> None:
        if self.fault is not None:
            return
        if not data:
            self._check_piece(np.frombuffer(self._kept + b"\n", np.uint8))
            self._kept = b"\n"
            return
        if self._quote not in data and self._quote not in self._kept and not self._escape:
            self._place += len(self._kept) + len(data) - 1
            self._kept = data[-1:]
            return
        if self._place < 0 and data.startswith(b"\xef\xbb\xbf"):
            data, self._place = data[3:], 2
        whole = self._kept + data
        found = self._tail.search(whole, max(0, len(whole) - 4096))
        start = found.start() if found else len(whole) - 1
        # quotes at the end of this piece can be checked only with the next piece
        self._check_piece(np.frombuffer(whole, np.uint8), len(whole) - start)
        self._kept = whole[start:]
        self._place += start

    def _check_piece(self, text: Bytes, kept: int = 0) -> None:
        """Check the quotes of a piece of csv text; its first byte was checked before.

        Args:
            text: the bytes of the csv text.
            kept: number of bytes, at the end of `text`, that are checked with the next piece.
        """
        is_quote, is_end = text == self._quote[0], self._is_end(text)
        begins = is_end[:-1]
        if self._escape:
            plain = ~self._escaped(text)
            is_quote &= plain
            begins = begins & plain[:-1]
        is_quote[0] = False
        is_quote[len(text) - max(0, kept - 1) :] = False
        if self._is_plain(is_quote, begins, is_end):
            return
        first = is_quote[1:] & ~is_quote[:-1]
        last = is_quote[1:-1] & ~is_quote[2:]
        begins, follows = begins[first], is_end[2:][last]
        if len(begins) == 0:
            return
        is_odd = np.ones(len(begins), bool)
        if len(begins) < np.count_nonzero(is_quote):
            is_odd = (np.flatnonzero(last) - np.flatnonzero(first)) & 1 == 0
        is_open, self.is_open = _states(is_odd, begins, self.is_open)
        wrong = ~follows & ((is_open & is_odd) | (~is_open & begins & ~is_odd))
        if wrong.any():
            self.fault = self._place + 1 + int(np.flatnonzero(last)[wrong.argmax()])

    def _is_plain(self, is_quote: Mask, begins: Mask, is_end: Mask) -> bool:
        """Check csv quotes that open and close cells alternately; return False if some do not.

        Args:
            is_quote: whether a byte is a quote character [n].
            begins: whether a cell can begin after a byte [n - 1].
            is_end: whether a byte ends an unquoted cell [n].
        """
        opens = begins[is_quote[1:]]
        if len(opens) == 0:
            return True
        first = int(self.is_open)
        if not opens[first::2].all() or opens[1 - first :: 2].any():
            return False
        if (is_quote[1:-1] & ~begins[:-1] & ~is_end[2:]).any():
            return False
        self.is_open = bool(opens[-1])
        return True

    def _is_end(self, text: Bytes) -> Mask:
        """Return the mask of the bytes that end an unquoted cell: delimiters and line ends."""
        first, *others = self._ends
        found = text == first
        for other in others:
            found |= text == other
        return found

    def _escaped(self, text: Bytes) -> Mask:
        """Return the mask of the bytes that an escape character makes ordinary characters."""
        found = np.zeros(len(text) + 1, bool)
        at = np.flatnonzero(text == self._escape[0])
        first = np.flatnonzero(np.append(True, np.diff(at) > 1)) if len(at) else at
        counts = np.diff(np.append(first, len(at)))
        found[(at[first] + counts)[counts % 2 == 1]] = True
        # the second of two escapes, the fourth of four and so on
        nth = np.arange(len(at)) - np.repeat(first, counts)
        found[at[nth % 2 == 1]] = True
        return found[:-1]


def _states(is_odd: Mask, begins: Mask, before: bool) -> tuple[Mask, bool]:
    """Return whether a quoted cell is open before each group of adjacent quotes and at the end.

    A group of an odd number of quotes at the beginning of a cell opens or closes a quoted cell;
    after any other odd group no quoted cell is open.

    Args:
        is_odd: whether the group has an odd number of quotes.
        begins: whether a cell can begin at the group.
        before: whether a cell is open before the first group.
    """
    toggles, resets = is_odd & begins, is_odd & ~begins
    if is_odd.all() and not (begins[0] and before) and not (begins[1:] & begins[:-1]).any():
        return np.append(before, begins[:-1]), bool(begins[-1])
    total = np.cumsum(toggles, dtype=np.int32) + np.int32(before)
    at_reset = np.maximum.accumulate(np.where(resets, total, np.int32(0)))
    after = ((total - at_reset) & 1) == 1
    return np.append(before, after[:-1]), bool(after[-1])
