"""Value warnings: one warning or refusal for each oddity of a column."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stages import decoded, run
from world import World

from workflows import recipe as recipes
from workflows.etl.check import value_warnings
from workflows.etl.check.column_texts import find_columns, find_empty_columns
from workflows.etl.read import sources
from workflows.ground.errors import DataError
from workflows.recipe import Recipe

RAW: dict[str, Any] = {
    "name": "t",
    "sources": {"log": {"files": "log*"}},
    "interactions": "log",
    "split": {"kind": "random"},
    "features": {
        "user": {"role": "user", "id": True},
        "item": {"role": "item", "id": True},
        "city": {"role": "user"},
        "ts": {"role": "time"},
    },
}


def recipe(**changes: Any) -> Recipe:
    return recipes.parse({**RAW, **changes}, where="test")


def write(folder: Path, name: str = "log.csv", **columns: list[Any]) -> None:
    n = max(map(len, columns.values()))
    rows = {"user": [f"u{k % 7}" for k in range(n)], "item": [f"i{k % 9}" for k in range(n)]}
    table = pa.table({**rows, **columns})
    if name.endswith(".parquet"):
        pq.write_table(table, folder / name)
        return
    lines = [",".join(map(str, row.values())) for row in table.to_pylist()]
    text = "\n".join([",".join(table.column_names), *lines]) + "\n"
    (folder / name).write_text(text, encoding="utf-8")


def read(
    folder: Path, caplog: pytest.LogCaptureFixture, **changes: Any
) -> tuple[pa.Table, list[str]]:
    """Return the table of the log, and what was warned of."""
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        raw = sources.read(recipe(**changes), folder)
        found = find_columns(recipe(**changes), raw)
        value_warnings.check_texts(recipe(**changes), raw, found, find_empty_columns(raw))
    return raw.tables["log"], caplog.messages


# ── words for nothing ───────────────────────────────────────────────────────────────────


def test_words_for_nothing_are_told_once_a_column(tmp_path, caplog):
    users = ["\\N" if k % 5 == 0 else f"u{k}" for k in range(100)]
    cities = ["NULL" if k % 3 == 0 else "\\N" if k % 3 == 1 else "Oslo" for k in range(100)]
    write(tmp_path, user=users, city=cities)
    _, told = read(tmp_path, caplog)
    assert len(told) == 2
    assert told[0].startswith("column 'user' of log has '\\N' (20 cells), so that these rows share")
    assert told[0].endswith(r"such as sources.log.nulls=['\N'].")
    assert "column 'city' of log has 'NULL' (34 cells), '\\N' (33 cells), which count" in told[1]
    nulls = {"log": {"files": "log*", "nulls": ["\\N", "NULL"]}}
    table, told = read(tmp_path, caplog, sources=nulls)
    assert told == []
    assert (table["user"].null_count, table["city"].null_count) == (20, 67)


def test_a_rare_word_in_a_category_is_left_alone(tmp_path, caplog):
    write(tmp_path, city=["None", *["Oslo"] * 400])
    assert read(tmp_path, caplog)[1] == []


# ── ids in scientific notation ──────────────────────────────────────────────────────────


def test_ids_of_spreadsheets_are_refused(tmp_path, caplog):
    write(tmp_path, item=["9780140000020", "9.78014E+12", "i", "9.78014E+12"])
    with pytest.raises(DataError) as caught:
        read(tmp_path, caplog)
    said = str(caught.value)
    assert f"{tmp_path}/log.csv, row 2, column 'item': '9.78014E+12' is an id in scient" in said
    assert "; 2 cells of the column have such ids." in said


def test_categories_of_spreadsheets_are_told(tmp_path, caplog):
    write(tmp_path, city=["1.5e+20", "2"])
    assert "column 'city' of log has numbers in scientific notation" in read(tmp_path, caplog)[1][0]


def test_ids_that_are_formulas_are_refused(tmp_path, caplog):
    write(tmp_path, item=["i", '="0017"', '="0018"', "="])
    with pytest.raises(
        DataError, match=r"log\.csv, row 2, column 'item': '=\"0017\"' is an id as a formula of a"
    ) as caught:
        read(tmp_path, caplog)
    assert "; 2 cells of the column have such ids. The equals sign" in str(caught.value)


def test_categories_that_are_formulas_are_told(tmp_path, caplog):
    write(tmp_path, city=['="Oslo"', "Rome"])
    table, told = read(tmp_path, caplog)
    assert "column 'city' of log has text formulas of a spreadsheet, such as" in told[0]
    assert table["city"].to_pylist() == ['="Oslo"', "Rome"]


# ── two spellings ───────────────────────────────────────────────────────────────────────


def test_one_frame_in_two_formats_has_one_spelling(tmp_path, caplog):
    write(tmp_path, "log-1.parquet", user=[17850, 17851], city=[True, False])
    write(tmp_path, "log-2.csv", user=["17850.0", "17852.0"], city=["True", "False"])
    table, told = read(tmp_path, caplog)
    assert table["user"].to_pylist() == ["17850", "17851", "17850", "17852"]
    assert table["city"].to_pylist() == ["true", "false", "true", "false"]
    assert told == []


def test_ids_with_a_gap_meet_those_of_a_joined_table(tmp_path, caplog):
    write(tmp_path, user=["17850.0", "", "17851.0"])
    (tmp_path / "customers.csv").write_text("user,city\n17850,Rome\n17851,Oslo\n")
    changes = {
        "sources": {"log": {"files": "log*"}, "customers": {"files": "customers.csv"}},
        "join": [{"table": "customers", "key": "user"}],
    }
    table, told = read(tmp_path, caplog, **changes)
    assert table["user"].to_pylist() == ["17850", None, "17851"]
    assert told == []


def test_values_that_stand_in_one_file_in_both_spellings_stay_two(tmp_path, caplog):
    write(tmp_path, city=["1.0", "1", "1.1", "1.0", "2.0"])
    table, told = read(tmp_path, caplog)
    assert table["city"].to_pylist() == ["1.0", "1", "1.1", "1.0", "2.0"]
    assert len(told) == 1
    assert "column 'city' of log has 1 value in two spellings, such as '1.0' and '1'" in told[0]
    assert "(2 cells have the first)" in told[0]


def test_a_float_that_is_too_long_is_refused_in_text_too(tmp_path, caplog):
    write(tmp_path, item=["5.0", f"{2**53}.0"])
    with pytest.raises(DataError, match=r"column 'item': '9007199254740992\.0' is a float, and fl"):
        read(tmp_path, caplog)


# ── weights ─────────────────────────────────────────────────────────────────────────────


def weighed(world: World, weigh: Callable[[int], float]) -> World:
    for n, row in enumerate(world.log):
        row["plays"] = weigh(n)
    return world.write()


WEIGHT = "features.plays={role: weight, kind: number}"


def test_weights_that_are_all_0_are_refused(world: World) -> None:
    with pytest.raises(
        DataError,
        match=r"^All \d+ weights of train, column 'plays', are 0, so that nothing can be learnt\.",
    ):
        run(weighed(world, lambda n: 0), WEIGHT)


@pytest.mark.parametrize(("highest", "told"), [(200, False), (201, True)])
def test_a_heavy_tail_of_weights_is_told_with_the_cure(
    world: World, caplog: pytest.LogCaptureFixture, highest: float, told: bool
) -> None:
    """The median of those above 0 is 2; the highest stands in the first row, which trains."""
    world.log[0]["rating"] = 5
    run(weighed(world, lambda n: (highest if n == 0 else 2) * (n % 3 == 0)), WEIGHT)
    found = [message for message in caplog.messages if "weight" in message]
    assert len(found) == told
    if told:
        assert found[0].startswith(
            "column 'plays', the weight of rows: its highest value is 201, and the median of those "
            "above 0 is 2, so that a few rows decide what is learnt."
        )
        assert "{kind: log1p, of: plays, to: mild_weight}" in found[0]


# ── blanks ──────────────────────────────────────────────────────────────────────────────


def test_blanks_around_ids_and_categories_are_told_and_kept(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    for n, row in enumerate(world.log):
        row["user_id"] = row["user_id"] and (f" {row['user_id']}" if n % 2 else row["user_id"])
    world.people = [{**row, "city": f"{row['city']}\t"} for row in world.people]
    world.write()
    result = run(world)
    found = [message for message in caplog.messages if "blanks around them" in message]
    assert len(found) == 2
    assert found[0].startswith(
        "source 'log' (log.csv), column 'user_id': 9 of 18 different values have blanks around "
        "them, such as "
    )
    assert "and 9 of them occur without blanks, too." in found[0]
    assert "source 'people' (people.csv), column 'city'" in found[1]
    users = {user for user in decoded(result, "train", "user_id") if user}
    assert {user for user in users if user.startswith(" ")}
    assert {user for user in users if not user.startswith(" ")}
