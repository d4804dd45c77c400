"""A signed file whose content is not that of its stage is refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from workflows.ground.errors import ArtifactError, StaleInput
from workflows.ground.stage_content import embeddings_of, reading, require

PATH = Path("run/export/item_embeddings.parquet")
REFUSED = r"item_embeddings\.parquet is not what `two-tower export` writes \({}\)\. Run `two-tower"


def table(values: object, width: int = 2) -> pa.Table:
    return pa.table({"embedding": pa.FixedSizeListArray.from_arrays(values, width)})


def test_embeddings_are_returned_row_by_row() -> None:
    found = embeddings_of(table(pa.array([1, 2, 3, 4], pa.float32())), PATH, "export")
    assert found.tolist() == [[1, 2], [3, 4]]
    assert embeddings_of(table(pa.array([], pa.float32())), PATH, "export").shape == (0, 2)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (table(pa.array([1, np.nan], pa.float32())), "embeddings hold NaN or infinity"),
        (table(pa.array([1, -np.inf], pa.float32())), "embeddings hold NaN or infinity"),
        (pa.table({"embedding": ["text"]}), "AttributeError: .*"),
        (pa.table({"other": ["text"]}), "KeyError: .*"),
        (pa.table({"embedding": pa.array([[1.0, 2.0], None], pa.list_(pa.float32(), 2))}), ".*"),
    ],
)
def test_other_embeddings_are_refused(content: pa.Table, why: str) -> None:
    with pytest.raises(ArtifactError, match=REFUSED.format(why)):
        embeddings_of(content, PATH, "export")


def test_any_error_of_reading_names_the_file_and_our_own_are_kept() -> None:
    with (
        pytest.raises(ArtifactError, match=REFUSED.format("ZeroDivisionError: .*")),
        reading(PATH, "export"),
    ):
        _ = 1 // 0
    with pytest.raises(StaleInput, match="old"), reading(PATH, "export"):
        raise StaleInput("old")
    with pytest.raises(ArtifactError, match=REFUSED.format("two of three")):
        require(False, PATH, "export", "two of three")
    require(True, PATH, "export", "nothing")
