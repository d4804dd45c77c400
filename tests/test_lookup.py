"""Look-up of raw ids: all ways give the same rows."""

from __future__ import annotations

import pyarrow as pa
import pytest

from workflows.ground import lookup
from workflows.ground.lookup import Lookup


@pytest.mark.parametrize(("prepared", "few"), [(False, 1000), (True, 1000), (True, 3)])
def test_ids_are_found_where_they_stand(prepared, few, monkeypatch):
    monkeypatch.setattr(lookup, "FEW", few)
    ids = pa.array(["b", "", "Ж", "007", "7", "-1"])
    asked = pa.array(["7", "007", "nobody", None, "", "Ж", "7"])
    for table, rows in ((ids, [4, 3, -1, -1, 1, 2, 4]), (ids.slice(0, 0), [-1] * 7)):
        found = Lookup(table)
        if prepared:
            found.prepare()
        assert found.rows(asked).tolist() == rows
        assert found.rows(asked.slice(0, 0)).tolist() == []
