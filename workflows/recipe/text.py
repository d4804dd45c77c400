"""Read a recipe's YAML 1.2 text as plain data, and find the lines of its fields."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Hashable, Sequence
from typing import Any

import yaml

#: Bounds on a recipe file, far above recipes with thousands of columns. PyYAML reads 100 kB/s.
LONGEST, _NODES, _DEPTH = 1_000_000, 200_000, 100
_INTEGERS = range(-(2**63), 2**63)
_SURROGATE = re.compile("[\ud800-\udfff]")


class Loader(yaml.SafeLoader):
    """A PyYAML loader that reads scalars by the rules of YAML 1.2.

    PyYAML alone reads 1e-3 as text, `on` and `no` as booleans, 12:30 as 750, 010 as 8 and
    2020-01-01 as a date.

    A key of a mapping is text, whatever it looks like (`on: 2`, `1: item_id`), and may occur
    once.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own way
        first: [(tag, regexp) for tag, regexp in resolvers if tag.endswith((":null", ":merge"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def get_single_node(self) -> yaml.Node | None:
        """Return the root node of a YAML document; refuse documents that aliases make too large."""
        node = super().get_single_node()
        if node is not None:
            _refuse_large(node)
        return node

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._depth = getattr(self, "_depth", 0) + 1
        if self._depth > _DEPTH:
            raise _refused(f"nested more than {_DEPTH} deep", self.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        value = super().construct_scalar(node)
        if isinstance(value, str) and _SURROGATE.search(value):
            raise _refused("half of a surrogate pair is no character", node.start_mark)
        return value

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        digits = self.construct_scalar(node)
        if len(digits) > 20 or int(digits) not in _INTEGERS:
            problem = "an integer beyond 64 bits; put it in quotes if it is an id"
            raise _refused(problem, node.start_mark)
        return int(digits)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _refused("a key must be text", key.start_mark)
            if _SURROGATE.search(key.value):
                raise _refused("half of a surrogate pair is no character", key.start_mark)
            if key.value in lines:
                problem = f"{key.value!r} occurs a second time, after line {lines[key.value]}"
                raise _refused(problem, key.start_mark)
            lines[key.value] = key.start_mark.line + 1
        self.flatten_mapping(node)
        return {k.value: self.construct_object(v, deep=deep) for k, v in node.value}


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?(0|[1-9]\d*)$"), list("-+0123456789")
)
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?((\d+\.\d*|\.\d+)([eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.(inf|Inf|nan|NaN))$"),
    list("-+.0123456789"),
)


Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_yaml_int)


def _refused(problem: str, mark: yaml.Mark) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, mark)


def _refuse_large(root: yaml.Node) -> None:
    """Refuse a document with too many nodes once its aliases are expanded.

    Aliases of aliases multiply: nine levels of nine aliases are 9^9 nodes.

    Raises:
        ConstructorError: there are too many nodes, or a node contains itself.
    """
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()
    stack = [(root, False)]
    while stack:
        node, is_counted = stack.pop()
        children = _children(node)
        if is_counted:
            open_nodes.discard(id(node))
            sizes[id(node)] = 1 + sum(sizes[id(child)] for child in children)
            if sizes[id(node)] > _NODES:
                problem = f"more than {_NODES:,} values, aliases counted each time"
                raise _refused(problem, node.start_mark)
        elif id(node) in open_nodes:
            raise _refused("a value contains itself, by an anchor", node.start_mark)
        elif id(node) not in sizes:
            open_nodes.add(id(node))
            stack.append((node, True))
            stack += [(child, False) for child in children]


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


#: The remedy for a text that YAML reads as another type.
_QUOTE = (
    "A text that begins with one of * & ! | > % @ ` ? - , or # or that has a colon in it means "
    'something else to YAML: put it in quotes, such as "*.csv" or "|"'
)
#: Part of an error message of PyYAML → the remedy.
_REMEDIES = (
    ("'\\t' that cannot start", "Indent with blanks, not with tabs"),
    (
        "unknown escape character",
        "Within double quotes a backslash begins a code: take single ones",
    ),
    ("alias", _QUOTE),
    ("anchor", _QUOTE),
    ("cannot start any token", _QUOTE),
    ("mapping values are not allowed", _QUOTE),
    ("expected the node content", _QUOTE),
    ("constructor for the tag", _QUOTE),
    ("are not allowed here", _QUOTE),
    ("did not find expected", _QUOTE),
    ("but found", _QUOTE),
)


def yaml_problem(error: Exception, text: str) -> str:
    """Say what is wrong with a text that is not YAML, in which line, and how to correct it."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return " ".join(str(error).split())
    number = error.problem_mark.line
    lines = text.split("\n")
    line = lines[number].strip() if number < len(lines) else ""
    said = " ".join(part for part in (error.context, error.problem) if part)
    is_told = isinstance(error, yaml.constructor.ConstructorError) and "for the tag" not in said
    remedies = (f" {remedy}." for part, remedy in _REMEDIES if part in said and not is_told)
    return f"line {number + 1}, {line[:80]!r}: {said}.{next(remedies, '')}"


def line_of(text: str, path: Sequence[str]) -> int | None:
    """Return the line number, from 1, of a field in a YAML text, or of its nearest outer block."""
    node = yaml.compose(text, Loader) if text else None
    line = None
    for step in path:
        if isinstance(node, yaml.MappingNode):
            pairs = {key.value: (key, value) for key, value in node.value}
            if step not in pairs:
                break
            line, node = pairs[step][0].start_mark.line + 1, pairs[step][1]
        elif isinstance(node, yaml.SequenceNode) and step.isdigit() and int(step) < len(node.value):
            node = node.value[int(step)]
            line = node.start_mark.line + 1
        else:
            break
    return line


def nearest_name(name: str, known: Sequence[str]) -> str:
    """Return a question in brackets that proposes a similar known name; empty if there is none."""
    for one in known:
        if one != name and unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", name):
            return f" (there is {one!a}, the same letters composed in another way)"
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def nearest(name: str, known: Sequence[str]) -> str:
    """Return a question that proposes a similar known name; empty if none is similar."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {close[0]!r}? " if close else ""
