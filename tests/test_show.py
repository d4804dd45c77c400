"""What the command line prints: text of the data as it stands there, and no terminal command."""

from __future__ import annotations

import io
import logging

import pytest

from workflows.cli import _Printable
from workflows.cli.call import Call
from workflows.cli.show import print_error, printable, show, show_rows

TITLES = [
    "Amélie [blue]",
    "[import] Kid A",
    "Blade [/director's cut]",
    "[link=https://x.y]here[/link]",
    ":smile: [bold]",
    "\\[b]",
]


@pytest.mark.parametrize("title", TITLES)
def test_brackets_of_titles_names_and_paths_are_no_markup(capsys, title):
    show_rows([{f"[b] {title}": title}])
    assert capsys.readouterr().out.count(f" {title} ") == 2
    show(None, Call(), {"folder [i]": f"runs/{title}/etl"})
    printed = capsys.readouterr().out
    assert f"runs/{title}/etl" in printed
    assert "folder [i]" in printed


def test_each_file_of_a_result_has_a_line_of_its_own(capsys):
    show(None, Call(), {"files": "a.parquet\nb\x1b.json"})
    lines = capsys.readouterr().out.splitlines()
    assert ["a.parquet" in line for line in lines] != ["b\\x1b.json" in line for line in lines]
    assert any("b\\x1b.json" in line for line in lines)


def test_an_empty_list_is_a_sentence(capsys):
    show_rows([])
    assert capsys.readouterr().out == "No rows match.\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("red \x1b[31m", r"red \x1b[31m"),
        ("bell \x07 and \x9b2J", r"bell \x07 and \x9b2J"),
        ("two\r\nlines\tand", r"two\r\nlines\tand"),
        ("turned \u202eback", r"turned \u202eback"),
        ("half \udcff", r"half \udcff"),
        ("👩\u200d🚀 می\u200cخواهم", "👩\u200d🚀 می\u200cخواهم"),  # joiners belong to words
        ("Größe [alt] 類别", "Größe [alt] 類别"),
    ],
)
def test_control_characters_are_escaped(capsys, text, said):
    assert printable(text) == said
    show_rows([{"title": text}])
    printed = capsys.readouterr().out
    assert said.split()[0] in printed
    assert not set("\x1b\x07\x9b\r\t\u202e\udcff") & set(printed)
    print_error(f"one\n{text}")
    assert capsys.readouterr().err.startswith("two-tower: one\n")


def test_the_log_is_escaped_too():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Printable())
    handler.handle(logging.LogRecord("a", 20, "", 0, "%s\nread", ("a\x1b[31m.csv",), None))
    assert stream.getvalue() == "a\\x1b[31m.csv\nread\n"
