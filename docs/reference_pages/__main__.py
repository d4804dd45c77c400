"""Writes all pages of the reference to docs/reference."""

from __future__ import annotations

from pathlib import Path

from reference_pages import command_line, environment, files, http, metrics, python_api, recipe

PAGES = (recipe, command_line, http, files, metrics, environment, python_api)


def write(folder: Path) -> None:
    """Write the pages of the reference to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for module in PAGES:
        page = module.page()
        (folder / page.file).write_text(page.markdown, encoding="utf-8")


if __name__ == "__main__":
    write(Path(__file__).parents[1] / "reference")
