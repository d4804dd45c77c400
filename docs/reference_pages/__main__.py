"""Writes all pages of the reference to docs/reference."""

from __future__ import annotations

from pathlib import Path

from reference_pages import command_line, environment, files, http, metrics, python_api, recipe

#: File in docs/reference → the module that makes it.
PAGES = {
    "recipe.md": recipe,
    "command-line.md": command_line,
    "http.md": http,
    "files.md": files,
    "metrics.md": metrics,
    "environment.md": environment,
    "python-api.md": python_api,
}


def write(folder: Path) -> None:
    """Write the pages of the reference to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, module in PAGES.items():
        (folder / file).write_text(module.page().markdown, encoding="utf-8")


if __name__ == "__main__":
    write(Path(__file__).parents[1] / "reference")
