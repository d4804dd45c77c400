"""A stage owns the names of its files, and one module those of its columns: no literal twice."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.core import column_names as columns_of_models
from workflows.ground import column_names as columns_of_verbs

WORKFLOWS = Path(columns_of_verbs.__file__).parents[1]
#: These run where this package cannot be imported.
ALONE = {"towers/selfcheck.py", "triton/backend.py"}


def texts(tree: ast.AST) -> Iterator[str]:
    """Yield the text constants, and the constant parts of f-strings, that are no docstrings."""
    docstrings = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and id(node) not in docstrings:
            yield node.value


def file_names(tree: ast.AST) -> set[str]:
    """Return the names of files that the classes `…Files` of a module give."""
    classes = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and node.name.endswith("Files")
    ]
    return {text for node in classes for text in texts(node) if "." in text[1:] or text[:1] == "_"}


MODULES = {
    str(path.relative_to(WORKFLOWS)): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(WORKFLOWS.rglob("*.py"))
}
COLUMNS = {
    value
    for module in (columns_of_models, columns_of_verbs)
    for name, value in vars(module).items()
    if name.isupper() and isinstance(value, str)
}


def strays(names: set[str], *, owners: str) -> dict[str, list[str]]:
    """Return module → the names that stand in it and are another's."""
    others = {n: t for n, t in MODULES.items() if n not in ALONE and not n.startswith(owners)}
    found = {name: sorted(names & set(texts(tree))) for name, tree in others.items()}
    return {name: strays for name, strays in found.items() if strays}


def test_files_are_named_by_the_reader_of_their_stage_alone() -> None:
    readers = {name: tree for name, tree in MODULES.items() if name.startswith("stages/")}
    names = {text for tree in readers.values() for text in file_names(tree)}
    assert {"raw.parquet", "_features.parquet", "histories.parquet", "index.faiss"} <= names
    assert strays(names, owners="stages/") == {}
    for name, tree in readers.items():
        found = [text for text in texts(tree) if text in names]
        assert sorted(found) == sorted(set(found)), name


def test_columns_are_named_in_one_module_alone() -> None:
    assert {"user_row", "train_count", "embedding", "answered_by"} <= COLUMNS
    assert strays(COLUMNS, owners="ground/column_names.py") == {}


@pytest.mark.parametrize("name", sorted(ALONE))
def test_what_runs_alone_is_there(name: str) -> None:
    assert name in MODULES
