"""Reads and writes Merlin schemas (columns, types, tags, vocabulary sizes) as text files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from google.protobuf import struct_pb2, text_format
from merlin.schema import ColumnSchema, Schema, Tags
from merlin.schema.io.tensorflow_metadata import TensorflowMetadata
from tensorflow_metadata.proto.v0 import schema_pb2

from models.core.column_names import AGES_OF, HISTORY_AGES


def read_schema(folder: Path, *, ages_of: str | None = None) -> Schema:
    """Read the Merlin schema that etl wrote as schema.pbtxt beside a table.

    Args:
        folder: the folder of the table.
        ages_of: the name of a history column; the schema then gets the query input `history_ages`,
            the ages of the items of this history; None to add nothing.
    """
    schema = TensorflowMetadata.from_proto_text_file(str(folder)).to_merlin_schema()
    return schema if ages_of is None else schema + _ages(schema[ages_of])


def write_schema(schema: Schema, path: Path) -> None:
    """Write a Merlin schema as text, with sorted tags for reproducible bytes."""
    text = TensorflowMetadata.from_merlin_schema(schema).to_proto_text()
    message = text_format.Parse(text, schema_pb2.Schema())
    for feature in message.feature:
        tags = sorted(feature.annotation.tag)
        feature.annotation.tag[:] = tags
        for packed in feature.annotation.extra_metadata:
            properties = struct_pb2.Struct()
            packed.Unpack(properties)
            packed.value = properties.SerializeToString(deterministic=True)
    path.write_text(text_format.MessageToString(message), encoding="utf-8")


def _ages(history: ColumnSchema) -> Schema:
    """Return the schema of the ages of the items of a history column: equally long lists."""
    column = ColumnSchema(
        HISTORY_AGES,
        tags=[Tags.CONTINUOUS, Tags.USER, Tags.SEQUENCE],
        properties={AGES_OF: history.name},
        dtype=np.float32,
        dims=(None, (0, int(history.shape.dims[1].max))),
    )
    return Schema([column])
