"""Reserved codes: padding, missing and unknown values. Codes of known values follow them.

Codes index embedding tables. The layout is that of NVTabular's Categorify (23.6 and later).
"""

from __future__ import annotations

#: Padding of lists to equal length.
PAD = 0
#: A missing value.
NULL = 1
#: A value that is not in the vocabulary, as it is unknown or too rare in the training part. If a
#: vocabulary has several codes for such values (`oov_buckets`), this is the first.
UNSEEN = 2
