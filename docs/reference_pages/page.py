"""A page of the reference: sections of entries, each with a name and a meaning, as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A field, option, file, metric or function that the reference describes.

    Attributes:
        name: the name as users write it.
        meaning: what it means, in the code's own words; empty where the code says nothing.
        facts: further cells of the table, such as type and default, one for each further column.
    """

    name: str
    meaning: str
    facts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Section:
    """A part of a page: a heading, a text, and a table of entries.

    Attributes:
        title: the heading, in Markdown.
        meaning: the text under the heading; empty where the code says nothing.
        entries: the rows of the table.
        columns: headings of the table's columns; the first is for names, the last for meanings.
        anchor: the name by which links name the section; empty for none.
    """

    title: str
    meaning: str
    entries: Sequence[Entry] = ()
    columns: tuple[str, ...] = ("name", "meaning")
    anchor: str = ""


@dataclass(frozen=True)
class Page:
    """A page of the reference.

    Attributes:
        title: the heading of the page.
        introduction: the text under the heading.
        sections: the parts of the page.
    """

    title: str
    introduction: str
    sections: Sequence[Section]

    @property
    def markdown(self) -> str:
        """The text of the page."""
        parts = [f"# {self.title}", self.introduction]
        for section in self.sections:
            anchor = f" {{#{section.anchor}}}" if section.anchor else ""
            parts += [f"## {section.title}{anchor}", _prose(section.meaning)]
            if section.entries:
                parts.append(_table(section))
        return "\n\n".join(part for part in parts if part) + "\n"

    @property
    def without_meaning(self) -> list[str]:
        """Names of the sections and entries for which the code has no meaning written."""
        found = []
        for section in self.sections:
            found += [section.title] * (not section.meaning.strip())
            found += [f"{section.title}: {e.name}" for e in section.entries if not e.meaning]
        return found


def _table(section: Section) -> str:
    rows = [section.columns, ["---"] * len(section.columns)]
    rows += [[f"`{e.name}`", *e.facts, _prose(_capital(e.meaning))] for e in section.entries]
    return "\n".join("| " + " | ".join(map(_cell, row)) + " |" for row in rows)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _prose(text: str) -> str:
    """Return a text of a docstring as Markdown, in which `*` and `<` outside of code are plain."""
    parts = re.split(r"(`[^`]*`)", text)
    escaped = [re.sub(r"([*\[\]]|<(?!br>))", r"\\\1", part) for part in parts[::2]]
    parts[::2] = escaped
    return "".join(parts)
