"""Writes an index definition and bulk files for OpenSearch, to upload by `curl` or any client.

    curl -X PUT $URL/<name> -H 'content-type: application/json' -d @index.json
    curl $URL/_bulk -H 'content-type: application/x-ndjson' --data-binary @bulk-00000.ndjson

OpenSearch reports an inner product s as s + 1 if s >= 0, else as 1 / (1 - s), which orders items as
the inner product does.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from workflows.ground.errors import DataError
from workflows.ground.folders import refuse_foreign, replace_folder
from workflows.load.documents import ID, VECTOR, Documents

log = logging.getLogger(__name__)

INDEX = "index.json"
#: OpenSearch refuses bodies beyond 100 MiB; half of that is quick to send again.
MOST_BYTES = 50 << 20
#: The longest `_id` that OpenSearch takes, in bytes.
_LONGEST_ID = 512
#: The longest text that can be searched for, in letters: a keyword has 32,766 bytes at most, and a
#: letter up to 4.
_IGNORE_ABOVE = 8_191
#: Pattern of allowed field names: a dot would make a field inside another, and `_` begins those of
#: OpenSearch.
_FIELD = re.compile(r"[^._*][^.*]*")

NAMES = r"[a-z0-9][a-z0-9_-]{0,200}"
NAME_RULE = "lower-case letters, digits, _ and -"
DEFAULT_PLACE = "opensearch"


def write(documents: Documents, place: str, name: str) -> None:
    """Write OpenSearch's index definition index.json, and the items as bulk-*.ndjson.

    Args:
        documents: the items as documents.
        place: the folder to write the files to.
        name: the name of the OpenSearch index.

    Raises:
        DataError: an id is too long.
        StorageError: the folder has other content, or cannot be written.
    """
    if documents.longest_id() > _LONGEST_ID:
        raise DataError(
            f"An item id has {documents.longest_id()} bytes; OpenSearch takes {_LONGEST_ID} at "
            "most. Shorten it in the raw data."
        )
    documents = documents.named(_FIELD)
    _warn_of_long(documents)
    with replace_folder(Path(place), refuse=partial(refuse_foreign, ours=INDEX)) as aside:
        text = json.dumps(definition(documents), indent=2)
        (aside / INDEX).write_text(text + "\n", encoding="utf-8")
        for number, part in enumerate(_parts(documents, name)):
            (aside / f"bulk-{number:05}.ndjson").write_bytes(part)


def definition(documents: Documents) -> dict[str, Any]:
    """Return settings and mapping of the OpenSearch index: an HNSW graph with inner product."""
    vector = {
        "type": "knn_vector",
        "dimension": documents.vectors.shape[1],
        "space_type": "innerproduct",
        "method": {
            "name": "hnsw",
            "engine": "faiss",
            "parameters": {"m": 16, "ef_construction": 256},
        },
    }
    columns = {f.name: _type(f.type) for f in documents.columns.schema}
    return {
        "settings": {"index": {"knn": True}},
        "mappings": {"properties": {ID: {"type": "keyword"}, VECTOR: vector, **columns}},
    }


def _type(kind: pa.DataType) -> dict[str, str | int]:
    """Return the OpenSearch field type of a column; a list has the type of its values."""
    value = kind.value_type if pa.types.is_list(kind) else kind
    if pa.types.is_floating(value):
        return {"type": "double"}
    if pa.types.is_integer(value):
        return {"type": "long"}
    return {"type": "keyword", "ignore_above": _IGNORE_ABOVE}


def _warn_of_long(documents: Documents) -> None:
    """Warn of item columns with text that is too long for OpenSearch to search for."""
    for name, column in zip(documents.columns.column_names, documents.columns.columns, strict=True):
        texts = pc.list_flatten(column) if pa.types.is_list(column.type) else column
        if not pa.types.is_string(texts.type):
            continue
        n_long = pc.sum(pc.greater(pc.utf8_length(texts), _IGNORE_ABOVE)).as_py() or 0
        if n_long:
            log.warning(
                "%s values of %r have more than %s letters: OpenSearch keeps them, but no filter "
                "finds them",
                *(f"{n_long:,}", name, f"{_IGNORE_ABOVE:,}"),
            )


def _parts(documents: Documents, name: str) -> Iterator[bytes]:
    """Yield OpenSearch bulk lines of all items, in parts of at most `MOST_BYTES` bytes."""
    part = bytearray()
    for batch in documents.batches():
        for document in batch:
            lines = _lines(document, name)
            if part and len(part) + len(lines) > MOST_BYTES:
                yield bytes(part)
                part.clear()
            part += lines
    yield bytes(part)


def _lines(document: dict[str, Any], name: str) -> bytes:
    action = {"index": {"_index": name, "_id": document[ID]}}
    lines = (json.dumps(what, ensure_ascii=False, allow_nan=False) for what in (action, document))
    return "".join(f"{line}\n" for line in lines).encode()
