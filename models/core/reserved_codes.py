"""Codes of categorical features that are reserved for padding, missing and unknown values.

A code is the row of a value in an embedding table; the codes of known values follow the reserved
ones. The layout is that of NVTabular's Categorify (23.6 and later).
"""

from __future__ import annotations

#: The code that pads lists of codes to equal length.
PAD = 0
#: The code of a missing value.
NULL = 1
#: The code of a value that is not in the vocabulary, as it is unknown or too rare in the training
#: part. If a vocabulary has several codes for such values (`oov_buckets`), this is the first.
UNSEEN = 2
