"""Loads items into Milvus: a file of Milvus Lite on this machine, or a cluster.

Items are written into a new collection. Queries read the old collection until the new one is
complete: then the new file replaces the old file, or the alias of the cluster moves to the new
collection.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from models.core import atomic
from workflows.ground.errors import DataError, StorageError
from workflows.load.documents import ID, VECTOR, Documents

#: The first bytes of a Milvus Lite file, which is an SQLite file.
_SIGNATURE = b"SQLite format 3\0"
#: The longest text that Milvus takes in one field, in bytes.
_LONGEST_ID = 65_535
#: The greatest size, in bytes, of all readable columns of an item, which Milvus keeps in one field
#: of JSON.
_LONGEST_ROW = 65_536
#: Pattern of the field names that a filter expression of Milvus can use.
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

NAMES, NAME_RULE = r"[A-Za-z_]\w{0,200}", "letters, digits and _, no digit first"
DEFAULT_PLACE = "milvus.db"
#: The environment variable with a Milvus cluster's credentials, `user:password` or a key: every
#: user of the machine sees the arguments of a command.
TOKEN = "MILVUS_TOKEN"


def write(documents: Documents, place: str, name: str) -> None:
    """Load items into a new Milvus collection, which then replaces the old collection.

    Args:
        documents: the items as documents.
        place: a file, or the URI of a cluster (http://host:19530).
        name: the name of the collection; in a cluster, the name of its alias.

    Raises:
        DataError: an id, or an item's text, is too long.
        StorageError: the client is not installed, Milvus reports an error, or the file cannot be
            written.
    """
    if documents.longest_id() > _LONGEST_ID:
        raise DataError(
            f"An item id has {documents.longest_id()} bytes; Milvus takes 65535 at most."
        )
    documents = documents.named(_FIELD)
    _refuse_long(documents)
    client_of = _client()
    try:
        if "://" in place:
            _into_cluster(client_of(uri=place, token=os.environ.get(TOKEN, "")), documents, name)
        else:
            with _own_temporary_files():
                _into_file(client_of, documents, Path(place), name)
    except OSError as error:
        raise StorageError(
            f"Writing {error.filename or place} failed: {error.strerror}. Make room, permit "
            "writing there, or name another file. Nothing half-written was kept."
        ) from error
    except _refusals() as error:
        raise StorageError(f"Milvus at {place} refused: {error}") from error


def _refuse_long(documents: Documents) -> None:
    """Raise an error if the columns of an item have more text than Milvus accepts."""
    columns = documents.text_bytes()
    if not columns:
        return
    totals = np.sum(list(columns.values()), axis=0)
    n_long = int((totals > _LONGEST_ROW).sum())
    if n_long:
        row = int(totals.argmax())
        longest = max(columns, key=lambda name: columns[name][row])
        raise DataError(
            f"The readable columns of {n_long:,} items hold more text than Milvus takes, which is "
            f"{_LONGEST_ROW:,} bytes an item: {documents.ids[row].as_py()!r} has "
            f"{totals[row]:,} bytes, most of them in {longest!r}. Shorten that column in the raw "
            "data, or leave it out of the recipe's features."
        )


def _into_file(client_of: Any, documents: Documents, file: Path, name: str) -> None:
    from milvus_lite.server_manager import server_manager_instance

    _refuse_to_overwrite(client_of, file, name)
    aside = file.with_name(f".{file.name}.new.db")
    file.parent.mkdir(parents=True, exist_ok=True)
    _remove(aside)
    try:
        client = client_of(uri=str(aside))
        try:
            _fill(client, documents, name)
        finally:
            client.close()
            server_manager_instance.release_server(str(aside))
        atomic.put_in_place(aside, file)
    finally:
        _remove(aside)


@contextlib.contextmanager
def _own_temporary_files() -> Iterator[None]:
    """Return a context in which Milvus Lite writes its logs into a temporary folder."""
    before = os.environ.get("TMPDIR")
    with tempfile.TemporaryDirectory(prefix="two-tower-milvus-") as folder:
        os.environ["TMPDIR"] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ["TMPDIR"]
            else:
                os.environ["TMPDIR"] = before


def _remove(database: Path) -> None:
    """Remove a Milvus Lite database file and the files that SQLite writes beside it."""
    for suffix in ("", "-journal", "-wal", "-shm"):
        atomic.remove(database.with_name(database.name + suffix))


def _refuse_to_overwrite(client_of: Any, file: Path, name: str) -> None:
    """Refuse to overwrite a file that is no Milvus Lite database, or has other collections.

    Raises:
        StorageError: the file has other collections, another format or a wrong suffix.
    """
    from milvus_lite.server_manager import server_manager_instance

    if file.suffix != ".db":
        raise StorageError(
            f"{file}: a file of Milvus Lite ends in .db; a cluster is given as http://host:19530."
        )
    if not file.exists():
        return
    with file.open("rb") as opened:
        if opened.read(len(_SIGNATURE)) != _SIGNATURE:
            raise StorageError(
                f"{file} exists and is not a Milvus Lite file, so it is not overwritten. Name "
                "another --place, or move it away."
            )
    client = client_of(uri=str(file))
    try:
        others = sorted(set(client.list_collections()) - {name})
    finally:
        client.close()
        server_manager_instance.release_server(str(file))
    if others:
        raise StorageError(
            f"{file} also holds {', '.join(others)}, which would be lost. Name another --place, "
            f"or --name {others[0]} to replace it."
        )


def _into_cluster(client: Any, documents: Documents, name: str) -> None:
    fresh = f"{name}_{time.time_ns()}"
    try:
        _fill(client, documents, fresh)
        if client.has_collection(name):  # true for an alias, too
            old = client.describe_collection(name)["collection_name"]
            client.alter_alias(fresh, name)
            client.drop_collection(old)
        else:
            client.create_alias(fresh, name)
    except BaseException:
        with contextlib.suppress(*_refusals()):
            client.drop_collection(fresh)
        raise
    finally:
        client.close()


def _fill(client: Any, documents: Documents, name: str) -> None:
    """Create a Milvus collection with an exact inner product index, and insert the items."""
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=True)
    longest = max(1, documents.longest_id())
    schema.add_field(ID, DataType.VARCHAR, is_primary=True, max_length=longest)
    schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=documents.vectors.shape[1])
    index = client.prepare_index_params()
    index.add_index(VECTOR, index_type="FLAT", metric_type="IP")
    client.create_collection(name, schema=schema, index_params=index)
    for batch in documents.batches():
        client.insert(name, batch)
    client.flush(name)


def _client() -> Any:
    try:
        from pymilvus import MilvusClient
    except ImportError as error:
        raise StorageError(
            f"Milvus needs its client ({error}): pip install 'merlin-two-tower[milvus]'."
        ) from None
    return MilvusClient


def _refusals() -> tuple[type[Exception], ...]:
    from pymilvus import MilvusException

    return (MilvusException,)
