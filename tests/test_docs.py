"""What the pages in docs/ show is right: recipes parse, commands exist, links lead somewhere."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest
import yaml
from reference_pages import __main__ as reference_pages
from reference_pages import command_line

from workflows import cli
from workflows import recipe as recipes
from workflows.cli.call import command
from workflows.recipe.text import Loader

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(p for p in DOCS.rglob("*.md") if p.relative_to(DOCS).parts[0] != "reference")
PROSE = [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
#: A recipe that a fragment is laid over.
BASE = """
name: shop
sources: {log: {files: log.csv}}
interactions: log
split: {kind: random}
features:
  user: {role: user, id: true}
  item: {role: item, id: true}
  rating: {role: context, kind: number}
  plays: {role: context, kind: number}
"""


def blocks(page: Path, language: str = "yaml") -> list[str]:
    """Return the code blocks of a page in a language; "" for commands."""
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.S | re.M)
    return [text for name, text in fences if name == language]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_its_recipes_parse(page: Path) -> None:
    for text in blocks(page):
        raw = yaml.load(text, Loader)
        if "name" not in raw:
            base = yaml.load(BASE, Loader)
            features = {**base["features"], **raw.get("features", {})}
            raw = {**base, **raw, "features": features}
        recipes.parse(raw, where=page.name)


def test_its_tables_of_sources_and_times_parse() -> None:
    text = (ROOT / "docs" / "your-data.md").read_text(encoding="utf-8")
    sources = re.findall(r"\| `(\w+: [^`]*)`", text)
    assert len(sources) >= 8
    for line in sources:
        fields = yaml.load(f"{{files: x.csv, {line}}}", Loader)
        raw = {**yaml.load(BASE, Loader), "sources": {"log": fields}}
        recipes.parse(raw, where=line)
    times = re.findall(r"`(\{role: time[^`]*\})`", text)
    assert len(times) == 5
    for line in times:
        raw = yaml.load(BASE, Loader)
        raw["features"]["at"] = yaml.load(line, Loader)
        recipes.parse(raw, where=line)


@pytest.mark.parametrize("page", PROSE, ids=name_of)
def test_its_links_lead_somewhere(page: Path) -> None:
    made = {(DOCS / "reference" / file).resolve() for file in reference_pages.PAGES}
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        path = (page.parent / target).resolve()
        assert "://" in target or path in made or path.exists(), target


@pytest.mark.parametrize("page", PROSE, ids=name_of)
def test_its_commands_are_those_of_the_program(page: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    targets |= VERBS.keys()
    for line in "".join(blocks(page, "")).replace("\\\n", " ").splitlines():
        program = line.partition(" ")[0]
        words = shlex.split(line, comments=True) if program in ("make", "two-tower") else []
        if program == "make":
            assert {word for word in words[1:] if "=" not in word} <= targets, line
        elif program == "two-tower" and words[1] != "--help":
            options = {word.partition("=")[0] for word in words[2:] if word.startswith("-")}
            assert options <= options_of(words[1]), line


VERBS = {verb.__name__.replace("_", "-"): verb for verb in cli.VERBS}


def options_of(verb: str) -> set[str]:
    """Return the options of a verb as they are written on the command line."""
    assert verb in VERBS
    options = command_line.options(command(VERBS[verb])).values()
    return {"--help", *(name for option in options for name in option.name.split())}


def test_a_command_that_does_not_exist_is_found() -> None:
    assert {"--recipe", "--resume", "--warm-start", "--set"} <= options_of("train")
    assert "--resumed" not in options_of("train")
    with pytest.raises(AssertionError):
        options_of("trian")


@pytest.mark.parametrize("page", PROSE, ids=name_of)
def test_its_python_compiles_and_imports_what_exists(page: Path) -> None:
    for text in blocks(page, "python"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.module:
                folder = ROOT.joinpath(*node.module.split("."))
                if (ROOT / node.module.split(".")[0]).is_dir():
                    path = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
                    source = path.read_text(encoding="utf-8")
                    for alias in node.names:
                        assert re.search(rf"\b{alias.name}\b", source), (node.module, alias.name)


def test_the_citation_is_of_this_version() -> None:
    found = re.search(r"^version = (.*)$", (ROOT / "setup.cfg").read_text("utf-8"), re.M)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert found
    assert citation["version"] == found[1]


def test_every_page_is_in_the_navigation() -> None:
    config = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), yaml.BaseLoader)
    listed = set(re.findall(r"[\w/-]+\.md", str(config["nav"])))
    written = {str(page.relative_to(DOCS)) for page in PAGES}
    assert listed == {*written, *(f"reference/{file}" for file in reference_pages.PAGES)}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_files_that_it_names_are_there(page: Path) -> None:
    named = re.findall(r"`((?:models|workflows|tests|docs)/[\w/.-]+)`", page.read_text("utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []
