"""Quotes: the faults that a byte-by-byte parser finds, however the text is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflows.raw.quotes import Quotes


def slowly(text: bytes, escape: bytes = b"") -> tuple[int | None, bool]:
    """Return the first closing quote that text follows, or whether a cell stays open."""
    state, at = "start", 0
    while at < len(text):
        byte, after = text[at : at + 1], text[at + 1 : at + 2]
        if byte == b'"' and state == "start":
            state = "quoted"
        elif escape and byte == escape:
            state, at = state.replace("start", "plain"), at + 1
        elif state == "quoted":
            if byte == b'"' and after == b'"':
                at += 1
            elif byte == b'"':
                if after not in (b"", b",", b"\n", b"\r"):
                    return at, False
                state = "plain"
        else:
            state = "start" if byte in b",\r\n" else "plain"
        at += 1
    return None, state == "quoted"


def followed(text: bytes, step: int, escape: bytes = b"") -> tuple[int | None, bool]:
    quotes = Quotes(b",", b'"', escape)
    for start in range(0, len(text), step):
        quotes.check(text[start : start + step])
    quotes.check(b"")
    return quotes.fault, quotes.is_open and quotes.fault is None


@given(st.lists(st.sampled_from([b'"', b"a", b",", b"\n"]), max_size=30), st.integers(1, 12))
def test_the_same_as_byte_by_byte(parts: list[bytes], step: int) -> None:
    text = b"".join(parts)
    assert followed(text, step) == slowly(text)


@given(st.lists(st.sampled_from([b'"', b"a", b",", b"\n", b"\\"]), max_size=30), st.integers(1, 12))
def test_the_same_as_byte_by_byte_with_escapes(parts: list[bytes], step: int) -> None:
    text = b"".join(parts)
    assert followed(text, step, b"\\") == slowly(text, b"\\")


@pytest.mark.parametrize(
    ("text", "fault", "is_open"),
    [
        (b'a,"b"\n', None, False),
        (b'a,"b""c"\n', None, False),
        (b'a,"b" c\n', 4, False),
        (b'a,"b\nc,"d"\n', 7, False),  # the quote behind b is missing
        (b'a,5" disk\n', None, False),  # an ordinary character within a cell
        (b'a,"b\nc,d', None, True),
        (b'\xef\xbb\xbf"a",b\n"c"d', 11, False),
    ],
)
def test_places(text: bytes, fault: int | None, is_open: bool) -> None:
    assert followed(text, 1 << 20) == (fault, is_open)
    assert followed(text, 1 << 20) == followed(text, 3)
