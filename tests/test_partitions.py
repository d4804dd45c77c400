from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.core.partitions import ParquetPartitions, PartitionInMemory
from models.core.retriever import Ragged
from workflows.ground.errors import ArtifactError
from workflows.stages.etl import EtlFiles

#: Four part files; the second one has no rows, and some lists are empty.
LISTS = [[[3, 1], []], [], [[7]], [[2, 2, 9], [], [5]]]
CODES = [[10, 11], [], [12], [13, 14, 15]]


@pytest.fixture
def files(tmp_path) -> EtlFiles:
    found = EtlFiles(tmp_path)
    found.table("train").mkdir()
    for number, (lists, codes) in enumerate(zip(LISTS, CODES, strict=True)):
        table = pa.table(
            {
                "a.code": pa.array(codes, pa.int32()),
                "time": pa.array([7 * code for code in codes], pa.int64()),
                "genres": pa.array(lists, pa.list_(pa.int32())),
                "other": pa.array(["text"] * len(codes)),
            }
        )
        pq.write_table(table, found.part("train", number))
    return found


def reader(files: EtlFiles, *names: str) -> ParquetPartitions:
    return ParquetPartitions(files.partitions("train"), names or ("a.code", "time", "genres"))


def test_a_table_is_one_partition_where_no_file_says_otherwise(files):
    assert files.partitions("train") == [[files.part("train", n) for n in range(4)]]
    rows = reader(files)
    assert rows.n_rows.tolist() == [6]
    columns = rows.read([0])
    assert columns["a.code"].tolist() == [10, 11, 12, 13, 14, 15]
    assert columns["time"].tolist() == [70, 77, 84, 91, 98, 105]
    assert columns["genres"].values.tolist() == [3, 1, 7, 2, 2, 9, 5]
    assert columns["genres"].offsets.tolist() == [0, 2, 2, 3, 6, 6, 7]


def test_partitions_are_runs_of_part_files_and_read_in_any_order(files):
    files.partition_sizes("train").write_text("[2, 1, 1]")
    rows = reader(files, "a.code", "genres")
    assert rows.n_rows.tolist() == [2, 1, 3]
    columns = rows.read([2, 0])
    assert list(columns) == ["a.code", "genres"]
    assert columns["a.code"].tolist() == [13, 14, 15, 10, 11]
    assert [columns["genres"][i].tolist() for i in range(5)] == [[2, 2, 9], [], [5], [3, 1], []]
    assert columns["a.code"].dtype == np.int32


@pytest.mark.parametrize("numbers", [[0], [1], [2], [1, 0, 2]])
def test_the_memory_of_partitions_is_known_before_they_are_read(files, numbers):
    files.partition_sizes("train").write_text("[2, 1, 1]")
    rows = reader(files)
    columns = rows.read(numbers)
    taken = int(PartitionInMemory(columns).n_bytes[0])
    n_empty = int((columns["genres"].lengths == 0).sum())  # they count as if they had a value
    assert int(rows.n_bytes[numbers].sum()) == taken - 8 + 4 * n_empty


def test_a_column_without_rows_keeps_its_type(files):
    for number in (2, 3, 0):
        files.part("train", number).unlink()
    columns = reader(files).read([0])
    assert columns["time"].dtype == np.int64
    assert isinstance(columns["genres"], Ragged)
    assert len(columns["genres"]) == len(columns["a.code"]) == 0


@pytest.mark.parametrize("text", ["[2, 1]", "[]", "[2, 2, 1]", "[5, -1]", "{}", '["2", "2"]'])
def test_partitions_of_other_files_are_refused(files, text):
    files.partition_sizes("train").write_text(text)
    with pytest.raises(ArtifactError, match=r"partitions\.json is not what `two-tower etl` writes"):
        files.partitions("train")


def test_rows_in_memory_are_one_partition():
    columns = {"row": np.arange(5), "pair": Ragged(np.arange(10), np.arange(6) * 2)}
    rows = PartitionInMemory(columns)
    assert rows.n_rows.tolist() == [5]
    assert rows.n_bytes.tolist() == [8 * (5 + 10 + 6)]
    assert rows.read([0]) is columns
