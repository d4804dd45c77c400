"""The page of the HTTP interface: every endpoint and every field, from the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from reference_pages.page import Entry, Page, Section
from workflows.serve.app import build

INTRODUCTION = """
`two-tower serve` answers these requests. `/docs` of a running server is Swagger UI, where each
request can be tried, and `/openapi.json` describes all of this for generators of clients. With
`TWO_TOWER_API_KEY` set, all requests except `/health` and `/metrics` need the header
`Authorization: Bearer KEY`. A refused request gets a body of the form `Faults`, which names the
field, what it held and what was expected.
""".strip()


def page() -> Page:
    """Return the page of the HTTP interface."""
    return page_of(document())


def document() -> dict[str, Any]:
    """Return the OpenAPI document of the server, without starting one."""
    no_export: Any = SimpleNamespace()  # the document does not depend on the export
    found: dict[str, Any] = build(no_export, key="any").openapi()
    return found


def page_of(found: Mapping[str, Any]) -> Page:
    """Return the page of an OpenAPI document."""
    sections = [
        _endpoint(f"{method.upper()} {path}", operation)
        for path, methods in found["paths"].items()
        for method, operation in methods.items()
    ]
    bodies = found["components"]["schemas"].items()
    return Page("HTTP", INTRODUCTION, [*sections, *(_body(*body) for body in bodies)])


def _endpoint(title: str, operation: Mapping[str, Any]) -> Section:
    text = operation.get("description", "")
    if body := operation.get("requestBody"):
        text += f"\n\nBody: {_type(body['content']['application/json']['schema'])}."
    answers = []
    for status, answer in operation["responses"].items():
        schema = answer.get("content", {}).get("application/json", {}).get("schema", {})
        answers.append(f"{status} ({_type(schema)})")
    text += f"\n\nAnswers: {', '.join(answers)}." if operation.get("description") else ""
    entries = [
        Entry(one["name"], one.get("description", ""), (one["in"], *_facts(one["schema"], one)))
        for one in operation.get("parameters", [])
    ]
    return Section(f"`{title}`", text, entries, ("parameter", "in", "type", "default", "meaning"))


def _body(name: str, schema: Mapping[str, Any]) -> Section:
    required = schema.get("required", ())
    entries = [
        Entry(field, one.get("description", ""), _facts(one, {"required": field in required}))
        for field, one in schema["properties"].items()
    ]
    text = schema.get("description", "")
    return Section(f"`{name}`", text, entries, ("field", "type", "default", "meaning"))


def _facts(schema: Mapping[str, Any], of: Mapping[str, Any]) -> tuple[str, str]:
    default = "required" if of.get("required") else ""
    if "default" in schema:
        default = f"`{schema['default']}`".lower()
    return _type(schema), default


def _type(schema: Mapping[str, Any]) -> str:
    """Return a schema in words."""
    if "$ref" in schema:
        return f"`{schema['$ref'].rpartition('/')[2]}`"
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    kind = schema.get("type", "")
    if kind == "array":
        return f"list of {_type(schema['items'])}"
    if kind == "object":
        return f"mapping of names to {_type(schema.get('additionalProperties', {}))}"
    words = {"integer": "whole number", "string": "text", "boolean": "true or false"}
    bounds = [
        f"{word} {schema[key]:,}"
        for word, key in (("from", "minimum"), ("to", "maximum"))
        if key in schema
    ]
    return " ".join([words.get(kind, kind) or "text", *bounds])
