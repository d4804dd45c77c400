"""The generated reference: everything that users can name has a meaning written in the code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import pytest
import typer
from reference_pages import command_line, environment, files, http, python_api, recipe
from reference_pages.__main__ import PAGES, write
from reference_pages.page import Entry, Page, Section

from models.core.fields import Part
from workflows.cli import VERBS
from workflows.recipe.meanings import blocks, meanings
from workflows.recipe.whole import Recipe


@pytest.mark.parametrize("file", PAGES)
def test_everything_on_the_page_has_a_meaning(file):
    found = PAGES[file].page()
    assert sum(len(section.entries) for section in found.sections) >= 9
    assert found.without_meaning == [], (
        "Write the meaning into the docstring, the help or the description in the code."
    )


def test_a_field_without_a_meaning_is_found():
    class Block(Part, frozen=True):
        """A block.

        Attributes:
            told: a field with a meaning.
        """

        told: int
        untold: int = 1

    section = recipe.section_of(Block, "block")
    assert [entry.facts for entry in section.entries] == [
        ("whole number", "required"),
        ("whole number", "`1`"),
    ]
    assert Page("A", "", [section]).without_meaning == ["`block`: untold"]


def test_an_option_and_a_verb_without_a_meaning_are_found():
    def verb(call: object, *, many: bool = False) -> None: ...

    verb.__annotations__["many"] = Annotated[bool, typer.Option("--many")]
    found = Page("A", "", [command_line.section_of(verb)]).without_meaning
    assert found == ["`verb`", "`verb`: --many"]


def test_an_endpoint_and_a_parameter_without_a_meaning_are_found():
    operation = {
        "parameters": [{"name": "k", "in": "query", "schema": {"type": "integer"}}],
        "responses": {"200": {}},
    }
    bodies = {"Body": {"properties": {"users": {"type": "array", "items": {"type": "string"}}}}}
    document = {"paths": {"/new": {"get": operation}}, "components": {"schemas": bodies}}
    assert http.page_of(document).without_meaning == [
        "`GET /new`",
        "`GET /new`: k",
        "`Body`",
        "`Body`: users",
    ]


def test_a_public_function_and_a_method_without_a_meaning_are_found():
    text = '"""A module."""\nclass A:\n    """A class."""\n    def one(self, x): ...\n'
    text += "def _two(): ...\ndef three(x, *, y): ...\n"
    section = python_api.section_of_text("module", text)
    found = Page("A", "", [section]).without_meaning
    assert found == ["`module`: A.one(x)", "`module`: three(x, *, y)"]


def test_all_blocks_fields_and_verbs_are_on_their_pages():
    fields = sum(len(msgspec.structs.fields(block)) for block in blocks(Recipe))
    kinds = sum(block.__struct_config__.tag_field is not None for block in blocks(Recipe))
    assert sum(len(section.entries) for section in recipe.page().sections) == fields + kinds
    assert len(blocks(Recipe)) >= 47
    titles = [section.title for section in command_line.page().sections]
    assert titles[1:] == [f"`{verb.__name__.replace('_', '-')}`" for verb in VERBS]
    shared = command_line.page().sections[0].entries
    assert [entry.name for entry in shared] == ["--recipe", "--run", "--device", "--set", "--json"]


def test_meanings_of_base_classes_are_inherited_and_names_are_those_of_the_recipe():
    keep = next(block for block in blocks(Recipe) if block.__name__ == "Keep")
    assert list(meanings(keep)) == ["column", "is", "value", "stage", "still_seen"]
    assert meanings(keep)["is"] == "the comparison operator, written `is` in a recipe."


def test_all_environment_variables_of_the_source_are_on_the_page():
    assert environment.used() == {*environment.READ, *environment.SET}
    text = 'import os\nA = "SHOP_A"\nos.environ.get(A)\nos.environ["SHOP_B"] = ""\n'
    assert sorted(environment.used_in(text)) == ["SHOP_A", "SHOP_B"]


def test_a_file_that_is_not_described_is_not_on_the_page():
    """test_export.py and test_offers.py compare the page with the files of an export."""
    assert {"query_tower_raw", "histories.parquet", "manifest.json"} <= files.documented("export")
    assert "new.parquet" not in files.documented("export")


def test_the_pages_are_markdown_tables(tmp_path: Path):
    section = Section("A", "[x] * <y> `<z>`", [Entry("a|b", "one\ntwo")], anchor="a")
    assert Page("T", "", [section]).markdown == (
        "# T\n\n## A {#a}\n\n\\[x\\] \\* \\<y> `<z>`\n\n"
        "| name | meaning |\n| --- | --- |\n| `a\\|b` | One two |\n"
    )
    write(tmp_path)
    text = (tmp_path / "recipe.md").read_text(encoding="utf-8")
    assert "| `temperature` | number above 0 | `1.0` |" in text
    assert "[leave_last](#split-leave_last)" in text
    assert "## `split` of kind `leave_last` {#split-leave_last}" in text
