"""The codes that stand for no single value; the codes of known values follow them.

Codes index embedding tables. The layout is that of NVTabular's Categorify (23.6 and later).
"""

from __future__ import annotations

#: Fills lists up to one length.
PAD = 0
#: A missing value.
NULL = 1
#: A value that training has not met, or met too rarely. Where a vocabulary has several such codes
#: (`oov_buckets`), this is the first of them.
UNSEEN = 2
