"""The page of the Python API: what notebooks and programs may import, read from the source text."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from reference_pages.page import Entry, Page, Section
from workflows.recipe.meanings import described

ROOT = Path(__file__).parents[2]
INTRODUCTION = """
A verb is a function `verb(recipe, store, device, ...)` that returns a small result object. The
module `workflows.cli` has `Call`, which finds these arguments as the command line does:

```python
from workflows.cli import Call

call = Call(recipe_name="movielens-100k", run="example", verb="etl")
device = call.device()  # before TensorFlow is imported
recipe, store, data = call.open(device)

from workflows.etl import etl
from workflows.train import train

etl(recipe, store, device, data=data)
print(train(recipe, store, device).first.best.metrics)
```

The notebooks in `notebooks/` go on from here. Names that begin with `_`, and modules that are not
on this page, can change without notice.
""".strip()
#: Modules of the API, in the order of the page. Their source is read, and they are not imported.
MODULES = (
    "workflows.cli.call",
    "workflows.recipe.finding",
    "workflows.recipe.reading",
    "workflows.fetch",
    "workflows.etl",
    "workflows.train",
    "workflows.tune",
    "workflows.evaluate",
    "workflows.report",
    "workflows.export",
    "workflows.index",
    "workflows.recommend",
    "workflows.recommend.request",
    "workflows.load",
    "workflows.triton",
    "workflows.serve",
    "workflows.doctor",
    "workflows.ground.device",
    "workflows.ground.errors",
    "workflows.stages.store",
    "workflows.stages.etl",
    "workflows.stages.train_files",
    "workflows.stages.train",
    "workflows.stages.evaluate",
    "workflows.stages.export",
    "workflows.stages.index",
    "workflows.stages.recommender",
    "models.core.retriever",
    "models.core.exact",
    "models.core.ann",
    "models.core.evaluation_set",
    "models.core.metrics",
    "models.core.intervals",
    "models.baselines.registry",
    "models.training.two_tower",
    "models.training.callbacks",
)

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def page() -> Page:
    """Return the page of the Python API."""
    return Page("Python API", INTRODUCTION, [*map(section_of, MODULES)])


def section_of(module: str) -> Section:
    """Return the section of a module: its public functions, classes and their methods."""
    path = ROOT.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return section_of_text(module, path.read_text(encoding="utf-8"))


def section_of_text(module: str, text: str) -> Section:
    """Return the section of a module, given its source text."""
    tree = ast.parse(text)
    entries = [
        Entry(_signature(node, prefix), _meaning(node)) for node, prefix in _public(tree.body, "")
    ]
    told = _prose(ast.get_docstring(tree) or "")
    return Section(f"`{module}`", told, entries, ("function or class", "meaning"))


def _public(body: list[ast.stmt], prefix: str) -> Iterator[tuple[Definition, str]]:
    """Yield the public functions and classes of a body, each class before its methods."""
    for node in body:
        if not isinstance(node, Definition) or node.name.startswith("_"):
            continue
        yield node, prefix
        if isinstance(node, ast.ClassDef):
            yield from _public(node.body, f"{node.name}.")


def _signature(node: Definition, prefix: str) -> str:
    """Return the name of a function with its parameters, or the name of a class or property."""
    decorators = {getattr(one, "id", getattr(one, "attr", "")) for one in node.decorator_list}
    if isinstance(node, ast.ClassDef) or decorators & {"property", "cached_property"}:
        return prefix + node.name
    arguments = node.args
    plain = [one.arg for one in arguments.args if one.arg not in ("self", "cls")]
    named = [one.arg for one in arguments.kwonlyargs]
    return f"{prefix}{node.name}({', '.join([*plain, *(['*'] if named else []), *named])})"


def _meaning(node: Definition) -> str:
    """Return the docstring of a function or class up to its first section, then its arguments."""
    text = ast.get_docstring(node) or ""
    told = described(text)
    return "<br>".join([_prose(text), *(f"`{name}`: {meaning}" for name, meaning in told.items())])


def _prose(text: str) -> str:
    return re.split(r"\n\n(?:Args|Attributes|Returns|Raises|Yields):", text)[0].strip()
