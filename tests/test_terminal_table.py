"""TerminalTable: no figure is cut at any width."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from workflows.ground.terminal_table import Column, TerminalTable

NAMES = ["two-tower", "a-model-with-a-rather-long-name of many words\n  alpha 0.25, beta 128"]
SHEET = TerminalTable(
    "model",
    NAMES,
    [
        Column("recall@10", ["0.1234\n[0.101, 0.151]", "-"]),
        Column("difference", ["", "+0.0817\n[+0.053, +0.107]"]),
        *(Column(f"ndcg\n@{k}", [f"0.{k}71", f"0.{k}92"]) for k in range(10, 22)),
    ],
)


def shown(sheet: TerminalTable, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(sheet)
    return console.export_text().splitlines()


@pytest.mark.parametrize("width", [37, 40, 60, 80, 120, 160, 200])
def test_every_figure_is_whole_at_every_width(width):
    lines = shown(SHEET, width)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "…" not in text
    for column in SHEET.columns:
        for cell in column.cells:
            for line in cell.split("\n"):
                assert text.count(line) >= 1
    for k in range(10, 22):
        assert text.count(f"0.{k}71") == text.count(f"0.{k}92") == 1
    assert text.count("two-tower") == text.count("alpha")  # the names stand in every table


def test_one_table_where_there_is_room_and_more_where_there_is_not():
    assert [sum("two-tower" in line for line in shown(SHEET, w)) for w in (200, 80)] == [1, 3]


def test_a_row_keeps_its_figures():
    sheet = TerminalTable(
        "m", ["one", "two"], [Column(f"c{i}", [f"1.{i}", f"2.{i}"]) for i in range(30)]
    )
    for width in (30, 70):
        found = {name: [] for name in ("one", "two")}
        for line in shown(sheet, width):
            words = line.split()
            if words and words[0] in found:
                found[words[0]] += words[1:]
        assert found == {
            "one": [f"1.{i}" for i in range(30)],
            "two": [f"2.{i}" for i in range(30)],
        }


def test_a_title_stands_above_the_first_table_only():
    sheet = TerminalTable(
        "m", ["one"], [Column(f"c{i}", ["0.123"]) for i in range(20)], title="all: [0, 3]"
    )
    text = "\n".join(shown(sheet, 60))
    assert text.count("all: [0, 3]") == 1
    assert text.index("all: [0, 3]") < text.index("0.123")


def test_without_columns_the_names_stand_alone():
    assert [line.strip() for line in shown(TerminalTable("m", ["one"], []), 80)] == []
