"""Run etl on a world, and read the stage with pandas and pyarrow alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from world import World

from workflows.etl import EtlResult, etl
from workflows.ground.device import Device
from workflows.raw import dictionaries
from workflows.stages.store import Store

DEVICE = Device("cpu", "asked for by a test")
PARTS = ("train", "valid", "test")
FITTED = ("vocabulary", "statistics.json", "train", "users", "items")


def run(world: World, *overrides: str, name: str = "run") -> EtlResult:
    """Run etl on a world, in a run beside its raw files."""
    store = Store(world.folder.parent / name)
    return etl(world.recipe(*overrides), store, DEVICE, data=world.folder)


def with_dictionaries(table: pa.Table) -> pa.Table:
    """Return a table with its text as dictionaries, as the readers of raw files return it."""
    columns = {}
    for name in table.column_names:
        array = table[name].combine_chunks()
        if pa.types.is_list(array.type):
            values = dictionaries.combine(array.flatten())
            array = dictionaries.make_lists(array.value_lengths(), values)
        columns[name] = dictionaries.combine(array)
    return pa.table(columns)


def content(folder: Path, *names: str) -> dict[str, bytes]:
    """Return path → bytes of the files of a stage, without the manifest.

    Args:
        folder: folder of the stage.
        names: files and folders to include; all if there are none.
    """
    paths = [p for name in names or ["."] for p in [folder / name, *(folder / name).rglob("*")]]
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in paths
        if p.is_file() and p.name != "manifest.json"
    }


def part(result: EtlResult, name: str) -> pd.DataFrame:
    return pq.read_table(result.folder / name / "part-0.parquet").to_pandas()


def decoded(result: EtlResult, name: str, column: str) -> list[Any]:
    """Decode a column with pandas, from the file of its vocabulary."""
    vocabulary = pq.read_table(result.folder / "vocabulary" / f"{column}.parquet").to_pandas()
    values = dict(zip(vocabulary["code"], vocabulary["value"], strict=True))
    cells = part(result, name)[column]
    return [
        [values.get(c) for c in cell] if isinstance(cell, np.ndarray) else values.get(cell)
        for cell in cells
    ]
