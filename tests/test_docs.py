"""What the pages in docs/ show is right: recipes parse, links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from workflows import recipe as recipes
from workflows.recipe.text import Loader

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
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


def blocks(page: Path) -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.S)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
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


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.stem)
def test_its_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_files_that_it_names_are_there(page: Path) -> None:
    named = re.findall(r"`((?:models|workflows|tests|docs)/[\w/.-]+)`", page.read_text("utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []
